"""What a motion is like, in named quantities, and which motions are good to train on (methods §1.1).

Animate3D's authors left models out by hand: large displacements, very fast motion, sudden appearance changes,
several objects. Here each of these is a number in the row, and what is too much is one dataclass. Nothing is
dropped in silence: a clip that breaks a rule says which in its column `quality`.

Most numbers come from points spread evenly over the visible surface and followed exactly through the clip; one
comes from the pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from renderers.cameras import Cameras
from renderers.meshes.clip import GREY, composite

HIGH, OK = "high", "ok"
_SAMPLES = 4096  # points followed: one for every 4 x 4 pixels of a 256-pixel picture that is full
_FLOW_SIZE = 256  # pixels; flow is given for pictures of this size
_CELL = 4  # pixels; of the points that fall into a cell of this size, the nearest is seen
_THICKNESS = (
    0.04  # of the distance; a surface that slopes is so much deeper at the other end of the cells around
)
_TOP = 0.05  # part of the picture that flow is averaged over, as VBench's dynamic degree does (methods §5.1)
_FEW_VIEWS = 4  # a quarter turn apart: no motion is along the line of sight of all
_GONE, _THERE = 0.01, 0.25  # of the largest area a triangle ever has
_LARGE = 0.1  # part of the surface; what is smaller is an accessory, not an object
_TOUCH = 0.05  # of the diagonal; closer parts are one object
_RIGID = 0.02  # of the diagonal; parts whose distances change less move as one
_MOMENTS = 8  # frames that signatures and touching pieces are looked up in
_STEPS = 16  # steps from a frame to the next that flow is averaged over, each seen by one of the views
_COARSE = 4  # every so many points suffice for what is counted in parts of the surface


@dataclass(frozen=True)
class MotionPolicy:
    """How much of what is too much. The defaults are the thresholds of methods §1.1.

    Attributes:
        max_travel: of the box's centre, in first-frame box diagonals.
        min_size, max_size: of the box's diagonal, in first-frame diagonals.
        max_speed: mean over the surface in the fastest frame, diagonals per second: a quarter in 1/24 s.
        min_flow: pixels a frame at 256 pixels; less is a still.
        max_pop_in: part of the surface that may appear or vanish from one frame to the next.
        min_ssim: similarity of a frame to the one before.
        max_parts: objects that move independently of each other; the method knows one.
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
        """Which rules a clip breaks, in words; what was not measured breaks none.

        Args:
            values: columns of the row, or those of them that are known.
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
        """The tag of a clip: "high", "ok", the rules it breaks, or "" if it was not measured."""
        if any(values.get(column) is None for column in ("motion_flow", "motion_ssim")):
            return ""
        if faults := self.faults(values):
            return "; ".join(faults)
        return OK if STRICT.faults(values) else HIGH

    def hash(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


# What "high" asks for beyond the rules: well inside all of them, and a motion that nobody can overlook.
STRICT = MotionPolicy(
    max_travel=0.5, min_size=0.67, max_size=1.5, max_speed=3.0, min_flow=1.5, max_pop_in=0.0, min_ssim=0.7
)


class Surface(NamedTuple):
    """P points spread evenly over a moving surface.

    Attributes:
        points: float32 [T, P, 3]. triangles: int64 [P], where they lie.
    """

    points: np.ndarray
    triangles: np.ndarray


def measure_motion(
    points: np.ndarray, triangles: np.ndarray, asset_to_world: np.ndarray, cameras: Cameras
) -> dict[str, float | int | list[int]]:
    """The measures that follow from the geometry, by their column's names.

    Args:
        points: float32 [T, N, 3], vertices. triangles: int64 [F, 3], those that can be seen.
        asset_to_world: [4, 4], takes the vertices to the world of the clip's cameras.
    """
    surface = sample_surface(points, triangles)
    cameras = replace(cameras, world_to_camera=cameras.world_to_camera @ asset_to_world)
    return {
        "motion_flow": flow(surface.points, cameras),
        "motion_pop_in": pop_in(points, triangles[surface.triangles[::_COARSE]]),
        "motion_parts": moving_parts(surface, points, triangles),
        "motion_signature": signature(points, triangles),
    }


def sample_surface(points: np.ndarray, triangles: np.ndarray, count: int = _SAMPLES) -> Surface:
    """Points by area, without chance: at even steps along the triangles in their order.

    A triangle's area is the largest of the first, middle and last frame, so that what grows from nothing counts.
    """
    moments = {0, len(points) // 2, len(points) - 1}
    areas = np.max([_areas(points[t], triangles) for t in moments], axis=0)
    ends = np.cumsum(areas, dtype=np.float64)
    steps = (np.arange(count) + 0.5) / count
    chosen = np.searchsorted(ends, steps * ends[-1], side="right").clip(max=len(triangles) - 1)
    # Two numbers in 0-1 that fill the square evenly (the plastic number's), folded into the triangle.
    u, v = np.mod(0.5 + np.outer((0.7548776662466927, 0.5698402909980532), np.arange(count)), 1.0)
    u, v = np.where(u + v > 1.0, (1.0 - u, 1.0 - v), (u, v))
    weights = np.stack([1.0 - u - v, u, v], axis=1).astype(np.float32)
    corners = triangles[chosen]
    # One coordinate after the other in memory, as planning keeps them: rows that numpy runs through fast.
    rows = points.swapaxes(1, 2).reshape(-1, points.shape[1])
    placed = sum(rows[:, corners[:, k]] * weights[:, k] for k in range(3))
    return Surface(placed.reshape(len(points), 3, count).swapaxes(1, 2), chosen)


def _areas(positions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the area of each triangle [..., F] of positions [..., N, 3]."""
    x, y, z = np.moveaxis(positions, -1, 0)
    a, b, c = triangles.T
    ux, uy, uz, vx, vy, vz = (axis[..., end] - axis[..., a] for end in (b, c) for axis in (x, y, z))
    return np.sqrt((uy * vz - uz * vy) ** 2 + (uz * vx - ux * vz) ** 2 + (ux * vy - uy * vx) ** 2)


