"""Find triangles that bound a closed volume: their back faces are never visible from outside."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from renderers import fixed
from renderers.gltf import Asset

# Distances, as fractions of the bounding box diagonal.
_WELD = 1e-6  # vertices closer than this (rounding) are the same point
_GAP = 1e-3  # a seam that opens less than this shows nothing behind it


def closed_triangles(asset: Asset, animated: Iterable[np.ndarray] = ()) -> list[np.ndarray]:
    """Return, per primitive, bool [F]: whether a triangle belongs to a closed part whose faces point outwards.

    Many exporters set `doubleSided` on every material, so the flag says nothing about visibility. After welding
    vertices at the same position, a part is closed if every directed edge is matched by as many opposite ones; it
    points outwards if its signed volume is positive.

    Args:
        asset: the asset.
        animated: the positions of poses of an animation. A surface that only touches itself at rest, such as lips or
            the lid of a box, opens in one of them and is not closed. Without them only the rest pose is tested.
    """
    rest = asset.pose(None, 0.0)
    size = _diagonal(rest.positions[asset.visible])
    grid = (
        np.rint(rest.positions.astype(np.float64) / (_WELD * size or 1.0)) + 0.0
    )  # + 0.0 removes negative zeros
    poses = [(positions, _GAP * _diagonal(positions[asset.visible])) for positions in animated]
    result = []
    for p, primitive in enumerate(asset.primitives):
        triangles = primitive.triangles
        used = np.zeros(len(grid), bool)
        used[triangles] = True
        corners = np.flatnonzero(used)
        number = np.empty(len(grid), np.int64)
        number[corners] = np.arange(len(corners))
        first, place = _unique_rows(grid[corners])
        twin = corners[first[place]]  # the first vertex at the same position
        welds = np.flatnonzero(twin != corners)
        for positions, gap in poses:
            apart = welds[_largest_difference(positions, corners[welds], twin[welds]) > gap]
            place[apart] = len(first) + apart
        welded = place[number[triangles]]
        sign = -1.0 if rest.mirrored[p] else 1.0
        result.append(_outward_closed(welded, rest.positions[triangles].astype(np.float64), sign))
    return result


def _largest_difference(positions: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the largest absolute difference of coordinates between pairs of points, which are numbers of rows."""
    difference = np.abs(positions[first] - positions[second])
    return np.maximum(np.maximum(difference[:, 0], difference[:, 1]), difference[:, 2])


def _unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the first of each set of equal rows [n, 3], and the number of the set of every row."""
    order = np.lexsort(rows.T)  # stable
    ordered = rows[order]
    changed = ordered[1:] != ordered[:-1]
    starts = np.ones(len(rows), bool)
    starts[1:] = changed[:, 0] | changed[:, 1] | changed[:, 2]
    number = np.empty(len(rows), np.int64)
    number[order] = np.cumsum(starts) - 1
    return order[starts], number


def _diagonal(points: np.ndarray) -> float:
    # Column by column: a reduction over an axis beside one of three values takes several times as long.
    return float(fixed.norm(np.array([np.ptp(np.ascontiguousarray(column)) for column in points.T])))


def _outward_closed(welded: np.ndarray, corners: np.ndarray, sign: float) -> np.ndarray:
    """Return bool [F] for triangles given by welded vertex indices [F, 3] and corner positions [F, 3, 3]."""
    part = _connected_parts(welded)
    parts, vertices = int(part.max()) + 1, int(welded.max(initial=0)) + 1
    # Every undirected edge has a random number, added for one of its directions and subtracted for the other. The sum
    # of a part is 0 if its edges cancel out, and else only by a chance of 2^-64.
    sums = np.zeros(len(welded), np.uint64)
    for corner in range(3):
        first, second = welded[:, corner], welded[:, (corner + 1) % 3]
        number = _scrambled(np.minimum(first, second) * vertices + np.maximum(first, second))
        np.negative(number, out=number, where=first > second)
        np.add(sums, number, out=sums, where=first != second)
    balance = np.zeros(parts, np.uint64)
    np.add.at(balance, part, sums)
    # Signed volume by the divergence theorem: Σ a·(b × c) / 6 over triangles (a, b, c).
    volumes = fixed.dot(corners[:, 0], _cross(corners[:, 1], corners[:, 2])) / 6.0
    volume = np.bincount(part, weights=volumes * sign, minlength=parts)
    return ((balance == 0) & (volume > 0))[part]


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    """Return a pseudo-random uint64 for each number (SplitMix64, Steele et al. 2014)."""
    z = numbers.astype(np.uint64)
    z += np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


def _cross(b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """As `np.cross` of [N, 3], in a third of the time: column by column."""
    (bx, by, bz), (cx, cy, cz) = b.T, c.T
    return np.stack([by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx], axis=1)


def _connected_parts(triangles: np.ndarray) -> np.ndarray:
    """Label [F] the connected components of triangles that share vertices, by hooking and pointer jumping."""
    label = np.arange(int(triangles.max()) + 1)
    while True:
        labels = label[triangles]
        smallest = np.minimum(np.minimum(labels[:, 0], labels[:, 1]), labels[:, 2])
        before = label.copy()
        for corner in range(3):
            np.minimum.at(label, triangles[:, corner], smallest)
        for corner in range(3):  # hook the previous roots, too: whole trees move at once
            np.minimum.at(label, before[triangles[:, corner]], smallest)
        label = label[label]
        if np.array_equal(label, before):
            break
    labels = label[triangles[:, 0]]
    used = np.zeros(len(label), np.int64)
    used[labels] = 1
    return (np.cumsum(used) - 1)[labels]
