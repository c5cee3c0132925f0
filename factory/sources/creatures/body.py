"""Polygonise signed distance shapes into skinned, vertex-coloured meshes.

A skin is the zero level set of a smooth union. It is extracted on a regular grid with surface nets, its vertices are
projected onto the level set, and vertex colours and skinning weights are computed from the distances to the shapes.
Solids are convex shapes meshed separately, with a hard seam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from factory.sources.creatures.palette import Colour
from factory.sources.creatures.shapes import Shape, gradient, project, smooth_union, union
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed


@dataclass(frozen=True)
class Material:
    """A glTF metallic-roughness material. The base colour comes from the vertex colours."""

    name: str
    metallic: float = 0.0
    roughness: float = 0.85
    emissive: Colour = (0.0, 0.0, 0.0)


MATTE = Material("matte")
GLOSSY = Material("glossy", roughness=0.15)
METAL = Material("metal", metallic=0.6, roughness=0.45)


@dataclass(frozen=True)
class Paint:
    """A colour applied to the part of a skin that lies inside a signed distance function.

    Attributes:
        colour: linear RGB.
        inside: float [N, 3] points → float [N] signed distances in metres, negative inside.
        edge: width in metres of the smoothstep transition centred on the boundary.
        only: restricts the paint to shapes attached to these joints; empty applies it to all.
    """

    colour: Colour
    inside: Callable[[np.ndarray], np.ndarray]
    edge: float = 0.012
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with one material, in the rest pose, with four joint influences per vertex."""

    material: Material
    positions: np.ndarray  # float [N, 3]
    normals: np.ndarray  # float [N, 3]
    colours: np.ndarray  # float [N, 3], linear
    joints: np.ndarray  # uint8 [N, 4]
    weights: np.ndarray  # float [N, 4], descending, sum 1
    triangles: np.ndarray  # int [M, 3]

    def face_normals(self, positions: np.ndarray) -> np.ndarray:
        """Return area-weighted vertex normals [N, 3] for deformed vertex `positions` [N, 3]."""
        a, b, c = positions[self.triangles.T]
        faces = np.cross(b - a, c - a)
        sums = np.zeros_like(positions)
        for corner in self.triangles.T:
            for axis in range(3):
                sums[:, axis] += np.bincount(corner, faces[:, axis], len(positions))
        return _unit(sums)


@dataclass
class Body:
    """The skeleton and meshes of a creature. `skin` and `solid` append meshes."""

    skeleton: Skeleton
    meshes: list[Mesh] = field(default_factory=list)

    def skin(
        self, shapes: Sequence[Shape], cell: float, paints: Sequence[Paint] = (), material: Material = MATTE
    ) -> None:
        """Add one smooth skin over `shapes`, polygonised on a grid with a spacing of `cell` metres."""
        positions, triangles = _surface(shapes, cell)
        positions = project(shapes, positions, 0.2 * cell, 0.5 * cell, rounds=4)
        normals = _unit(gradient(shapes, positions, 0.2 * cell))
        distances = np.stack([shape.measure(positions) for shape in shapes])
        colours = _colours(shapes, distances, positions, paints, cell)
        colours *= _openness(shapes, positions, normals, cell)[:, None]
        weights = _skin_weights(shapes, distances, triangles, self.skeleton)
        self._add(material, positions, normals, colours, weights, triangles)

    def solid(
        self, *shapes: Shape, material: Material = MATTE, detail: int = 7, paints: Sequence[Paint] = ()
    ) -> None:
        """Add each convex shape as a separate mesh: a projected cube with `detail`² quads per side."""
        for shape in shapes:
            directions, triangles = _cube(detail)
            positions = (shape.low + shape.high) / 2 + directions * (shape.high - shape.low) / 2
            size = float((shape.high - shape.low).min())
            positions = project([shape], positions, 0.01 * size)
            normals = _unit(gradient([shape], positions, 0.01 * size))
            colours = _colours([shape], np.zeros((1, len(positions))), positions, paints, 1.0)
            weights = np.zeros((len(positions), len(self.skeleton.names)))
            weights[:, self.skeleton.index(shape.joint)] = 1
            self._add(material, positions, normals, colours, weights, triangles)

    def _add(
        self,
        material: Material,
        positions: np.ndarray,
        normals: np.ndarray,
        colours: np.ndarray,
        weights: np.ndarray,
        triangles: np.ndarray,
    ) -> None:
        if weights.shape[1] < 4:
            weights = np.pad(weights, ((0, 0), (0, 4 - weights.shape[1])))
        joints = np.argsort(-weights, axis=1, kind="stable")[:, :4]
        strongest = np.take_along_axis(weights, joints, 1)
        strongest[strongest < 0.02] = 0
        # Quantise to multiples of 1/1024, so that the weights also sum to exactly 1 in single precision.
        strongest = np.round(strongest / strongest.sum(1, keepdims=True) * 1024) / 1024
        strongest[:, 0] = 1 - strongest[:, 1:].sum(1)
        joints = np.where(strongest > 0, joints, 0).astype(np.uint8)
        colours = np.clip(colours, 0, 1)
        self.meshes.append(Mesh(material, positions, normals, colours, joints, strongest, triangles))

    def merged(self) -> list[Mesh]:
        """Return one concatenated mesh per material, in order of first appearance."""
        materials = list(dict.fromkeys(mesh.material for mesh in self.meshes))
        return [
            _joined([mesh for mesh in self.meshes if mesh.material == material]) for material in materials
        ]


