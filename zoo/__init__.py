"""Models of things that move: load, sample, train on tensors, evaluate, export, publish.

    kangaroo = zoo.load("dimo/kangaroo")
    kangaroo.sample(7).save("hop.mp4")

Names are imported on first use, so that `import zoo` needs neither torch nor the hub's client. Model families are
packages: `zoo.dimo`, `zoo.mvvdm`.
"""

from zoo import interrupts  # noqa: F401 - before all other imports, so that a Ctrl-C during them is handled

# isort: split
from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.animate3d.api import animate
    from zoo.capabilities import Capabilities, Needs, Operation
    from zoo.errors import (
        HubError,
        PlacementError,
        RepositoryError,
        UnknownModelError,
        UnsupportedError,
        ZooError,
    )
    from zoo.evaluation.api import evaluate
    from zoo.families import capabilities_of, known_families, register_family
    from zoo.hub import ModelInfo, info, list_models, load, publish
    from zoo.viewer.api import view

__all__ = [
    "Capabilities",
    "HubError",
    "ModelInfo",
    "Needs",
    "Operation",
    "PlacementError",
    "RepositoryError",
    "UnknownModelError",
    "UnsupportedError",
    "ZooError",
    "__version__",
    "animate",
    "capabilities_of",
    "evaluate",
    "info",
    "known_families",
    "list_models",
    "load",
    "publish",
    "register_family",
    "view",
]

__version__: str

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Capabilities": "zoo.capabilities",
            "HubError": "zoo.errors",
            "ModelInfo": "zoo.hub",
            "Needs": "zoo.capabilities",
            "Operation": "zoo.capabilities",
            "PlacementError": "zoo.errors",
            "RepositoryError": "zoo.errors",
            "UnknownModelError": "zoo.errors",
            "UnsupportedError": "zoo.errors",
            "ZooError": "zoo.errors",
            "animate": "zoo.animate3d.api",
            "capabilities_of": "zoo.families",
            "evaluate": "zoo.evaluation.api",
            "info": "zoo.hub",
            "known_families": "zoo.families",
            "list_models": "zoo.hub",
            "load": "zoo.hub",
            "publish": "zoo.hub",
            "register_family": "zoo.families",
            "view": "zoo.viewer.api",
        },
    )
