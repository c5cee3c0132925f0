"""The as-rigid-as-possible loss of Animate3D, in the paper's form (§3.2, equation 9)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from zoo.metrics.trajectories import best_rotations

NEIGHBOURS = 8
_BLOCK = 256  # sources of geodesic distances at a time


def neighbourhoods(links: csr_matrix, chosen: np.ndarray, positions: np.ndarray) -> tuple[Tensor, Tensor]:
    """The nearest other points along the surface, and their weights.

    Args:
        links: lengths [n, n] of the surface's edges and bridges.
        chosen: int [N], the points of the surface concerned.
        positions: float [N, 3], theirs.

    Returns:
        indices into `chosen`, int64 [N, J], and weights exp(-d² / β) [N, J] with the mean squared edge length as β;
        rows sum to 1.
    """
    count = min(NEIGHBOURS, len(chosen) - 1)
    nearest = np.empty((len(chosen), count), np.int64)
    for begin in range(0, len(chosen), _BLOCK):
        rows = np.arange(begin, min(begin + _BLOCK, len(chosen)))
        apart = dijkstra(links, indices=chosen[rows])[:, chosen]
        apart[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = np.argpartition(apart, count - 1, axis=1)[:, :count]
    squared = ((positions[nearest] - positions[:, None]) ** 2).sum(-1)
    weights = np.exp(-squared / max(float(squared.mean()), 1e-12))
    return torch.from_numpy(nearest), torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def arap(still: Tensor, moved: Tensor, nearest: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """Σ_i mean_j Σ_k w_jk ‖(p_j^i - p_k^i) - R_j^i (p_j^1 - p_k^1)‖² over frames i, points j and their neighbours k.

    R_j^i is the rotation that makes the sum smallest; no gradient flows through it. Zero for rigid motion.

    Args:
        still: p^1, [N, 3]. moved: p^i, [F, N, 3].
        nearest, weights: of `neighbourhoods`, [N, J].
        rows: int64 [P], the points j.

    Returns:
        Scalar.
    """
    around, weight = nearest[rows], weights[rows][..., None].to(still)
    before = still[around] - still[rows][:, None]  # [P, J, 3]
    after = moved[:, around] - moved[:, rows][:, :, None]  # [F, P, J, 3]
    with torch.no_grad():
        rotations = best_rotations(before * weight, after)
    return ((after - before @ rotations.mT).square() * weight).sum((0, 2, 3)).mean()
