"""The as-rigid-as-possible loss of Animate3D, in the paper's form (§3.2, equation 9)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from zoo.metrics.trajectories import best_rotations

NEIGHBOURS = 8
_BLOCK = 256  # sources of geodesic distances at a time


class Neighbours(NamedTuple):
    """The neighbourhoods that stay rigid.

    Attributes:
        nearest: int64 [N, J], the neighbours of each point.
        weights: float32 [N, J], exp(-d² / β) with the mean squared distance as β; rows sum to 1.
    """

    nearest: Tensor
    weights: Tensor


def neighbourhoods(links: csr_matrix, chosen: np.ndarray, positions: np.ndarray) -> Neighbours:
    """The nearest other points along a surface.

    Args:
        links: lengths [n, n] of the surface's edges and bridges.
        chosen: int [N], the points of the surface concerned.
        positions: float [N, 3], theirs.
    """
    count = min(NEIGHBOURS, len(chosen) - 1)
    nearest = np.empty((len(chosen), count), np.int64)
    for begin in range(0, len(chosen), _BLOCK):
        rows = np.arange(begin, min(begin + _BLOCK, len(chosen)))
        apart = dijkstra(links, indices=chosen[rows])[:, chosen]
        apart[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = np.argpartition(apart, count - 1, axis=1)[:, :count]
    return _weighted(nearest, positions)


def nearest_neighbourhoods(positions: np.ndarray) -> Neighbours:
    """The nearest other points of a cloud [N, 3], which has no surface to measure along."""
    count = min(NEIGHBOURS, len(positions) - 1)
    found = cKDTree(positions).query(positions, count + 1)[1]
    # A point is its own nearest one, unless another is at the same place.
    other = found != np.arange(len(positions))[:, None]
    other[other.all(1), -1] = False
    return _weighted(found[other].reshape(len(positions), count), positions)


def _weighted(nearest: np.ndarray, positions: np.ndarray) -> Neighbours:
    squared = ((positions[nearest] - positions[:, None]) ** 2).sum(-1)
    weights = np.exp(-squared / max(float(squared.mean()), 1e-12))
    return Neighbours(
        torch.from_numpy(nearest), torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()
    )


def arap(still: Tensor, moved: Tensor, neighbours: Neighbours, rows: Tensor) -> Tensor:
    """Σ_i mean_j Σ_k w_jk ‖(p_j^i - p_k^i) - R_j^i (p_j^1 - p_k^1)‖² over frames i, points j and their neighbours k.

    R_j^i is the rotation that makes the sum smallest; no gradient flows through it. Zero for rigid motion.

    Args:
        still: p^1, [N, 3]. moved: p^i, [F, N, 3].
        neighbours: of the N points.
        rows: int64 [P], the points j.

    Returns:
        Scalar.
    """
    around, weight = neighbours.nearest[rows], neighbours.weights[rows][..., None].to(still)
    before = still[around] - still[rows][:, None]  # [P, J, 3]
    after = moved[:, around] - moved[:, rows][:, :, None]  # [F, P, J, 3]
    with torch.no_grad():
        rotations = best_rotations(before * weight, after)
    return ((after - before @ rotations.mT).square() * weight).sum((0, 2, 3)).mean()
