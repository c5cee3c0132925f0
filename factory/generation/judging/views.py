"""Agreement of several views of one motion: heights, colours, and silhouettes where the cameras are known."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.colors import color_distance, color_quantiles
from factory.generation.judging.video import LEAST_AREA
from renderers.cameras import Cameras


def view_height(masks: np.ndarray) -> float | None:
    """Disagreement of the views on how the object moves up and down; lengths of the object, 0 and up.

    For views at one distance and elevation. y_v(t), the mask's highest or its lowest row in view v, less its parabola
    over time (least squares): an object that walks comes nearer to one camera and goes away from another, and moves
    in these images steadily down and up, but a hop is seen by all. The result is the largest difference of a view from
    the median over views, 90th percentile over frames, larger of the two rows, divided by the square root of the
    mask's median area. None with fewer than two views, or if fewer than five frames show the object in all views.

    Args:
        masks: bool [V, T, H, W].
    """
    visible: np.ndarray = np.all(masks.sum((2, 3)) >= LEAST_AREA, axis=0)
    if len(masks) < 2 or visible.sum() < 5:
        return None
    rows: np.ndarray = np.any(masks[:, visible], axis=3)
    top = rows.argmax(2).astype(np.float64)
    bottom = rows.shape[2] - rows[:, :, ::-1].argmax(2).astype(np.float64)
    size = np.sqrt(np.median(masks[:, visible].sum((2, 3))))
    # Projection onto what no parabola over time explains.
    basis, _ = np.linalg.qr(np.vander(np.flatnonzero(visible) / masks.shape[1], 3))
    spreads = []
    for ends in (top, bottom):
        moved = ends - (ends @ basis) @ basis.T
        spreads.append(np.percentile(np.abs(moved - np.median(moved, 0)).max(0), 90))
    return float(max(spreads) / size)


def view_color(frames: np.ndarray, masks: np.ndarray) -> float | None:
    """Growth of the difference of a view's colours from those of all views together; CIELAB units, 0 and up.

    The distance is that of `color_change`. Views see different sides of an object, so the distance in frame 0 is
    subtracted. 90th percentile over frames, largest over views, at least 0. None with fewer than two views, or if
    frame 0 does not show the object in all of them.

    Args:
        frames: uint8 [V, T, H, W, 3].
        masks: bool [V, T, H, W].
    """
    visible = (masks.sum((2, 3)) >= LEAST_AREA).all(0)
    if len(masks) < 2 or not visible[0]:
        return None
    distances = []
    for t in np.flatnonzero(visible):
        each = [color_quantiles(frames[v, t][masks[v, t]]) for v in range(len(frames))]
        together = np.mean(each, 0)  # quantile averages: the Wasserstein barycentre of each channel
        distances.append([color_distance(one, together) for one in each])
    growth = np.array(distances) - distances[0]
    return float(max(0.0, np.percentile(growth, 90, axis=0).max()))


def view_silhouettes(masks: np.ndarray, cameras: Cameras | None) -> float | None:
    """Disagreement of the silhouettes with the cameras, by epipolar tangency; lengths of the object, 0 and up.

    Mean distance between the outermost epipolar planes of pairs of views (`zoo.animate3d.agreement`), divided by the
    square root of the mask's median area. None without cameras, or if no pair of views can be compared.

    Args:
        masks: bool [V, T, H, W].
        cameras: V cameras with images of this size, or None.
    """
    from zoo.animate3d.agreement import view_agreement

    areas = masks.sum((2, 3))
    if cameras is None or not (areas >= LEAST_AREA).any():
        return None
    mean = view_agreement(masks.astype(np.uint8) * 255, cameras).mean
    return float(mean / np.sqrt(np.median(areas[areas >= LEAST_AREA]))) if np.isfinite(mean) else None
