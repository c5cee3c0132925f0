"""`Playable`: what all animations can do with their time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from renderers.arguments import number
from zoo.animate3d.limits import MOST_FRAMES
from zoo.animate3d.timing import at_times, looped, resampled, trimmed

if TYPE_CHECKING:
    from zoo.animate3d.fit_report import FitReport


class Playable:
    """A model and its motion over time; a frozen dataclass with these fields.

    Attributes:
        model: what moves.
        motion: how, with `times`.
        name: a title, also stored in exported files.
        report: how the motion was fitted to videos; None if it was not.
    """

    model: Any
    motion: Any
    name: str
    report: FitReport | None

    def _start_at_zero(self) -> None:
        times = self.motion.times
        if len(times) and times[0] != 0:
            object.__setattr__(self, "motion", replace(self.motion, times=times - times[0]))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r} of {self.model.name!r}, {len(self.motion.times)} frames, "
            f"{self.duration:.3g} s)"
        )

    @property
    def duration(self) -> float:
        """Length in seconds, from the first frame to the last."""
        return float(self.motion.times[-1] - self.motion.times[0])

    @property
    def fps(self) -> float:
        """Mean frame rate; 1 for a single frame."""
        return (len(self.motion.times) - 1) / self.duration if self.duration > 0 else 1.0

    def trim(self, start: float = 0.0, end: float | None = None) -> Self:
        """Cut out a part; it begins at 0 s.

        Args:
            start, end: seconds from the first frame, 0 <= start < end <= `duration`; None is the end.
        """
        here = f"{type(self).__name__}.trim"
        start = number(start, f"{here}: start", 0.0, self.duration)
        end = self.duration if end is None else number(end, f"{here}: end", 0.0, self.duration)
        if not start < end:
            raise ValueError(f"{here}: expected start before end, got {start:g} and {end:g}")
        return self._moving(trimmed(self.motion, start, end))

    def loop(self, crossfade_s: float = 0.25) -> Self:
        """Close the animation to a loop: its last frame equals its first.

        Args:
            crossfade_s: seconds at the end that are faded over into the beginning, at most half of the duration. The
                result is shorter by them.
        """
        crossfade_s = number(
            crossfade_s,
            f"{type(self).__name__}.loop: crossfade_s",
            above=0.0,
            high=max(self.duration / 2, 1e-9),
        )
        return self._moving(looped(self.motion, crossfade_s))

    def resample(self, fps: float) -> Self:
        """Change the frame rate; between frames, the motion is interpolated."""
        here = f"{type(self).__name__}.resample: fps"
        fps = number(fps, here, above=0.0)
        if (frames := self.duration * fps) > self._most_frames():
            raise ValueError(
                f"{here}: {fps:g} gives {frames:.0f} frames, expected at most {self._most_frames()}"
            )
        return self._moving(resampled(self.motion, fps))

    def _most_frames(self) -> int:
        return MOST_FRAMES

    def _moving(self, motion: Any) -> Self:
        return replace(self, motion=motion)  # type: ignore[type-var]

    def _elapsed(self, times: np.ndarray) -> Any:
        """The motion at seconds from its first frame."""
        return at_times(replace(self.motion, times=self.motion.times - self.motion.times[0]), times)