def flow(points: np.ndarray, cameras: Cameras) -> float:
    """Mean optical flow of the 5 % of the picture that move most, pixels a frame at 256 pixels.

    Exact for the points; which of them are seen is decided in cells of 4 x 4 pixels: a point well behind the nearest
    of its own and the eight cells around is hidden. Mean over 16 steps from a frame to the next, spread over the clip
    and seen in turn from four views a quarter turn apart.

    Args:
        points: [T, P, 3], spread over the surface, in the space that `cameras` look at.
    """
    from scipy.ndimage import minimum_filter

    cells = _FLOW_SIZE // _CELL
    top = round(_TOP * cells**2)
    views = np.unique(np.linspace(0, len(cameras), _FEW_VIEWS, endpoint=False).astype(int))
    steps = len(points) - 1
    if steps * len(views) <= _STEPS:
        first, seen_by = (numbers.ravel() for numbers in np.meshgrid(np.arange(steps), views))
    else:
        first = np.linspace(0, steps - 1, _STEPS).round().astype(int)
        seen_by = views[np.arange(_STEPS) % len(views)]
    matrix = cameras.K[seen_by] @ cameras.world_to_camera[seen_by, :3]
    matrix[:, :2] *= _FLOW_SIZE / cameras.height
    (here, depth), (there, _) = (_projected(points[frames], matrix) for frames in (first, first + 1))

    column, row = np.floor(here / _CELL).astype(np.int64).swapaxes(0, 1)
    inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
    pictures = np.arange(len(first))[:, None] * cells**2
    place, depth = (pictures + row * cells + column)[inside], depth[inside]
    length = np.hypot(*(there - here).swapaxes(0, 1))[inside]
    nearest = np.full(len(first) * cells**2, np.inf, depth.dtype)
    np.minimum.at(nearest, place, depth)
    around = minimum_filter(nearest.reshape(-1, cells, cells), (1, 3, 3), mode="nearest").reshape(-1)
    shown = (depth == nearest[place]) & (depth <= around[place] * (1.0 + _THICKNESS))
    moving = np.zeros((len(first), cells**2), length.dtype)
    moving.reshape(-1)[place[shown]] = length[shown]
    return float(np.partition(moving, -top, axis=1)[:, -top:].mean(dtype=np.float64))


