"""A map of a latent space: the plane through the trained latents in which they vary most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class LatentMap:
    """The first two principal components of M latents.

    A latent z has the coordinates A (z − m) on the map, and a point p of the map stands for the latent m + Aᵀ p.

    Attributes:
        mean: m, [Z].
        axes: A, [2, Z], orthonormal rows; a row of zeros if the latents vary in fewer directions.
        points: coordinates of the M latents, [M, 2].
        explained: share of the latents' variance in the plane, 0..1.
    """

    mean: np.ndarray
    axes: np.ndarray
    points: np.ndarray
    explained: float

    @staticmethod
    def of(latents: np.ndarray) -> LatentMap:
        """The map of latents [M, Z], float64. The sign of an axis makes its largest component positive."""
        latents = np.asarray(latents, np.float64)
        mean = latents.mean(0)
        _, singular, rows = np.linalg.svd(latents - mean, full_matrices=False)
        axes = np.zeros((2, latents.shape[1]))
        for i in range(min(2, len(singular))):
            if singular[i] > 1e-9 * max(singular[0], 1e-30):
                axes[i] = rows[i] * np.sign(rows[i][np.abs(rows[i]).argmax()])
        total = float((singular**2).sum())
        points = (latents - mean) @ axes.T
        return LatentMap(mean, axes, points, float((points**2).sum()) / total if total > 0 else 1.0)

    def project(self, latent: np.ndarray) -> np.ndarray:
        """Coordinates [2] of a latent [Z]."""
        return self.axes @ (np.asarray(latent, np.float64) - self.mean)

    def lift(self, point: Sequence[float]) -> np.ndarray:
        """The latent [Z] in the plane at a point [2]."""
        return self.mean + np.asarray(point, np.float64) @ self.axes
