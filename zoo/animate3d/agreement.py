"""How well the silhouettes in several views agree with each other, before anything is fitted to them.

Two cameras share a pencil of planes through the line between their centres. The outermost of these planes that touch
an object are the same for both cameras, as each contains a point of the object's surface (epipolar tangency; Cipolla
and Giblin, Visual Motion of Curves and Surfaces, 2000, chapter 4). The angle between the outermost planes seen in one
view and in the other, as a distance in the images, is a lower bound on how far the views disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from renderers.cameras import Cameras

LARGEST_ANGLE = np.radians(
    80
)  # between the planes of a silhouette and of its centre, else the epipole is too near


@dataclass(frozen=True)
class Agreement:
    """Distance between the outermost epipolar planes of pairs of silhouettes.

    Attributes:
        pairs: view indices of the compared pairs. Pairs of opposite views see each other's camera through the object
            and have no such planes.
        pixels: float64 [T, P, 2], distance in pixels of the frames, per pair and side; NaN where the object touches the
            border of an image, or has no outermost planes.
    """

    pairs: tuple[tuple[int, int], ...]
    pixels: np.ndarray

    @property
    def per_frame(self) -> np.ndarray:
        """Mean over pairs and sides, float64 [T]; NaN for frames without a comparison."""
        return _mean(self.pixels.reshape(len(self.pixels), -1), 1)

    def per_view(self, views: int) -> np.ndarray:
        """Mean over frames and the pairs that a view is in, float64 [views]; NaN without a comparison."""
        means = [self.pixels[:, [view in pair for pair in self.pairs]] for view in range(views)]
        return np.array([_mean(each.reshape(-1), 0) for each in means])

    @property
    def mean(self) -> float:
        """Mean over all comparisons; NaN if there is none, as with a single view."""
        return float(_mean(self.pixels.reshape(-1), 0))

    def sentence(self) -> str:
        """The result in a sentence."""
        if not np.isfinite(self.pixels).any():
            return "the agreement of the views cannot be measured: no two silhouettes can be compared"
        frames = self.per_frame
        worst = int(np.nanargmax(frames))
        return (
            f"the silhouettes of the views disagree by {self.mean:.2f} pixels in the mean, by {frames[worst]:.2f} in "
            f"frame {worst}"
        )


def view_agreement(alpha: np.ndarray, cameras: Cameras) -> Agreement:
    """Compare silhouettes between all pairs of views.

    Args:
        alpha: uint8 [V, T, H, W], coverage.
        cameras: V cameras with images of W × H pixels.
    """
    views, frames = alpha.shape[:2]
    touches = np.zeros((views, frames), bool)
    for edge in (alpha[:, :, 0], alpha[:, :, -1], alpha[..., 0], alpha[..., -1]):
        touches |= (edge > 127).any(-1)
    pairs, pixels = [], []
    for a, b in combinations(range(views), 2):
        basis = _pencil(cameras, a, b)
        if basis is None:
            continue
        planes = [_plane_angles(cameras, view, basis) for view in (a, b)]
        distances = np.full((frames, 2), np.nan)
        for t in range(frames):
            if touches[a, t] or touches[b, t]:
                continue
            end_a, end_b = (
                _outermost(alpha[view, t], *each) for view, each in zip((a, b), planes, strict=True)
            )
            if end_a is not None and end_b is not None:
                (angle_a, size_a), (angle_b, size_b) = end_a, end_b
                distances[t] = np.abs(angle_a - angle_b) / (0.5 * (size_a + size_b))
        if np.isfinite(distances).any():
            pairs.append((a, b))
            pixels.append(distances)
    stacked = np.stack(pixels, 1) if pixels else np.full((frames, 0, 2), np.nan)
    return Agreement(tuple(pairs), stacked)


def _pencil(cameras: Cameras, a: int, b: int) -> np.ndarray | None:
    """Axes [2, 3] perpendicular to the baseline of two cameras; the first points from it to what they look at.

    None if the baseline is too short or points at the object, so that all planes contain it.
    """
    poses = cameras.camera_to_world
    centres = poses[:, :3, 3]
    baseline = centres[b] - centres[a]
    forward = poses[a, :3, 2] + poses[b, :3, 2]
    length = np.linalg.norm(baseline)
    if length < 1e-6 * (1 + np.abs(centres).max()):
        return None
    baseline = baseline / length
    first = forward - (forward @ baseline) * baseline
    if np.linalg.norm(first) < 0.2:
        return None
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(baseline, first)])


def _plane_angles(cameras: Cameras, view: int, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle of the plane through each pixel of a view, and its change per pixel: float64 [H, W] each, radians."""
    x, y = np.meshgrid(np.arange(cameras.width) + 0.5, np.arange(cameras.height) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(cameras.K[view]).T
    rays = rays @ cameras.world_to_camera[view, :3, :3]
    angle = np.arctan2(rays @ basis[1], rays @ basis[0])
    rows, columns = np.gradient(angle)
    return angle, np.hypot(rows, columns)


def _outermost(
    alpha: np.ndarray, angle: np.ndarray, per_pixel: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Smallest and largest angle [2] of a silhouette, and the change of angle per pixel at these [2].

    The silhouette ends inside a partly covered pixel, (alpha − 1/2) pixels beyond its centre.
    """
    rows, columns = np.nonzero(alpha >= 32)
    if not len(rows):
        return None
    angles, sizes = angle[rows, columns], per_pixel[rows, columns]
    if np.abs(angles).max() > LARGEST_ANGLE:
        return None
    reach = (alpha[rows, columns] / 255.0 - 0.5) * sizes
    low, high = int(np.argmin(angles - reach)), int(np.argmax(angles + reach))
    ends = np.array([angles[low] - reach[low], angles[high] + reach[high]])
    return ends, sizes[[low, high]]


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the finite values along an axis; NaN where there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis)
    total = np.where(finite, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
