"""Measure motions, and decide which are good training data.

Animate3D's authors left models out by hand: large displacements, very fast motion, sudden changes of appearance,
several objects. Here each of these criteria is a number in the dataset, and the limits are one dataclass. No clip is
dropped silently: the column `quality` lists the rules that a clip breaks.

Most measures are computed from points that are spread evenly over the visible surface and tracked exactly through the
clip; `factory.clips.similarity` is computed from the rendered frames.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from factory.clips.similarity import FEW_VIEWS
from renderers import fixed
from renderers.cameras import Cameras

HIGH, OK = "high", "ok"
_SAMPLES = 4096  # tracked points: one per 4 x 4 pixels of a 256-pixel image that the object fills
_FLOW_SIZE = 256  # pixels; the image size that flow is measured in
_CELL = 4  # pixels; side of the cells of the depth buffer that visibility is tested in
# Relative depth tolerance of the visibility test: a surface at a slant is deeper at the far side of adjacent cells.
_THICKNESS = 0.04
_TOP = 0.05  # fraction of the image that flow is averaged over, as in VBench's dynamic degree
# A triangle is absent below the first, present above the second fraction of its largest area over time.
_GONE, _PRESENT = 0.01, 0.25
_LARGE = 0.1  # fraction of the surface; smaller parts are accessories, not objects
_TOUCH = 0.05  # bounding-box diagonals; parts closer than this are one object
_RIGID = 0.02  # bounding-box diagonals; parts whose distances vary less than this move together
_MOMENTS = 8  # frames that signatures and contacts are computed from
_STEPS = 16  # frame-to-frame steps that flow is averaged over, each in one of the views
_COARSE = 4  # every fourth point is enough to measure fractions of the surface


@dataclass(frozen=True)
class MotionPolicy:
    """Limits of the measures of a clip. The paper names the criteria but no thresholds; the defaults are ours.

    Attributes:
        max_travel: displacement of the bounding-box centre, in first-frame diagonals.
        min_size, max_size: bounding-box diagonal, in first-frame diagonals.
        max_speed: mean over the surface in the fastest frame, diagonals per second; 6 is a quarter diagonal per frame
            at 24 fps.
        min_flow: optical flow, pixels per frame at 256 pixels.
        max_pop_in: fraction of the surface that appears or vanishes between two frames.
        min_ssim: SSIM of a frame with the previous one.
        max_parts: number of objects that move independently; the method assumes one.
    """

    max_travel: float = 1.0
    min_size: float = 0.5
    max_size: float = 2.0
    max_speed: float = 6.0
    min_flow: float = 0.5
    max_pop_in: float = 0.05
    min_ssim: float = 0.5
    max_parts: int = 1

    def faults(self, values: Mapping[str, float | None]) -> list[str]:
        """Descriptions of the rules that a clip breaks.

        Args:
            values: column → value. Missing and None values break no rule.
        """
        return [
            words
            for words, column, low, high in (
                ("travels far", "motion_travel", None, self.max_travel),
                ("shrinks", "motion_size_min", self.min_size, None),
                ("grows", "motion_size_max", None, self.max_size),
                ("moves fast", "motion_speed_max", None, self.max_speed),
                ("hardly moves", "motion_flow", self.min_flow, None),
                ("parts appear or vanish", "motion_pop_in", None, self.max_pop_in),
                ("flickers", "motion_ssim", self.min_ssim, None),
                ("several objects move", "motion_parts", None, self.max_parts),
            )
            if (value := values.get(column)) is not None
            and ((low is not None and value < low) or (high is not None and value > high))
        ]

    def quality(self, values: Mapping[str, float | None]) -> str:
        """The value of the column `quality`: "high", "ok", the rules that are broken, or "" without measures."""
        if any(values.get(column) is None for column in ("motion_flow", "motion_ssim")):
            return ""
        if faults := self.faults(values):
            return "; ".join(faults)
        return OK if STRICT.faults(values) else HIGH

    def hash(self) -> str:
        """16 hexadecimal digits that identify the limits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


