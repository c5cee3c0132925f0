"""Models of things that move: load, sample, train on tensors, evaluate, export, publish.

    kangaroo = zoo.load("dimo/kangaroo")
    kangaroo.sample(7).save("hop.mp4")

Names are imported on first use, so that `import zoo` needs neither torch nor a hub's client.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "load": "zoo.hub",
    "list_models": "zoo.hub",
    "info": "zoo.hub",
    "publish": "zoo.hub",
    "ModelInfo": "zoo.hub",
    "register_family": "zoo.families",
    "known_families": "zoo.families",
    "ZooError": "zoo.errors",
    "UnknownModelError": "zoo.errors",
    "RepositoryError": "zoo.errors",
    "HubError": "zoo.errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
