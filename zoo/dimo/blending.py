"""Weights by which the maps of key points are blended at a point, and the gradient of the blend."""

from __future__ import annotations

import torch
from torch import Tensor


def rbf_weights(squared: Tensor, radii: Tensor) -> Tensor:
    """Blending weights of paper eq. 1: w_j ∝ exp(−d_j² / 2r_j²) + 1e−7, normalised over the last axis.

    Eq. 1 is printed with 2r; 2r² makes the exponent dimensionless and is the form of the published code (methods
    §4.2). The 1e−7 avoids 0/0 for points far from every key point.

    Args:
        squared: squared distances d², [..., J].
        radii: r > 0, broadcastable to [..., J].

    Returns:
        [..., J] in [0, 1].
    """
    influence = (-squared / (2.0 * radii.square())).exp() + 1e-7
    return influence / influence.sum(-1, keepdim=True)


def weight_slopes(weights: Tensor, apart: Tensor, radii: Tensor) -> Tensor:
    """Gradients ∇w_k of the blending weights of paper eq. 1, [N, J, 3].

    Args:
        weights: [N, J].
        apart: x − p_k, [N, J, 3].
        radii: r_k, [N, J].
    """
    logs = -apart / radii.square()[..., None]  # ∇ log of the influence
    return weights[..., None] * (logs - (weights[..., None] * logs).sum(1, keepdim=True))


def blended_places(
    points: Tensor, maps: tuple[Tensor, Tensor], neighbours: Tensor, weights: Tensor
) -> Tensor:
    """Where blended affine maps take points, y = Σ_k w_k (F_k x + c_k), [S, N, 3].

    Args:
        points: x, [N, 3].
        maps: F [S, K, 3, 3] and c [S, K, 3].
        neighbours: int64 [N, J], the maps that are blended at each point.
        weights: w [N, J].
    """
    S, K = maps[1].shape[:2]
    table = torch.cat([maps[0].mT, maps[1][:, :, None]], 2)  # the columns of F, and c: [S, K, 4, 3]
    rows = weights.new_zeros(len(points), K).scatter(1, neighbours, weights)
    blended = (rows @ table.transpose(0, 1).reshape(K, S * 12)).reshape(-1, S, 4, 3)
    factors = torch.cat([points, points.new_ones(len(points), 1)], 1)[:, None, None]
    return (factors @ blended).squeeze(2).transpose(0, 1)


def blended_gradients(
    points: Tensor, maps: tuple[Tensor, Tensor], neighbours: Tensor, weights: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """Where blended affine maps take points, y = Σ_k w_k (F_k x + c_k), and the gradient of that.

    ∂y/∂x = Σ_k w_k F_k + Σ_k (F_k x + c_k) ∇w_kᵀ.

    Args:
        points: x, [N, 3].
        maps: F [S, K, 3, 3] and c [S, K, 3].
        neighbours: int64 [N, J], the maps that are blended at each point.
        weights: w [N, J].
        slopes: ∇w [N, J, 3].

    Returns:
        y [S, N, 3] and ∂y/∂x [S, N, 3, 3].
    """
    S, K = maps[1].shape[:2]
    N = len(points)
    table = torch.cat([maps[0].flatten(2), maps[1]], -1).transpose(0, 1).reshape(K, S * 12)
    blends = torch.cat([weights[:, None], slopes.mT], 1)  # [N, 4, J]
    rows = blends.new_zeros(N, 4, K).scatter(2, neighbours[:, None].expand(-1, 4, -1), blends)
    blended = (rows.reshape(N * 4, K) @ table).reshape(N, 4, S, 12).permute(2, 0, 1, 3)
    linear = blended[..., :9].unflatten(-1, (3, 3))  # [S, N, 4, 3, 3]
    places = (linear @ points[None, :, None, :, None]).squeeze(-1) + blended[..., 9:]  # [S, N, 4, 3]
    return places[:, :, 0], linear[:, :, 0] + places[:, :, 1:].mT
