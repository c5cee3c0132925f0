"""`SplatMotion`: where Gaussians are over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers.arguments import array, instance
from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class SplatMotion:
    """Gaussians over time, in the coordinates of their file.

    Attributes:
        positions: float32 [T, N, 3], centres.
        rotations: float32 [T, N, 4], unit quaternions (wxyz).
        times: float64 [T], seconds from the beginning, increasing.
    """

    positions: np.ndarray
    rotations: np.ndarray
    times: np.ndarray

    def __post_init__(self) -> None:
        for name in ("positions", "rotations", "times"):
            instance(getattr(self, name), np.ndarray, f"SplatMotion.{name}")
        array(self.times, "SplatMotion.times", ("T",))
        T, N = self.positions.shape[:2]
        shapes = self.positions.shape, self.rotations.shape, self.times.shape
        if shapes != ((T, N, 3), (T, N, 4), (T,)):
            raise ValueError(
                f"SplatMotion: expected positions [T, N, 3], rotations [T, N, 4] and T times, got "
                f"{', '.join(str(list(shape)) for shape in shapes)}"
            )

    def __repr__(self) -> str:
        return f"SplatMotion({self.positions.shape[1]} Gaussians, {len(self.times)} frames)"