# Limits of the tag "high": well within all default limits, and with clearly visible motion.
STRICT = MotionPolicy(
    max_travel=0.5, min_size=0.67, max_size=1.5, max_speed=3.0, min_flow=1.5, max_pop_in=0.0, min_ssim=0.7
)


class Surface(NamedTuple):
    """P points spread evenly over a moving surface.

    Attributes:
        points: float32 [T, P, 3], positions.
        triangles: int64 [P], index of each point's triangle.
    """

    points: np.ndarray
    triangles: np.ndarray


def measure_motion(
    points: np.ndarray, triangles: np.ndarray, asset_to_world: np.ndarray, cameras: Cameras
) -> dict[str, float | int | list[int]]:
    """The measures that are computed from geometry, by column name.

    Args:
        points: float32 [T, N, 3], vertices.
        triangles: int64 [F, 3], the triangles that are not fully transparent.
        asset_to_world: [4, 4], from the space of the vertices to the world of the cameras.
        cameras: of the clip's views.
    """
    surface = sample_surface(points, triangles)
    cameras = replace(cameras, world_to_camera=fixed.product(cameras.world_to_camera, asset_to_world))
    return {
        "motion_flow": flow(surface.points, cameras),
        "motion_pop_in": pop_in(points, triangles[surface.triangles[::_COARSE]]),
        "motion_parts": moving_parts(surface, points, triangles),
        "motion_signature": signature(points, triangles),
    }


