"""Motion in 3D: rigidity of point neighbourhoods and distance from known trajectories."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renderers.arguments import shown
from zoo.metrics.checks import check_finite, check_tensors


def arap_rotations(positions: Tensor, graph: Tensor) -> Tensor:
    """As-rigid-as-possible energy against the first frame, per motion [B] (Sorkine & Alexa 2007, eq. 3).

    Σ_t Σ_k Σ_j ‖(p_j − p_k)^t − R_k^t (p_j − p_k)^0‖², where R_k^t is the best rotation of neighbourhood k. No
    gradient flows through R_k^t.

    Args:
        positions: points [B, T, K, 3], T >= 2.
        graph: indices [K, J] of each point's neighbours, the same in all frames.
    """
    sizes = check_tensors("arap_rotations", "B T K 3", positions=positions)
    check_tensors("arap_rotations", "K J", graph=graph)
    if graph.is_floating_point() or len(graph) != sizes["K"] or sizes["T"] < 2:
        raise ValueError(
            f"arap_rotations: graph: expected integers [K, J] with K = {sizes['K']}, and at least 2 frames, got "
            f"{shown(graph)} and {sizes['T']} frames"
        )
    edges = positions[:, :, graph] - positions[:, :, :, None]  # [B, T, K, J, 3]
    first, later = edges[:, :1], edges[:, 1:]
    with torch.no_grad():
        rotations = best_rotations(first, later)
    return (later - first @ rotations.transpose(-1, -2)).square().sum((1, 2, 3, 4))


def best_rotations(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares rotations R [..., 3, 3] between vectors [..., J, 3], target ≈ source @ Rᵀ (Kabsch 1976)."""
    u, _, vt = torch.linalg.svd(target.transpose(-1, -2) @ source)
    # det(U Vᵀ) = −1 would be a reflection: flip the direction of the smallest singular value.
    signs = torch.ones_like(u[..., 0])
    signs[..., 2] = torch.linalg.det(u @ vt)
    return (u * signs[..., None, :]) @ vt


def trajectory_error(predicted: Tensor, target: Tensor) -> float:
    """Mean Euclidean distance between corresponding points [T, P, 3], in the points' unit."""
    check_tensors("trajectory_error", "T P 3", predicted=predicted, target=target)
    check_finite("trajectory_error", predicted=predicted, target=target)
    return float((predicted - target).norm(dim=-1).mean())


def displacement_error(predicted: Tensor, target: Tensor) -> float:
    """Mean vertex error as a share of the true displacement.

        Σ_t Σ_p ‖x̂_p(t) − x_p(t)‖ / Σ_t Σ_p ‖x_p(t) − x_p(0)‖

    It does not depend on the unit of the points. The truth scores 0 and points that stay at their first true position
    score 1, so a prediction above 1 is worse than no motion.

    Args:
        predicted: points x̂_p(t), [T, P, 3], T ≥ 2.
        target: the same points of the true motion, x_p(t), [T, P, 3].

    Returns:
        The share, at least 0; nan if the true points do not move.
    """
    sizes = check_tensors("displacement_error", "T P 3", predicted=predicted, target=target)
    check_finite("displacement_error", predicted=predicted, target=target)
    if sizes["T"] < 2:
        raise ValueError("displacement_error: target: expected at least 2 frames, got 1")
    displacement = float((target - target[:1]).double().norm(dim=-1).sum())
    error = float((predicted - target).double().norm(dim=-1).sum())
    return error / displacement if displacement else math.nan
