"""Which triangles bound a closed volume, so that their back faces can never be seen from outside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from renderers.gltf import Asset, Pose

# Of the diagonal:
_WELD = 1e-6  # rounding puts the two sides of a seam no farther apart
_GAP = 1e-3  # a seam that opens no wider shows nothing behind it


def closed_triangles(asset: Asset, poses: Iterable[Pose] = ()) -> list[np.ndarray]:
    """For each primitive a bool [F]: triangle belongs to a closed part whose faces point outwards.

    Exporters set `doubleSided` on everything. A part is closed when, vertices at the same place counted as one,
    every directed edge is met by as many opposite ones; it points outwards when its signed volume is positive.

    Args:
        poses: moments of an animation. A surface that only touches itself at rest, lips or the lid of a box,
            comes open in one of them. Without them it is judged at rest alone.
    """
    rest = asset.pose(None, 0.0)
    size = _diagonal(rest.positions[asset.visible])
    grid = np.rint(rest.positions.astype(np.float64) / (_WELD * size or 1.0)) + 0.0  # no negative zeros
    moments = [(pose.positions, _GAP * _diagonal(pose.positions[asset.visible])) for pose in poses]
    result = []
    for p, primitive in enumerate(asset.primitives):
        triangles = primitive.triangles
        corners, index = np.unique(triangles, return_inverse=True)
        _, first, place = np.unique(grid[corners], axis=0, return_index=True, return_inverse=True)
        place = place.reshape(-1)
        twin = corners[first[place]]  # the vertex whose place each one shares
        for positions, gap in moments:
            apart = np.abs(positions[corners] - positions[twin]).max(axis=1) > gap
            place = np.where(apart, len(first) + np.arange(len(corners)), place)
        welded = place[index.reshape(triangles.shape)]
        sign = -1.0 if rest.mirrored[p] else 1.0
        result.append(_outward_closed(welded, rest.positions[triangles].astype(np.float64), sign))
    return result


def _diagonal(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def _outward_closed(welded: np.ndarray, corners: np.ndarray, sign: float) -> np.ndarray:
    """bool [F] for triangles of welded vertex indices [F, 3] with corner positions [F, 3, 3]."""
    part = _connected_parts(welded)
    edges = np.concatenate([welded[:, [0, 1]], welded[:, [1, 2]], welded[:, [2, 0]]])
    owner = np.tile(part, 3)
    real = edges[:, 0] != edges[:, 1]
    edges, owner = edges[real], owner[real]
    # Each undirected edge: +1 for one direction, -1 for the other; a closed surface sums to 0 everywhere.
    direction = np.where(edges[:, 0] < edges[:, 1], 1, -1)
    undirected = np.sort(edges, axis=1)
    _, edge = np.unique(undirected, axis=0, return_inverse=True)
    edge = edge.reshape(-1)
    balance = np.bincount(edge, weights=direction)
    parts = int(part.max()) + 1
    open_edges = np.bincount(owner, weights=np.abs(balance[edge]), minlength=parts)
    volumes = np.einsum("ni,ni->n", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6.0
    volume = np.bincount(part, weights=volumes * sign, minlength=parts)
    return ((open_edges == 0) & (volume > 0))[part]


def _connected_parts(triangles: np.ndarray) -> np.ndarray:
    """A label [F] per triangle: triangles that share vertices share it. Union by hooking and pointer jumping."""
    label = np.arange(int(triangles.max()) + 1)
    while True:
        smallest = label[triangles].min(axis=1)
        before = label.copy()
        for corner in range(3):
            np.minimum.at(label, triangles[:, corner], smallest)
        for corner in range(3):  # hook the old roots too, so that whole trees move at once
            np.minimum.at(label, before[triangles[:, corner]], smallest)
        label = label[label]
        if np.array_equal(label, before):
            break
    _, part = np.unique(label[triangles[:, 0]], return_inverse=True)
    return part.reshape(-1)
