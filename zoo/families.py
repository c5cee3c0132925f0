"""Model families: the first half of a model's name selects the class that reads its repository.

A family is registered as a string and imported when a model of it is used. A repository names its family, never a
module: which code runs depends on what is installed, not on what was downloaded. Other packages add families with an
entry point:

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

from renderers.arguments import instance
from zoo.capabilities import Capabilities, Operation
from zoo.errors import ZooError

ENTRY_POINTS = "menagerie4d.families"
_BUILT_IN = {"dimo": "zoo.dimo.pipeline:DIMOPipeline", "mvvdm": "zoo.mvvdm.pipeline:MVVDMPipeline"}
# Stated here and not in the classes, so that `zoo.info` needs neither torch nor diffusers.
_CAPABILITIES = {
    "dimo": Capabilities(
        operations=(
            Operation.SAMPLE,
            Operation.MOTION,
            Operation.TEXT,
            Operation.INTERPOLATE,
            Operation.RESAMPLE,
            Operation.RENDER,
            Operation.RECONSTRUCT,
        ),
        formats=(".mp4", ".glb", ".fbx", ".usd", ".usda", ".usdc", ".usdz", ".ply", ".4dgs", ".npz", ".html"),
        extras="zoo,text",
        hardware="runs on a CPU",
    ),
    "mvvdm": Capabilities(
        operations=(Operation.SAMPLE, Operation.ANIMATE),
        formats=(".mp4",),
        extras="diffusion,text,render",
        hardware="small models run on a CPU, models of the published size need a GPU",
    ),
}
_registered: dict[str, str] = {}


class Model(Protocol):
    """What a family's class provides.

    A class may also have the attribute `capabilities`, a `zoo.capabilities.Capabilities`. Without it, its models can
    be loaded, described and published, and `python -m zoo` refuses to sample from them. With a method
    `to(*, device, dtype)` that returns the model, its models can be loaded with `zoo.load(…, device=…, dtype=…)`.

    Attributes:
        card: content of the model card, every key optional: title, summary (plain text), license (SPDX, of the
            weights), pipeline_tag, tags, datasets (hub names), base_model (a model's name, or a list), sections
            ({heading: text or table rows}), provenance (records of the training data, by which `zoo.publish` decides
            whether the model may be shared; see `zoo.provenance`).
        metrics: protocol (one sentence on how they were measured), dataset ({"name", "type"}), the groups of numbers
            mean, worst and unseen ({"mean": {"psnr": 29.1}}), which the card shows, needs (see
            `zoo.capabilities.Needs`), and anything else.
    """

    card: dict[str, Any]
    metrics: dict[str, Any]

    @classmethod
    def load_from(cls, folder: Path, init: dict[str, Any]) -> Model:
        """Load the model from a folder whose files have been checked.

        Args:
            folder: contains what `save_to` wrote.
            init: what `save_to` returned.
        """

    def save_to(self, folder: Path) -> dict[str, Any]:
        """Write model.safetensors and preview.mp4; the return value is stored as JSON in config.json."""


def register_family(name: str, target: str) -> None:
    """Make models of a family loadable in this process.

    Args:
        name: the first half of its models' names: lower-case letters, digits, "-" and "_".
        target: "module:Class", imported when a model of the family is used. See `Model` for its interface.
    """
    instance(name, str, "register_family: name")
    instance(target, str, "register_family: target")
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
    """Name → "module:Class" of every family: built in, from installed packages, or registered in this process."""
    installed = {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return {**installed, **_BUILT_IN, **_registered}


def family_class(name: str) -> Any:
    """Import the class of a family, which implements `Model`.

    Raises:
        ZooError: the family is unknown, or its module cannot be imported.
    """
    target = _registered.get(name) or _BUILT_IN.get(name)  # reading entry points takes tens of milliseconds
    if target is None and (target := known_families().get(name)) is None:
        raise ZooError(
            f"family {name!r} is not known here, only {', '.join(sorted(known_families()))}: install the package that "
            f"provides it, or register its class with zoo.register_family({name!r}, 'module:Class')"
        )
    module, _, attribute = target.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except ImportError as error:
        raise ZooError(
            f"family {name!r} cannot be used here, {target} does not import: {error}; {install_advice(name)}"
        ) from error
    except AttributeError:
        raise ZooError(
            f"family {name!r}: {module} has no {attribute}; correct the package that registers it"
        ) from None
    return value


def capabilities_of(name: str) -> Capabilities:
    """What models of a family can do; nothing if the family does not state it.

    Raises:
        ZooError: the family is unknown, or its module cannot be imported.
    """
    instance(name, str, "capabilities_of: name")
    if name in _CAPABILITIES and name not in _registered:
        return _CAPABILITIES[name]
    stated = getattr(family_class(name), "capabilities", None)
    return stated if isinstance(stated, Capabilities) else Capabilities()


def install_advice(name: str) -> str:
    """What to install when an import of a family fails."""
    if name in _CAPABILITIES:
        return f'pip install "menagerie4d[{_CAPABILITIES[name].extras}]" installs what it needs'
    return 'pip install "menagerie4d[zoo,diffusion]" installs what the built-in families need'


def family_of(model: object) -> str:
    """The name of the family that a model's class, or a base class of it, is registered for.

    Raises:
        ZooError: there is none.
    """
    names = {target: name for name, target in known_families().items()}
    for cls in type(model).__mro__:
        if (target := f"{cls.__module__}:{cls.__qualname__}") in names:
            return names[target]
    target = f"{type(model).__module__}:{type(model).__qualname__}"
    raise ZooError(
        f"{target} is not the class of a registered family: register it with "
        f"zoo.register_family(name, '{target}')"
    )