def sample_surface(points: np.ndarray, triangles: np.ndarray, count: int = _SAMPLES) -> Surface:
    """Sample points with a density proportional to area, deterministically.

    Point k is in the triangle where the cumulative area passes (k + 1/2) / count of the total. A triangle's area is its
    largest in the first, middle and last frame, so that parts that grow from nothing are sampled.

    Args:
        points: [T, N, 3], vertices.
        triangles: int [F, 3].
        count: number of points P.
    """
    moments = {0, len(points) // 2, len(points) - 1}
    areas = np.max([_areas(points[t], triangles) for t in moments], axis=0)
    ends = np.cumsum(areas, dtype=np.float64)
    steps = (np.arange(count) + 0.5) / count
    chosen = np.searchsorted(ends, steps * ends[-1], side="right").clip(max=len(triangles) - 1)
    # Barycentric coordinates from the R2 low-discrepancy sequence, (1/2 + k (1/g, 1/g²)) mod 1 with the plastic number
    # g = 1.3247…, the real root of g³ = g + 1 (Roberts 2018). It fills the unit square evenly; the half with u + v > 1
    # is reflected into the triangle.
    u, v = np.mod(0.5 + np.outer((0.7548776662466927, 0.5698402909980532), np.arange(count)), 1.0)
    u, v = np.where(u + v > 1.0, (1.0 - u, 1.0 - v), (u, v))
    weights = np.stack([1.0 - u - v, u, v], axis=1).astype(np.float32)
    corners = triangles[chosen]
    # Planning stores the points as [T, 3, N] in memory: one row per frame and coordinate, contiguous over vertices.
    rows = points.swapaxes(1, 2).reshape(-1, points.shape[1])
    a, b, c = (rows[:, corners[:, k]] * weights[:, k] for k in range(3))
    placed = a + b + c
    return Surface(placed.reshape(len(points), 3, count).swapaxes(1, 2), chosen)


def _areas(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the area of each triangle, |(b - a) x (c - a)| [..., F], for positions [..., N, 3]."""
    x, y, z = np.moveaxis(positions, -1, 0)
    a, b, c = triangles.T
    ux, uy, uz, vx, vy, vz = (axis[..., end] - axis[..., a] for end in (b, c) for axis in (x, y, z))
    return np.sqrt((uy * vz - uz * vy) ** 2 + (uz * vx - ux * vz) ** 2 + (ux * vy - uy * vx) ** 2)


def flow(points: np.ndarray, cameras: Cameras) -> float:
    """Mean optical flow over the 5 % of the image that move most, in pixels per frame at 256 pixels.

    The flow of a visible point X at step t in view v is |π_v(X(t+1)) - π_v(X(t))|, with the projection
    π_v(X) = (u/w, v/w), (u, v, w) = K_v [R_v | t_v] X. It is exact; which points are visible is decided with a depth
    buffer of 4 x 4 pixel cells:

        z(cell)    smallest depth w of the points in the cell
        visible    w = z(cell), and w <= 1.04 · (smallest z of the cell and its 8 neighbours)

    Every cell gets the flow of its visible point, 0 if it has none; the result is the mean of the largest 5 % of the
    cells, and over 16 steps that are spread over the clip and assigned in turn to four views a quarter turn apart.

    Args:
        points: [T, P, 3], spread over the surface, in the world of the cameras.
        cameras: of the clip's views.
    """
    from scipy.ndimage import minimum_filter

    cells = _FLOW_SIZE // _CELL
    top = round(_TOP * cells**2)
    views = np.unique(np.linspace(0, len(cameras), FEW_VIEWS, endpoint=False).astype(int))
    steps = len(points) - 1
    # Pair number n is the step first[n] to first[n] + 1, seen in view seen_by[n].
    if steps * len(views) <= _STEPS:
        first, seen_by = (numbers.ravel() for numbers in np.meshgrid(np.arange(steps), views))
    else:
        first = np.linspace(0, steps - 1, _STEPS).round().astype(int)
        seen_by = views[np.arange(_STEPS) % len(views)]
    matrix = fixed.product(cameras.K[seen_by], cameras.world_to_camera[seen_by, :3])
    matrix[:, :2] *= _FLOW_SIZE / cameras.height
    (before, depth), (after, _) = (_projected(points[frames], matrix) for frames in (first, first + 1))

    column, row = np.floor(before / _CELL).astype(np.int64).swapaxes(0, 1)
    inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
    first_cell = np.arange(len(first))[:, None] * cells**2  # of each pair's depth buffer
    cell, depth = (first_cell + row * cells + column)[inside], depth[inside]
    length = fixed.hypot(*(after - before).swapaxes(0, 1))[inside]
    nearest = np.full(len(first) * cells**2, np.inf, depth.dtype)
    np.minimum.at(nearest, cell, depth)
    around = minimum_filter(nearest.reshape(-1, cells, cells), (1, 3, 3), mode="nearest").reshape(-1)
    visible = (depth == nearest[cell]) & (depth <= around[cell] * (1.0 + _THICKNESS))
    flows = np.zeros((len(first), cells**2), length.dtype)
    flows.reshape(-1)[cell[visible]] = length[visible]
    return float(np.partition(flows, -top, axis=1)[:, -top:].mean(dtype=np.float64))


def _projected(points: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, 2, P] and depths [n, P] of points [n, P, 3], projected with one matrix K [R | t] [n, 3, 4] per row."""
    matrix = matrix.astype(np.float32)[..., None]
    x, y, z = (points[:, None, :, k] for k in range(3))
    image = matrix[:, :, 0] * x + matrix[:, :, 1] * y + matrix[:, :, 2] * z + matrix[:, :, 3]
    return image[:, :2] / image[:, 2:], image[:, 2]


def pop_in(points: np.ndarray, corners: np.ndarray) -> float:
    """Largest fraction of the surface that appears or vanishes between two frames, 0-1.

    glTF cannot animate visibility, so models hide parts by scaling them to nothing. With A(t) the area of a triangle in
    frame t and A* its largest, it appears or vanishes where min(A(t), A(t+1)) <= 0.01 A* and max(…) >= 0.25 A*.

    Args:
        points: [T, N, 3], vertices.
        corners: int [P, 3], triangles sampled in proportion to their area.
    """
    areas = _areas(points, corners)
    areas /= np.maximum(areas.max(axis=0), np.finfo(np.float32).tiny)
    before, after = areas[:-1], areas[1:]
    switched = (np.minimum(before, after) <= _GONE) & (np.maximum(before, after) >= _PRESENT)
    return float(switched.mean(axis=1).max())


def moving_parts(surface: Surface, points: np.ndarray, triangles: np.ndarray) -> int:
    """Number of objects that move independently.

    Connected components of the mesh that stay in contact are one object, and so are objects that move together as a
    rigid body. Objects with less than a tenth of the surface are not counted.

    Args:
        surface: points sampled from the mesh with vertices `points` [T, N, 3] and `triangles` int [F, 3].
    """
    pieces = _connected(points, triangles)[surface.triangles]
    pieces = np.unique(pieces, return_inverse=True)[1]
    if pieces.max() == 0:
        return 1
    diagonal = float(np.linalg.norm(np.ptp(points[_moments(points)], axis=1), axis=-1).max())
    objects = _grouped(_touching(surface.points[:, ::_COARSE], pieces[::_COARSE]), pieces.max() + 1)[pieces]
    large = [np.flatnonzero(objects == o) for o in np.unique(objects) if np.mean(objects == o) >= _LARGE]
    # Two objects move together if none of the 8 x 8 distances between points of theirs varies over the clip.
    probes = [
        surface.points[:, members[np.linspace(0, len(members) - 1, 8).astype(int)]] for members in large
    ]
    rigid = [
        (a, b)
        for a in range(len(probes))
        for b in range(a)
        if np.ptp(_distances(probes[a], probes[b]), axis=0).max() <= _RIGID * diagonal
    ]
    return max(1, len(np.unique(_grouped(np.array(rigid, np.int64).reshape(-1, 2), len(probes)))))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances [T, n, m] between points [T, n, 3] and [T, m, 3]."""
    return np.linalg.norm(a[:, :, None] - b[:, None], axis=-1)


def _connected(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Connected component of each triangle, int [F]; vertices that coincide in three frames are merged first."""
    diagonal = float(fixed.norm(np.ptp(points[0], axis=0))) or 1.0
    moments = points[[0, len(points) // 2, -1]]
    scaled = moments.transpose(1, 0, 2).reshape(points.shape[1], 9) * (1e4 / diagonal)
    positions = np.rint(scaled).astype(np.int64)
    # Hash each vertex's nine coordinates to one integer: sorting integers is many times as fast as sorting rows.
    hashes = (positions * np.random.default_rng(0).integers(1, 2**62, 9)).sum(axis=1)
    vertices = np.unique(hashes, return_inverse=True)[1]
    corners = vertices[triangles]
    edges = np.concatenate([corners[:, :2], corners[:, 1:]])
    return _grouped(edges, vertices.max() + 1)[corners[:, 0]]


def _moments(points: np.ndarray) -> np.ndarray:
    """Indices of 8 frames spread over the clip."""
    return np.linspace(0, len(points) - 1, _MOMENTS).astype(int)


def _touching(points: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Pairs of components int [n, 2] that are in contact in all 8 frames.

    Args:
        points: [T, P, 3], spread over the surface.
        pieces: int [P], component of each point.
    """
    from scipy.spatial import cKDTree

    count = int(pieces.max()) + 1
    frames = points[_moments(points)]
    diagonals = np.linalg.norm(np.ptp(frames, axis=1), axis=-1)
    is_visible = diagonals > 0.0  # scaled to a point, everything would be in contact
    always: np.ndarray | None = None  # pairs in contact in all frames so far: first · count + second
    for frame, diagonal in zip(frames[is_visible], diagonals[is_visible], strict=True):
        near = cKDTree(frame).query_pairs(_TOUCH * diagonal, output_type="ndarray")
        near = near[pieces[near[:, 0]] != pieces[near[:, 1]]]
        if always is None:
            # Attached parts touch at the same points in all frames: if all are, the other frames need no search.
            gaps = np.linalg.norm(frames[:, near[:, 0]] - frames[:, near[:, 1]], axis=-1)
            attached = pieces[near[(gaps <= _TOUCH * diagonals[:, None]).all(axis=0)]]
            if _grouped(attached, count).max() == 0:
                return attached
        pairs = np.unique(pieces[near].min(axis=1) * count + pieces[near].max(axis=1))
        always = pairs if always is None else np.intersect1d(always, pairs)
    return np.stack(np.divmod(np.empty(0, np.int64) if always is None else always, count), axis=1)


def _grouped(pairs: np.ndarray, count: int) -> np.ndarray:
    """Connected components int [count] of the graph with `count` nodes and the edges `pairs` [n, 2]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), bool)
    return connected_components(coo_matrix((ones, pairs.T), shape=(count, count)), directed=False)[1]


_SHAPE = 19  # the first entries of a signature, which depend on the first frame only
_UNIT = 200  # quantisation steps of a signature per RMS radius


def signature(points: np.ndarray, triangles: np.ndarray) -> list[int]:
    """A descriptor that exports of the same clip share: 91 integers.

    With P points p_i(t) sampled from the surface at the first frame and 8 later ones, their centroid c(t), the RMS
    radius r = sqrt(mean over i, t of |p_i(t) - c(t)|²), and the principal radii σ_k(t), the square roots of the
    eigenvalues of the covariance (1/P) Σ_i (p_i(t) - c(t)) (p_i(t) - c(t))ᵀ, the entries are, divided by r:

        16      quantiles of |p_i(0) - c(0)|
        3       σ_k(0)
        8 x 9   for each later frame: quantiles 0.1, 0.3, …, 0.9 of |p_i(t) - p_i(0)|; |c(t) - c(0)|; σ_k(t)

    They are invariant to vertex order, triangulation, scale, translation, rotation and reflection.

    Args:
        points, triangles: vertices [T, N, 3] and their triangles int [F, 3].
    """
    moments = np.linspace(0, len(points) - 1, _MOMENTS + 1).round().astype(int)
    points = sample_surface(points[moments], triangles, 2 * _SAMPLES).points
    centred = points - points.mean(axis=1, keepdims=True)
    radius = np.sqrt(np.square(centred).sum(axis=-1).mean(dtype=np.float64)) or 1.0
    displacement = points[1:] - points[0]
    radii = _radii(centred)
    values = [_quantiles(np.linalg.norm(centred[0], axis=-1), np.linspace(0.03125, 0.96875, 16)), radii[0]]
    moved = _quantiles(np.linalg.norm(displacement, axis=-1), np.array([0.1, 0.3, 0.5, 0.7, 0.9]))
    centre = np.linalg.norm(displacement.mean(axis=1), axis=-1, keepdims=True)
    values.append(np.concatenate([moved, centre, radii[1:]], axis=1).reshape(-1))
    scaled = np.rint(np.concatenate(values) * (_UNIT / radius))
    return scaled.clip(-(2**15), 2**15 - 1).astype(int).tolist()


def _quantiles(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Quantiles (0-1) along the last axis, without interpolation."""
    return np.sort(values, axis=-1)[..., np.rint(quantiles * (values.shape[-1] - 1)).astype(int)]


def _radii(centred: np.ndarray) -> np.ndarray:
    """Principal radii [..., 3] of centred points [..., P, 3], ascending: roots of the covariance's eigenvalues."""
    axes = np.ascontiguousarray(np.moveaxis(centred, -1, 0))
    sums = np.array([[(a * b).sum(axis=-1, dtype=np.float64) for b in axes] for a in axes])
    covariance = np.moveaxis(sums, (0, 1), (-2, -1)) / centred.shape[-2]
    return np.sqrt(np.maximum(fixed.eigen(covariance)[0], 0.0))


def near_duplicates(signatures: np.ndarray, tolerance: float = 0.01, *, motion: bool = True) -> np.ndarray:
    """Pairs of clips with almost the same signature, int [n, 2], ascending.

    Args:
        signatures: [N, 91], of `signature`.
        tolerance: largest RMS difference, in RMS radii. Another triangulation of the same clip differs by about 0.002.
        motion: compare the motion too; False compares only the shape in the first frame.
    """
    from scipy.spatial import cKDTree

    values = np.asarray(signatures, np.float64)[:, : None if motion else _SHAPE] / _UNIT
    if len(values) < 2:
        return np.empty((0, 2), np.int64)
    pairs = cKDTree(values).query_pairs(tolerance * np.sqrt(values.shape[1]), output_type="ndarray")
    return pairs[np.lexsort(pairs.T[::-1])]
