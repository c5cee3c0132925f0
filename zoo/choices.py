"""What `python -m zoo sample`, `render` and `export` are asked for: motions, cameras and the file to write.

All values are checked before a model is loaded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.capabilities import Operation, Result
from zoo.errors import OptionError

if TYPE_CHECKING:
    from renderers.cameras import Cameras

FOV_DEG, DISTANCE = 33.9, 2.0  # of the cameras that DIMO's training videos are rendered with
STEPS, VIEWS = 5, 8  # by default
CAMERAS_FILE = "cameras.json"  # in a folder with one video or picture per view
SEEDS = range(-(2**63), 2**64)  # of torch's generators


@dataclass(frozen=True)
class MotionChoice:
    """Which results are written: a random sample unless another field is set.

    Attributes:
        seed: of the random sample.
        motion: name of a trained motion.
        text: sentence that describes the motion.
        between: names of two motions to interpolate between.
        steps: of `between`, both ends included; None = `STEPS`.
        frames: number of frames; None = the model's.

    Raises:
        OptionError: a value is not possible.
    """

    seed: int = 0
    motion: str | None = None
    text: str | None = None
    between: tuple[str, str] | None = None
    steps: int | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.text is not None and not self.text.strip():
            raise OptionError("--text: expected a sentence, got no words")
        if self.steps is not None and self.between is None:
            raise OptionError(f"--steps {self.steps}: is for --between only, which is not given")
        if self.steps is not None:
            _check_range("--steps", self.steps, 2, 1000)
        if self.frames is not None:
            _check_range("--frames", self.frames, 1, 10_000)

    @property
    def operations(self) -> list[Operation]:
        """What the model must support."""
        if self.between is not None:
            chosen = Operation.INTERPOLATE
        elif self.motion is not None:
            chosen = Operation.MOTION
        else:
            chosen = Operation.SAMPLE if self.text is None else Operation.TEXT
        return [chosen] if self.frames is None else [chosen, Operation.RESAMPLE]

    def paths(self, out: Path) -> list[Path]:
        """The file of each result: `out`, or for `between` numbered names."""
        if self.between is None:
            return [out]
        stem = out.with_suffix("")
        return [stem.with_name(f"{stem.name}-{i}{out.suffix}") for i in range(self.steps or STEPS)]

    def results(self, model: Any) -> Sequence[Result]:
        """Decode the chosen motions."""
        if self.between is not None:
            return cast("Sequence[Result]", model.interpolate(*self.between, steps=self.steps or STEPS))
        if self.motion is not None:
            return [model.motion(self.motion)]
        return [model.sample(self.seed) if self.text is None else model.from_text(self.text)]


@dataclass(frozen=True)
class Orbit:
    """Cameras of `render`, on a circle around the object and facing it.

    Attributes:
        views: number of cameras, evenly spaced.
        azimuth_deg: of the first camera; 0 is in front of the object (+Z), 90 is at +X.
        elevation_deg: above the horizontal plane.
        distance: from the object's origin, in its own unit.
        resolution: width and height in pixels.

    Raises:
        OptionError: a value is not possible.
    """

    views: int = VIEWS
    azimuth_deg: float = 0.0
    elevation_deg: float = 10.0
    distance: float = DISTANCE
    resolution: int = 384

    def __post_init__(self) -> None:
        _check_range("--views", self.views, 1, 1000)
        _check_range("--resolution", self.resolution, 2, 8192)
        if self.resolution % 2:
            raise OptionError(f"--resolution {self.resolution}: expected an even number, as videos require")
        if not math.isfinite(self.azimuth_deg):
            raise OptionError(f"--azimuth-deg {self.azimuth_deg}: expected a finite angle")
        if not -90 <= self.elevation_deg <= 90:
            raise OptionError(f"--elevation-deg {self.elevation_deg:g}: expected an angle from -90 to 90")
        if not 0 < self.distance < math.inf:
            raise OptionError(f"--distance {self.distance:g}: expected a finite number above 0")

    def cameras(self, count: int) -> Cameras:
        """`count` cameras, evenly spaced."""
        import numpy as np

        from renderers.cameras import orbit_cameras

        return orbit_cameras(
            np.radians(self.azimuth_deg + np.arange(count) * 360 / count),
            np.radians(self.elevation_deg),
            self.distance,
            fov_y=np.radians(FOV_DEG),
            width=self.resolution,
            height=self.resolution,
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that torch does not take."""
    if seed not in SEEDS:
        raise OptionError(f"--seed {seed}: expected a whole number from -2^63 to 2^64 - 1")


def check_output(out: Path) -> None:
    """Refuse a file that cannot be created, before the work whose result it would hold.

    Raises:
        OptionError: it is a folder, below a file or of an impossible name, or there is no permission.
    """
    try:
        if out.is_dir():
            raise OptionError(f"--out {out}: is a folder, expected the name of a file")
        parent = next(folder for folder in out.absolute().parents if folder.exists())
    except OSError as error:  # a name that is too long, a loop of links
        raise OptionError(f"--out {out}: {error.strerror}") from None
    if not parent.is_dir():
        raise OptionError(f"--out {out}: {parent} is a file, expected a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OptionError(f"--out {out}: no permission to write in {parent}")


def _check_range(option: str, value: int, least: int, most: int) -> None:
    if value < least:
        raise OptionError(f"{option} {value}: expected at least {least}")
    if value > most:
        raise OptionError(f"{option} {value}: expected at most {most}")
