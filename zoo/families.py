"""Families of models: the first half of a name says which class reads the repository.

A family is registered by a string and imported when a model of it is used. A repository names its family, never a
module: what runs is chosen by what is installed here, not by what was downloaded. Other packages bring families
through entry points:

    [project.entry-points."menagerie4d.families"]
    boids = "boids.zoo:Boids"
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import warnings
from pathlib import Path
from typing import Any, Protocol

from zoo.errors import ZooError

ENTRY_POINTS = "menagerie4d.families"
_BUILT_IN = {"dimo": "zoo.dimo.pipeline:DIMOPipeline", "mvvdm": "zoo.mvvdm.pipeline:MVVDMPipeline"}
_registered: dict[str, str] = {}


class Model(Protocol):
    """What the class of a family offers to the zoo.

    Attributes:
        card: what its card says, every key optional: title, summary (plain text), license (SPDX, of the weights),
            pipeline_tag, tags, datasets (hub names), base_model, sections ({heading: text or rows of a table}).
        metrics: protocol (how they were measured, a sentence), dataset ({"name", "type"}), the groups of numbers
            mean, worst and unseen ({"mean": {"psnr": 29.1}}), which the card shows, and anything else.
    """

    card: dict[str, Any]
    metrics: dict[str, Any]

    @classmethod
    def load_from(cls, folder: Path, init: dict[str, Any]) -> Model:
        """The model whose files lie in `folder`, all checked; `init` is what `save_to` returned."""

    def save_to(self, folder: Path) -> dict[str, Any]:
        """Write model.safetensors and preview.mp4; what is returned is kept as JSON."""


def register_family(name: str, target: str) -> None:
    """Make models of a family loadable in this process.

    Args:
        name: the first half of its models' names: lower-case letters, digits, "-" and "_".
        target: "module:Class"; imported when a model of the family is used. See `Model` for what it offers.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise ZooError(
            f"family {name!r}: expected lower-case letters, digits, '-' and '_'; choose such a name"
        )
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", target):
        raise ZooError(f"family {name!r}: expected 'module:Class', got {target!r}")
    before = _BUILT_IN.get(name) or _registered.get(name)
    if before not in (None, target):
        warnings.warn(f"family {name!r} was {before} and is now {target}", stacklevel=2)
    _registered[name] = target


def known_families() -> dict[str, str]:
    """Name → "module:Class" of every family: built in, brought by installed packages, registered here."""
    installed = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return {**installed, **_BUILT_IN, **_registered}


def family_class(name: str) -> type[Model]:
    """Import the class of a family.

    Raises:
        ZooError: no such family, or its module cannot be imported here.
    """
    target = _registered.get(name) or _BUILT_IN.get(name)  # reading entry points costs tens of milliseconds
    if target is None and (target := known_families().get(name)) is None:
        raise ZooError(
            f"family {name!r} is not known here, only {', '.join(sorted(known_families()))}: install the package that "
            f"brings it, or name its class with zoo.register_family({name!r}, 'module:Class')"
        )
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise ZooError(
            f"family {name!r} cannot be used here, {target} does not import: {error}; "
            f'pip install "menagerie4d[zoo,diffusion]" brings what the built-in families need'
        ) from error
    except AttributeError:
        raise ZooError(
            f"family {name!r}: {module} has no {attribute}; the package that registers it is at fault"
        ) from None
    return found


def family_of(model: object) -> str:
    """The family that a model belongs to."""
    known = {target: name for name, target in known_families().items()}
    for kind in type(model).__mro__:
        if (target := f"{kind.__module__}:{kind.__qualname__}") in known:
            return known[target]
    kind = type(model)
    raise ZooError(
        f"{kind.__module__}:{kind.__qualname__} is the class of no family: "
        f"zoo.register_family(name, '{kind.__module__}:{kind.__qualname__}') makes it one"
    )