def _joined(meshes: Sequence[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.positions) for mesh in meshes)])
    triangles = [mesh.triangles + start for mesh, start in zip(meshes, starts, strict=False)]
    columns = ("positions", "normals", "colours", "joints", "weights")
    stacked = {column: np.concatenate([getattr(mesh, column) for mesh in meshes]) for column in columns}
    return Mesh(meshes[0].material, **stacked, triangles=np.concatenate(triangles))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(fixed.norm(vectors)[..., None], 1e-12)


# ---------------------------------------------------------------------------------------- polygons


def _surface(shapes: Sequence[Shape], cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Extract the zero level set with surface nets on a grid with a spacing of `cell` metres.

    Returns:
        World positions float [N, 3] and triangles int [M, 3].
    """
    reach = max(shape.blend for shape in shapes) + 2 * cell
    low = np.min([shape.low for shape in shapes], axis=0) - 2 * cell
    high = np.max([shape.high for shape in shapes], axis=0) + 2 * cell
    size = np.ceil((high - low) / cell).astype(int) + 1
    # Single precision halves the memory of the grid. Vertices are refined in double precision later.
    axes = [(low[k] + cell * np.arange(size[k])).astype(np.float32) for k in range(3)]
    field_ = np.full(size, 1e3, np.float32)
    for shape in shapes:  # evaluate each shape only where it can affect the union
        begin = np.maximum(np.floor((shape.low - reach - low) / cell).astype(int), 0)
        end = np.minimum(np.ceil((shape.high + reach - low) / cell).astype(int) + 1, size)
        window = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
        grid = np.stack(
            np.meshgrid(*(axis[w] for axis, w in zip(axes, window, strict=True)), indexing="ij"), -1
        )
        distance = shape.measure(grid).astype(np.float32)
        field_[window] = smooth_union(field_[window], distance, shape.blend)
    positions, triangles = _surface_nets(field_)
    return low + cell * positions, triangles


def _surface_nets(field_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Naive surface nets (Gibson 1998): one vertex per crossed cell, one quad (two triangles) per crossed edge.

    A vertex is the mean of the zero crossings on the edges of its cell. Quads are split along the shorter diagonal.

    Returns:
        Positions float [N, 3] in grid units and triangles int [M, 3], facing outwards.
    """
    cells = tuple(n - 1 for n in field_.shape)
    strides = np.array([cells[1] * cells[2], cells[2], 1])
    total = int(np.prod(cells))
    sums, hits = np.zeros((total, 3)), np.zeros(total)
    quads = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        first = field_.take(range(field_.shape[axis] - 1), axis)
        second = field_.take(range(1, field_.shape[axis]), axis)
        crossed = np.argwhere((first < 0) != (second < 0))
        crossed = crossed[((crossed[:, [u, v]] > 0) & (crossed[:, [u, v]] < np.array(cells)[[u, v]])).all(1)]
        f0, f1 = first[tuple(crossed.T)].astype(float), second[tuple(crossed.T)].astype(float)
        point = crossed.astype(float)
        point[:, axis] += f0 / (f0 - f1)
        home = crossed @ strides
        around = np.stack([home - strides[u] - strides[v], home - strides[v], home, home - strides[u]], 1)
        for k in range(4):
            hits += np.bincount(around[:, k], minlength=total)
            for d in range(3):
                sums[:, d] += np.bincount(around[:, k], point[:, d], minlength=total)
        quads.append(np.where((f0 < 0)[:, None], around, around[:, ::-1]))
    used = np.flatnonzero(hits)
    number = np.zeros(total, int)
    number[used] = np.arange(len(used))
    positions = sums[used] / hits[used, None]
    a, b, c, d = (number[np.concatenate(quads)]).T
    short = fixed.norm(positions[a] - positions[c]) <= fixed.norm(positions[b] - positions[d])
    one = np.where(short[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    two = np.where(short[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return positions, np.concatenate([one, two])


def _cube(detail: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a tessellated cube with shared edge vertices: positions [N, 3] in [-1, 1], outward triangles [M, 3]."""
    # tan gives a nearly uniform spacing after projection onto a sphere.
    line = fixed.tan(np.linspace(-1, 1, detail + 1) * np.pi / 4)
    s, t = (g.ravel() for g in np.meshgrid(line, line, indexing="ij"))
    one = np.ones_like(s)
    i = (np.arange(detail)[:, None] * (detail + 1) + np.arange(detail)).ravel()
    quad = np.stack([i, i + detail + 1, i + detail + 2, i + 1], 1)
    points: list[np.ndarray] = []
    quads: list[np.ndarray] = []
    for axis in range(3):
        for sign in (1, -1):
            side = np.empty((len(s), 3))
            side[:, axis], side[:, (axis + 1) % 3], side[:, (axis + 2) % 3] = sign * one, s, t
            quads.append((quad if sign > 0 else quad[:, ::-1]) + len(points) * len(s))
            points.append(side)
    unique, welded = np.unique(np.round(np.concatenate(points), 9), axis=0, return_inverse=True)
    corners = welded.reshape(-1)[np.concatenate(quads)]
    return unique, np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])


# ---------------------------------------------------------------------------------------- colour and weights


def _colours(
    shapes: Sequence[Shape],
    distances: np.ndarray,
    positions: np.ndarray,
    paints: Sequence[Paint],
    cell: float,
) -> np.ndarray:
    """Return vertex colours [N, 3]: a softmin blend of shape colours over about one cell, then paints in order."""
    share = fixed.exp(-(distances - distances.min(0)) / (0.35 * cell))
    share /= share.sum(0)
    colours = np.zeros((share.shape[1], 3))
    for part, shape in zip(share, shapes, strict=True):
        colours += part[:, None] * np.array(shape.colour)
    joints = np.array([shape.joint for shape in shapes])
    for paint in paints:
        amount = np.clip(0.5 - paint.inside(positions) / paint.edge, 0, 1)
        amount = amount * amount * (3 - 2 * amount)
        if paint.only:
            amount *= share[np.isin(joints, paint.only)].sum(0)
        colours += amount[:, None] * (np.array(paint.colour) - colours)
    return colours


def _openness(shapes: Sequence[Shape], positions: np.ndarray, normals: np.ndarray, cell: float) -> np.ndarray:
    """Return ambient occlusion factors [N], from 0.7 in creases to 1 on exposed surfaces.

    The distance field is sampled once, four cells along the normal; an unoccluded sample is at that distance.
    """
    reach = 4 * cell
    clear = union(shapes, positions + reach * normals) / reach
    return 0.7 + 0.3 * np.clip(clear, 0, 1)


def _skin_weights(
    shapes: Sequence[Shape], distances: np.ndarray, triangles: np.ndarray, skeleton: Skeleton
) -> np.ndarray:
    """Return skinning weights, float [N, J].

    Weights fall off with the distance to the shapes of the nearest joint, its parent and its children, and are then
    smoothed over mesh edges with Laplacian iterations.
    """
    owner = np.array([skeleton.index(shape.joint) for shape in shapes])
    weights = np.zeros((distances.shape[1], len(skeleton.names)))
    closest = distances.min(0)
    for shape, joint, distance in zip(shapes, owner, distances, strict=True):
        softness = 0.19 * float(np.sort(shape.high - shape.low)[1])
        share = np.clip(1 - (distance - closest) / softness, 0, 1) ** 2
        weights[:, joint] = np.maximum(weights[:, joint], share)
    weights *= skeleton.kinship()[owner[distances.argmin(0)]]
    weights /= weights.sum(1, keepdims=True)
    ends = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    starts = np.searchsorted(ends[:, 0], np.arange(len(weights)))
    count = np.diff(np.append(starts, len(ends)))[:, None]
    used = np.flatnonzero(weights.any(0))
    smooth = weights[:, used]
    for _ in range(5):
        smooth = 0.4 * smooth + 0.6 * np.add.reduceat(smooth[ends[:, 1]], starts, axis=0) / count
    weights[:, used] = smooth
    return weights
