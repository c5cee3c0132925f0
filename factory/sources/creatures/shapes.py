"""Signed distance functions of primitive solids, and their smooth union.

Distances are in metres, negative inside, and exact or close to exact near the surface. A `Shape` also stores the joint
it is attached to, its colour, and its blend width in the smooth union.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from factory.sources.creatures.palette import Colour
from renderers import fixed

Vector = Sequence[float] | np.ndarray  # three numbers


@dataclass(frozen=True)
class Shape:
    """A solid in the rest pose.

    Attributes:
        joint: name of the joint that moves the solid.
        colour: linear RGB.
        measure: float [N, 3] world points → float [N] signed distances in metres.
        low, high: float [3], corners of an axis-aligned bounding box.
        blend: width in metres of the smooth union with the preceding shapes.
    """

    joint: str
    colour: Colour
    measure: Callable[[np.ndarray], np.ndarray]
    low: np.ndarray
    high: np.ndarray
    blend: float


def euler(angles: np.ndarray) -> np.ndarray:
    """Return rotation matrices [..., 3, 3] Ry · Rx · Rz for (pitch, yaw, roll) [..., 3] in radians."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(angles), -1, 0) for f in (fixed.cos, fixed.sin))
    rows = [
        [cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx],
        [cx * sz, cx * cz, -sx],
        [cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def rotation(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Return a rotation matrix [3, 3] for angles in degrees.

    Positive pitch tilts the nose down, yaw turns to the left (+X), roll leans to the right.
    """
    return euler(np.radians([pitch, yaw, roll]))


def limb(
    joint: str, colour: Colour, start: Vector, end: Vector, radius: float, end_radius: float | None = None,
    blend: float | None = None, flat: float = 1.0, flat_axis: Vector = (1, 0, 0),
) -> Shape:  # fmt: skip
    """A capsule with a different radius at each end. `flat` < 1 scales it along `flat_axis`, as for fins and ears."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    ra, rb = radius, radius if end_radius is None else end_radius
    axis = b - a
    length2 = float(fixed.dot(axis, axis)) + 1e-12
    squeeze = np.asarray(flat_axis, float) / fixed.norm(np.asarray(flat_axis, float))

    def measure(p: np.ndarray) -> np.ndarray:
        offset = p - a
        # Apply the inverse scale. Multiplying the result by `flat` then gives a lower bound of the true distance.
        if flat != 1.0:
            offset = offset + (fixed.dot(offset, squeeze) * (1 / flat - 1))[..., None] * squeeze
        along = np.clip(fixed.dot(offset, axis) / length2, 0, 1)
        nearest = offset - along[..., None] * axis
        distance = fixed.norm(nearest) - (ra + (rb - ra) * along)
        return distance * flat if flat != 1.0 else distance

    reach = np.array([[ra], [rb]])
    ends = np.stack([a, b])
    blend = 0.6 * min(ra, rb) if blend is None else blend
    return Shape(joint, colour, measure, (ends - reach).min(0), (ends + reach).max(0), blend)


def ball(
    joint: str, colour: Colour, centre: Vector, radii: float | Vector,
    pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, blend: float | None = None,
) -> Shape:  # fmt: skip
    """An ellipsoid with semi-axes `radii` (x, y, z) in metres, rotated by angles in degrees.

    The distance is the first-order approximation k1 (k1 - 1) / k2, with k1 = |q / r| and k2 = |q / r²|.
    """
    c = np.asarray(centre, float)
    r = np.broadcast_to(np.asarray(radii, float), 3)
    turn = rotation(pitch, yaw, roll)

    def measure(p: np.ndarray) -> np.ndarray:
        q = fixed.transformed(p - c, turn.T)  # to the local frame
        k1 = fixed.norm(q / r)
        k2 = fixed.norm(q / r**2)
        return np.where(k2 > 1e-9, k1 * (k1 - 1) / np.maximum(k2, 1e-9), -r.min())

    reach = np.sqrt(((turn * r) ** 2).sum(1))
    return Shape(
        joint, colour, measure, c - reach, c + reach, 0.5 * float(r.min()) if blend is None else blend
    )


def box(
    joint: str, colour: Colour, centre: Vector, half: Vector, corner: float,
    pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, blend: float = 0.0,
) -> Shape:  # fmt: skip
    """A rounded box with half extents `half` and edge radius `corner`, in metres."""
    c, h = np.asarray(centre, float), np.asarray(half, float) - corner
    turn = rotation(pitch, yaw, roll)

    def measure(p: np.ndarray) -> np.ndarray:
        q = np.abs(fixed.transformed(p - c, turn.T)) - h
        outside = np.maximum(q, 0)
        return fixed.norm(outside) + np.minimum(q.max(-1), 0) - corner

    reach = fixed.transformed(np.asarray(half, float), np.abs(turn))
    return Shape(joint, colour, measure, c - reach, c + reach, blend)


def smooth_union(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """Quadratic polynomial smooth minimum of two distances; rounds the seam where they differ by less than `blend`."""
    if blend <= 0:
        return np.minimum(first, second)
    near = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - near * near / (4 * blend)


def union(shapes: Sequence[Shape], points: np.ndarray) -> np.ndarray:
    """Return signed distances [N] to the smooth union of `shapes`, blended in order."""
    total = shapes[0].measure(points)
    for shape in shapes[1:]:
        total = smooth_union(total, shape.measure(points), shape.blend)
    return total


def gradient(shapes: Sequence[Shape], points: np.ndarray, step: float) -> np.ndarray:
    """Return the gradient [N, 3] of the union, estimated from four samples at the corners of a tetrahedron."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], float)
    return sum(corner * union(shapes, points + step * corner)[:, None] for corner in corners) / (4 * step)


def onto(shapes: Sequence[Shape], point: Vector) -> np.ndarray:
    """Project `point` onto the surface of the union, approximately to the closest point [3]. Used to place features."""
    return project(shapes, np.asarray(point, float)[None], 1e-3)[0]


def project(
    shapes: Sequence[Shape], points: np.ndarray, step: float, longest: float = np.inf, rounds: int = 12
) -> np.ndarray:
    """Project points [N, 3] onto the surface of the union with Newton steps along the gradient.

    Args:
        shapes: the shapes of the union, in blending order.
        points: initial points, float [N, 3].
        step: finite-difference step of the gradient in metres; also scales the convergence tolerance.
        longest: maximum displacement per axis and iteration, in metres.
        rounds: maximum number of iterations.
    """
    for _ in range(rounds):
        distance = union(shapes, points)
        if np.abs(distance).max() < 1e-3 * step:
            break
        slope = gradient(shapes, points, step)
        pull = distance[:, None] * slope / np.maximum((slope**2).sum(1, keepdims=True), 0.2)
        points = points - np.clip(pull, -longest, longest)
    return points
