"""Capabilities and requirements of models, so that programs can use a model without knowing its family.

A family states `Capabilities`: the operations that its models support and the file formats that their results are
saved in. `python -m zoo` refuses everything else before it loads a model. `Needs` are measured per model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from renderers.cameras import Cameras


class Operation(StrEnum):
    """Something that models of a family can do; each requires the methods of one protocol below."""

    SAMPLE = "sample"  # Samples
    MOTION = "motion"  # HasMotions
    TEXT = "text"  # FollowsText
    INTERPOLATE = "interpolate"  # Interpolates
    ANIMATE = "animate"  # Animates
    RECONSTRUCT = "reconstruct"  # Reconstructs
    RESAMPLE = "resample"  # Resampled, by all results
    RENDER = "render"  # Rendered, by all results

    @property
    def phrase(self) -> str:
        """What the operation does, to follow "can"."""
        return _PHRASES[self][0]

    @property
    def request(self) -> str:
        """How it is requested from `python -m zoo`."""
        return _PHRASES[self][1]


_PHRASES = {
    Operation.SAMPLE: ("draw a random sample", "--seed"),
    Operation.MOTION: ("reproduce a trained motion by name", "--motion"),
    Operation.TEXT: ("find a motion by a sentence", "--text"),
    Operation.INTERPOLATE: ("interpolate between two motions", "--between"),
    Operation.ANIMATE: ("animate an object file by a sentence", "animate"),
    Operation.RECONSTRUCT: ("reconstruct a motion from videos", ".reconstruct in Python"),
    Operation.RESAMPLE: ("change the number of frames", "--frames"),
    Operation.RENDER: ("render from cameras around the object", "render"),
}


class Result(Protocol):
    """What every operation returns."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a file in one of the family's formats, chosen by the suffix; returns the file or folder written."""


class Resampled(Result, Protocol):
    """A result whose number of frames can be changed."""

    def resampled(self, frames: int) -> Resampled:
        """The same motion in another number of evenly spaced frames."""


class Rendered(Result, Protocol):
    """A result that is a 3D scene over time."""

    phases: Tensor
    fps: float

    def render(self, cameras: Cameras, phases: Sequence[float] | None = None) -> np.ndarray:
        """Frames uint8 [V, T, H, W, 3] from V cameras at phases in 0..1, by default the result's own."""


class Samples(Protocol):
    """Operation.SAMPLE."""

    def sample(self, seed: int) -> Result:
        """A random sample; the same seed gives the same result."""


class HasMotions(Protocol):
    """Operation.MOTION."""

    def motion(self, which: str) -> Result:
        """One of the motions that the model was trained on; a LookupError suggests similar names."""


class FollowsText(Protocol):
    """Operation.TEXT."""

    def from_text(self, sentence: str) -> Result:
        """The motion that a sentence describes."""


class Interpolates(Protocol):
    """Operation.INTERPOLATE."""

    def interpolate(self, a: str, b: str, steps: int) -> Sequence[Result]:
        """Evenly spaced steps from one named motion to another, both included."""


class Animates(Protocol):
    """Operation.ANIMATE."""

    def animate(self, asset: str | os.PathLike[str], sentence: str, *, seed: int = 0) -> Result:
        """Set the object of a glTF file in motion as the sentence describes."""


class Reconstructs(Protocol):
    """Operation.RECONSTRUCT."""

    def reconstruct(self, videos: np.ndarray, cameras: Cameras) -> Result:
        """The motion seen in videos uint8 [V, T, H, W, 4] from V known cameras."""


@dataclass(frozen=True)
class Capabilities:
    """What models of a family can do. A family that states nothing can only be loaded and published.

    Attributes:
        operations: supported operations.
        formats: suffixes that results can be saved with, e.g. ".mp4".
        extras: of the distribution, which install everything that models of the family use: menagerie4d[extras].
        hardware: whether a GPU is needed, a phrase.
    """

    operations: tuple[Operation, ...] = ()
    formats: tuple[str, ...] = ()
    extras: str = "zoo"
    hardware: str = ""

    def require(self, operation: Operation, model: str, family: str) -> None:
        """Refuse an operation that is not supported.

        Raises:
            UnsupportedError: one sentence that lists what is.
        """
        if operation in self.operations:
            return
        supported = ", ".join(each.request for each in self.operations)
        raise UnsupportedError(
            f"{model}: models of the family {family!r} cannot {operation.phrase} ({operation.request}); "
            + (f"they support {supported}" if supported else "the family states no operations")
        )

    def require_format(self, path: Path, model: str, family: str) -> None:
        """Refuse a file format that results cannot be saved in.

        Raises:
            UnsupportedError: one sentence that lists the formats.
        """
        if path.suffix.lower() not in self.formats:
            formats = ", ".join(self.formats) or "no format"
            raise UnsupportedError(
                f"{path}: results of {model} (family {family!r}) are saved as one of {formats}, "
                f"got {path.suffix or 'no suffix'!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """As JSON, for `python -m zoo info --json`."""
        return {**asdict(self), "operations": list(map(str, self.operations)), "formats": list(self.formats)}


@dataclass(frozen=True)
class Needs:
    """What loading a model and saving its first and second sample as .mp4 took, measured in a fresh process.

    Attributes:
        memory_mib: peak resident memory.
        first_sample_s: wall time from the start of the process to the first file, imports and loading included.
        warm_sample_s: wall time of the second sample.
        cores: CPU cores available to the process.
        machine: that it was measured on.
    """

    memory_mib: int
    first_sample_s: float
    warm_sample_s: float
    cores: int
    machine: str

    @classmethod
    def from_json(cls, content: object) -> Needs | None:
        """Read `metrics["needs"]` of a model; None if it is missing or malformed, since authors write it freely."""
        if not isinstance(content, dict):
            return None
        values: dict[str, Any] = {field.name: content.get(field.name) for field in fields(cls)}
        *numbers, machine = values.values()
        if not all(type(value) in (int, float) for value in numbers) or not isinstance(machine, str):
            return None
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return asdict(self)