def _projected(points: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n, 2, P] and depth [n, P] of points [n, P, 3], each row by its own matrix [n, 3, 4]."""
    image = matrix[:, :, :3].astype(np.float32) @ points.swapaxes(1, 2)
    image += matrix[:, :, 3:].astype(np.float32)
    return image[:, :2] / image[:, 2:], image[:, 2]


def pop_in(points: np.ndarray, corners: np.ndarray) -> float:
    """Largest part of the surface that appears or vanishes from one frame to the next, 0-1.

    Models switch parts on and off by scaling them to nothing: glTF itself cannot animate visibility.

    Args:
        points: [T, N, 3], vertices. corners: int [P, 3], triangles chosen by area.
    """
    areas = _areas(points, corners)
    areas /= np.maximum(areas.max(axis=0), np.finfo(np.float32).tiny)
    before, after = areas[:-1], areas[1:]
    switched = (np.minimum(before, after) <= _GONE) & (np.maximum(before, after) >= _THERE)
    return float(switched.mean(axis=1).max())


def moving_parts(surface: Surface, points: np.ndarray, triangles: np.ndarray) -> int:
    """How many objects move independently of each other.

    Pieces of the mesh that stay in touch are one object, and so are those that move as one rigid body; only
    objects of at least a tenth of the surface count.

    Args:
        points: [T, N, 3], vertices. triangles: int [F, 3].
    """
    pieces = _connected(points, triangles)[surface.triangles]
    pieces = np.unique(pieces, return_inverse=True)[1]
    if pieces.max() == 0:
        return 1
    diagonal = float(np.linalg.norm(np.ptp(points[_moments(points)], axis=1), axis=-1).max())
    objects = _grouped(_touching(surface.points[:, ::_COARSE], pieces[::_COARSE]), pieces.max() + 1)[pieces]
    large = [np.flatnonzero(objects == o) for o in np.unique(objects) if np.mean(objects == o) >= _LARGE]
    some = [surface.points[:, members[np.linspace(0, len(members) - 1, 8).astype(int)]] for members in large]
    as_one = [
        (a, b)
        for a in range(len(some))
        for b in range(a)
        if np.ptp(_distances(some[a], some[b]), axis=0).max() <= _RIGID * diagonal
    ]
    return max(1, len(np.unique(_grouped(np.array(as_one, np.int64).reshape(-1, 2), len(some)))))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[T, n, m] between points [T, n, 3] and [T, m, 3]."""
    return np.linalg.norm(a[:, :, None] - b[:, None], axis=-1)


