"""`Surface`: the mesh that the solver moves, made from an asset's still pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from renderers.gltf import Asset, Pose
from zoo.animate3d.colors import vertex_albedo

LONGEST_EDGE = 0.06  # of the model's largest extent: 3.5 pixels where the model spans 59
_MOST_SPLITS = 8  # rounds of subdivision, each halves edges
_MOST_POINTS = 60_000  # subdivision stops here, so that the time of a step stays bounded
_SAME_POINT = 1e-5  # of the extent; vertices that are closer are one surface point
_CONTACT = 0.02  # of the diagonal: parts that are closer are joined
_CONTACTS = 6  # per pair of parts
_BRIDGE = 0.06  # added to the length of a bridge: parts that merely touch may move apart


@dataclass(frozen=True)
class Surface:
    """A triangulated surface in unit space: the still model with its centre at 0 and a largest extent of 1.

    Surface points carry geometry and motion; shading vertices carry colour and normal, several per point at seams.

    Attributes:
        points: float64 [n, 3].
        faces: int32 [F, 3], indices into `points`.
        shading_faces: int32 [F, 3], the same triangles as indices into the shading vertices.
        point_of: int64 [N], the point of each shading vertex.
        normals: float64 [N, 3], unit.
        albedo: float32 [N, 3], linear base colour.
        emission: float32 [N, 3], linear.
        vertices: int64 [V], the point of each vertex of the asset.
        mesh_links: sparse float64 [n, n], symmetric: lengths of edges.
        links: the same with bridges between separate parts.
        parts: int64 [n], index of the connected part of each point before bridging.
        centre, scale: x_unit = (x_model - centre) / scale, in the coordinates of `Asset.positions`.
    """

    points: np.ndarray
    faces: np.ndarray
    shading_faces: np.ndarray
    point_of: np.ndarray
    normals: np.ndarray
    albedo: np.ndarray
    emission: np.ndarray
    vertices: np.ndarray
    mesh_links: csr_matrix
    links: csr_matrix
    parts: np.ndarray
    centre: np.ndarray
    scale: float


def make_surface(asset: Asset, pose: Pose) -> Surface:
    """Make the working surface of a model.

    Args:
        asset: gives triangles, materials and colours.
        pose: the still model.
    """
    positions = pose.positions.astype(np.float64)
    low, high = positions[asset.visible].min(0), positions[asset.visible].max(0)
    centre, scale = (low + high) / 2, float((high - low).max())
    triangles = np.concatenate([part.triangles for part in asset.primitives]).astype(np.int64)
    corners = (positions - centre) / scale
    albedo, emission, opacity = vertex_albedo(asset, corners, triangles, LONGEST_EDGE / 2)
    opaque = opacity[triangles].mean(1) >= 0.5
    if opaque.any():
        triangles = triangles[opaque]
    attributes = np.concatenate([corners, pose.normals, albedo, emission], 1)
    attributes, triangles = _subdivide(attributes, triangles)
    used, shading_faces = np.unique(triangles, return_inverse=True)
    shading = attributes[used]
    points, point_of = _weld(shading[:, :3])
    shading_faces = shading_faces.reshape(-1, 3)
    faces = point_of[shading_faces]
    solid = (faces != np.roll(faces, 1, 1)).all(1)
    faces, shading_faces = faces[solid], shading_faces[solid]
    mesh_links, links, parts = _bridge(points, faces)
    normals = shading[:, 3:6]
    return Surface(
        points=points,
        faces=faces.astype(np.int32),
        shading_faces=shading_faces.astype(np.int32),
        point_of=point_of,
        normals=normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12),
        albedo=np.ascontiguousarray(shading[:, 6:9], np.float32),
        emission=np.ascontiguousarray(shading[:, 9:12], np.float32),
        vertices=_vertex_points(corners, used, point_of, points),
        mesh_links=mesh_links,
        links=links,
        parts=parts,
        centre=centre,
        scale=scale,
    )


def _subdivide(attributes: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split edges longer than LONGEST_EDGE at their middles until none is left.

    Whether an edge is split depends on its length only, so that both sides of a seam are split alike and no gap opens.
    """
    for _ in range(_MOST_SPLITS):
        edges = np.stack(
            [triangles, np.roll(triangles, -1, 1)], -1
        )  # edge c is from corner c to corner c + 1
        ends = attributes[:, :3][edges]
        # The order of the ends does not change the length by rounding, or seams would open.
        long = ((ends[:, :, 0] - ends[:, :, 1]) ** 2).sum(-1) > LONGEST_EDGE**2
        if not long.any() or len(attributes) > _MOST_POINTS:
            break
        keys, middle = np.unique(np.sort(edges[long], 1), axis=0, return_inverse=True)
        index = np.full(triangles.shape, -1)
        index[long] = len(attributes) + middle.reshape(-1)
        attributes = np.concatenate([attributes, attributes[keys].mean(1)])
        triangles = np.concatenate(
            [_split(triangles[long.sum(1) == n], index[long.sum(1) == n], n) for n in range(4)]
        )
    return attributes, triangles


def _split(triangles: np.ndarray, middles: np.ndarray, count: int) -> np.ndarray:
    """Split triangles that have `count` middle points; `middles` [F, 3] is -1 on the other edges."""
    if count == 0 or not len(triangles):
        return triangles
    # Rotate the corners so that the pattern of split edges is the same: (1, 0, 0), (1, 1, 0) or (1, 1, 1).
    first = np.array(
        [np.argmax(middles >= 0, 1), (np.argmin(middles, 1) + 1) % 3, np.zeros(len(middles), int)]
    )
    turn = (first[count - 1][:, None] + np.arange(3)) % 3
    a, b, c = np.take_along_axis(triangles, turn, 1).T
    ab, bc, ca = np.take_along_axis(middles, turn, 1).T
    pieces = {
        1: [(a, ab, c), (ab, b, c)],
        2: [(ab, b, bc), (a, ab, bc), (a, bc, c)],
        3: [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)],
    }[count]
    return np.concatenate([np.stack(piece, 1) for piece in pieces])


def _weld(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge coinciding positions: points [n, 3] and the point of each position [N]."""
    pairs = cKDTree(positions).query_pairs(_SAME_POINT, output_type="ndarray")
    n = len(positions)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n))
    count, point_of = connected_components(graph, directed=False)
    sums = np.stack([np.bincount(point_of, positions[:, i], count) for i in range(3)], 1)
    return sums / np.bincount(point_of, minlength=count)[:, None], point_of.astype(np.int64)


def _bridge(points: np.ndarray, faces: np.ndarray) -> tuple[csr_matrix, csr_matrix, np.ndarray]:
    """Edges of the faces, and bridges that connect all: lengths without and with bridges, and the points' parts."""
    n = len(points)
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0
    )
    _, parts = connected_components(coo_matrix((np.ones(len(edges)), edges.T), (n, n)), directed=False)
    bridges = _contacts(points, parts)
    while True:
        joined = np.concatenate([edges, bridges])
        count, group = connected_components(
            coo_matrix((np.ones(len(joined)), joined.T), (n, n)), directed=False
        )
        if count == 1:
            break
        bridges = np.concatenate([bridges, _nearest_of_others(points, group, count)])
    lengths = np.maximum(np.linalg.norm(points[joined[:, 0]] - points[joined[:, 1]], axis=1), 1e-6)
    lengths[len(edges) :] += _BRIDGE
    return _symmetric(edges, lengths[: len(edges)], n), _symmetric(joined, lengths, n), parts.astype(np.int64)


def _symmetric(pairs: np.ndarray, lengths: np.ndarray, n: int) -> csr_matrix:
    """Sparse [n, n] with a length in both directions of each pair; of pairs that recur, the first."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    key, place = np.unique(both, axis=0, return_index=True)
    return csr_matrix((np.tile(lengths, 2)[place], key.T), (n, n))


def _contacts(points: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Up to `_CONTACTS` pairs of near points for each two parts, nearest first, int [m, 2]."""
    if parts.max() == 0:
        return np.zeros((0, 2), int)
    reach = _CONTACT * np.linalg.norm(np.ptp(points, axis=0))
    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    pairs = pairs[parts[pairs[:, 0]] != parts[pairs[:, 1]]]
    if not len(pairs):
        return np.zeros((0, 2), int)
    key = np.sort(parts[pairs], 1) @ np.array([parts.max() + 1, 1])
    distance = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    order = np.lexsort((distance, key))
    start = np.r_[True, np.diff(key[order]) != 0]
    rank = np.arange(len(order)) - np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))
    return pairs[order[rank < _CONTACTS]]


def _nearest_of_others(points: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """For each group but the largest, its nearest pair of points with the rest: int [count - 1, 2]."""
    largest = np.bincount(group).argmax()
    result = []
    for index in range(count):
        if index == largest:
            continue
        inside, outside = np.flatnonzero(group == index), np.flatnonzero(group != index)
        distance, nearest = cKDTree(points[outside]).query(points[inside])
        best = distance.argmin()
        result.append((inside[best], outside[nearest[best]]))
        if len(result) >= 200:  # the rest in the next round, when most of them may be connected
            break
    return np.array(result)


def _vertex_points(
    corners: np.ndarray, used: np.ndarray, point_of: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """The surface point of each vertex of the asset; vertices that no visible triangle uses take the nearest one."""
    vertices = np.full(len(corners), -1)
    own = used < len(corners)
    vertices[used[own]] = point_of[own]
    lost = vertices < 0
    if lost.any():
        vertices[lost] = cKDTree(points).query(np.nan_to_num(corners[lost]))[1]
    return vertices