def _connected(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The connected piece each triangle belongs to, int [F]; vertices in one place all the time are one."""
    diagonal = float(np.linalg.norm(np.ptp(points[0], axis=0))) or 1.0
    moments = points[[0, len(points) // 2, -1]]
    places = np.rint(moments.transpose(1, 0, 2).reshape(points.shape[1], 9) * (1e4 / diagonal)).astype(
        np.int64
    )
    # A number for each vertex's nine coordinates: sorting numbers is many times as fast as sorting rows.
    mixed = (places * np.random.default_rng(0).integers(1, 2**62, 9)).sum(axis=1)
    vertices = np.unique(mixed, return_inverse=True)[1]
    corners = vertices[triangles]
    edges = np.concatenate([corners[:, :2], corners[:, 1:]])
    return _grouped(edges, vertices.max() + 1)[corners[:, 0]]


def _moments(points: np.ndarray) -> np.ndarray:
    return np.linspace(0, len(points) - 1, _MOMENTS).astype(int)


def _touching(points: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Pairs of pieces int [n, 2] that are close to each other at all of some moments."""
    from scipy.spatial import cKDTree

    count = int(pieces.max()) + 1
    frames = points[_moments(points)]
    diagonals = np.linalg.norm(np.ptp(frames, axis=1), axis=-1)
    there = diagonals > 0.0  # scaled to nothing, it says nothing of what belongs together
    always = None
    for frame, diagonal in zip(frames[there], diagonals[there], strict=True):
        near = cKDTree(frame).query_pairs(_TOUCH * diagonal, output_type="ndarray")
        near = near[pieces[near[:, 0]] != pieces[near[:, 1]]]
        if always is None:
            # What is fastened stays in touch at the same points. If that makes one object of all, no more is asked.
            gaps = np.linalg.norm(frames[:, near[:, 0]] - frames[:, near[:, 1]], axis=-1)
            fast = pieces[near[(gaps <= _TOUCH * diagonals[:, None]).all(axis=0)]]
            if _grouped(fast, count).max() == 0:
                return fast
        pairs = np.unique(pieces[near].min(axis=1) * count + pieces[near].max(axis=1))
        always = pairs if always is None else np.intersect1d(always, pairs)
    always = np.empty(0, np.int64) if always is None else always
    return np.stack([always // count, always % count], axis=1)


def _grouped(pairs: np.ndarray, count: int) -> np.ndarray:
    """Group int [count] of each of `count` things, of which the pairs [n, 2] belong together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), bool)
    return connected_components(coo_matrix((ones, pairs.T), shape=(count, count)), directed=False)[1]


_SHAPE = 19  # numbers of a signature that are of the first frame alone
_UNIT = 200  # steps of a signature per mean radius


def signature(points: np.ndarray, triangles: np.ndarray) -> list[int]:
    """A few numbers that copies of a clip share, however they were exported.

    Distances from the centre and principal radii of the surface in the first frame; then, at eight moments, how far
    the surface has moved, and its principal radii. All in units of the mean radius and none knows a direction: vertex
    order, triangulation, scale, and which way is up make no difference. A mirror image looks the same.

    Args:
        points: [T, N, 3], vertices. triangles: int [F, 3].
    """
    moments = np.linspace(0, len(points) - 1, _MOMENTS + 1).round().astype(int)
    points = sample_surface(points[moments], triangles, 2 * _SAMPLES).points
    centred = points - points.mean(axis=1, keepdims=True)
    radius = np.sqrt(np.square(centred).sum(axis=-1).mean(dtype=np.float64)) or 1.0
    way = points[1:] - points[0]
    radii = _radii(centred)
    values = [_at(np.linalg.norm(centred[0], axis=-1), np.linspace(0.03125, 0.96875, 16)), radii[0]]
    moved = _at(np.linalg.norm(way, axis=-1), np.array([0.1, 0.3, 0.5, 0.7, 0.9]))
    centre = np.linalg.norm(way.mean(axis=1), axis=-1, keepdims=True)
    values.append(np.concatenate([moved, centre, radii[1:]], axis=1).reshape(-1))
    scaled = np.rint(np.concatenate(values) * (_UNIT / radius))
    return scaled.clip(-(2**15), 2**15 - 1).astype(int).tolist()


def _at(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Quantiles of the last axis."""
    return np.sort(values, axis=-1)[..., np.rint(quantiles * (values.shape[-1] - 1)).astype(int)]


def _radii(centred: np.ndarray) -> np.ndarray:
    """Principal radii [..., 3] of points [..., P, 3] around the origin, ascending."""
    spread = (centred.swapaxes(-1, -2) @ centred).astype(np.float64) / centred.shape[-2]
    return np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 0.0))


def near_duplicates(signatures: np.ndarray, tolerance: float = 0.01, *, motion: bool = True) -> np.ndarray:
    """Pairs int [n, 2], ascending, of signatures [N, 91] that say the same.

    Args:
        tolerance: root mean square difference, in mean radii. A copy with other vertices differs by about 0.002.
        motion: compare the motion too; without, only the shape of the first frame.
    """
    from scipy.spatial import cKDTree

    values = np.asarray(signatures, np.float64)[:, : None if motion else _SHAPE] / _UNIT
    if len(values) < 2:
        return np.empty((0, 2), np.int64)
    pairs = cKDTree(values).query_pairs(tolerance * np.sqrt(values.shape[1]), output_type="ndarray")
    return pairs[np.lexsort(pairs.T[::-1])]


def frame_similarity(frames: np.ndarray) -> float:
    """Smallest SSIM of a frame with the one before, 0-1: what flashes or pops in makes it drop.

    Of grey values at 128 pixels or less, in windows of 7 x 7, over the pixels that either frame covers (a picture
    that is mostly background is always similar), mean over four views.

    Args:
        frames: uint8 [V, T, H, W, 4], straight alpha.
    """
    from scipy.ndimage import uniform_filter

    views = np.unique(np.linspace(0, len(frames), _FEW_VIEWS, endpoint=False).astype(int))
    similar = []
    for view in frames[views]:
        colour = composite(view, GREY) @ np.array([0.299, 0.587, 0.114], np.float32)
        x, covered = _shrunk(colour), _shrunk(view[..., 3].astype(np.float32)) > 0

        def mean(values: np.ndarray) -> np.ndarray:
            return uniform_filter(values, (0, 7, 7), mode="nearest")

        mu = mean(x)
        variance = np.maximum(mean(x * x) - mu * mu, 0.0)
        covariance = mean(x[1:] * x[:-1]) - mu[1:] * mu[:-1]
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        ssim = (2 * mu[1:] * mu[:-1] + c1) * (2 * covariance + c2)
        ssim /= (mu[1:] ** 2 + mu[:-1] ** 2 + c1) * (variance[1:] + variance[:-1] + c2)
        either = covered[1:] | covered[:-1]
        count = either.sum(axis=(1, 2))
        total = (ssim * either).sum(axis=(1, 2), dtype=np.float64)
        similar.append(np.where(count > 0, total / np.maximum(count, 1), 1.0))
    return float(np.mean(similar, axis=0).min())


def _shrunk(pictures: np.ndarray) -> np.ndarray:
    """Pictures [T, H, W] of at most 128 pixels, by averaging blocks."""
    block = -(-pictures.shape[1] // 128)
    count, height, width = pictures.shape[0], pictures.shape[1] // block, pictures.shape[2] // block
    blocks = pictures[:, : height * block, : width * block].reshape(count, height, block, width, block)
    return blocks.mean(axis=(2, 4))
