"""The losses of DIMO as functions of tensors (paper §3.3; methods §4.5). Pictures are [..., H, W, C], values 0..1.

Each returns a scalar unless it says otherwise. Weights are the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.dimo.model import rbf_weights
from zoo.metrics.images import lpips, lpips_network, squared_error, ssim
from zoo.metrics.trajectories import arap_rotations

__all__ = [
    "arap_distances",
    "arap_rotations",
    "chamfer",
    "depth_smoothness",
    "kl_divergence",
    "lpips",
    "lpips_network",
    "normal_smoothness",
    "squared_error",
    "ssim",
]

# --- pictures ---------------------------------------------------------------------------------------


def depth_smoothness(depth: Tensor, image: Tensor) -> Tensor:
    """Mean |∂D| · exp(−|∂I|): depth [..., H, W, 1] may jump only where the colour [..., H, W, 3] does."""
    rows, columns = ((_step(depth, axis).abs() * (-_edges(image, axis)).exp()).mean() for axis in (-3, -2))
    return rows + columns


def normal_smoothness(normal: Tensor, image: Tensor) -> Tensor:
    """Mean √(1 + (|∂n| · exp(−3|∂I|))²), bilateral: normals [..., H, W, 3] may turn only where the colour changes.

    1 per direction at best, so 2 for a plane.
    """
    rows, columns = (
        (1 + (_step(normal, axis).abs() * (-3 * _edges(image, axis)).exp()).square()).sqrt().mean()
        for axis in (-3, -2)
    )
    return rows + columns


def _step(values: Tensor, axis: int) -> Tensor:
    """Forward differences along an axis."""
    return values.diff(dim=axis)


def _edges(image: Tensor, axis: int) -> Tensor:
    return _step(image, axis).abs().mean(-1, keepdim=True)


# --- latents and key points -------------------------------------------------------------------------


def kl_divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL of N(mu, exp(log_var)) from N(0, 1), summed over the latent's dimensions: [M, Z] to [M] (paper eq. 10)."""
    return -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(-1)


def arap_distances(positions: Tensor, canonical: Tensor, graph: Tensor, radii: Tensor) -> Tensor:
    """Change of the distances between graph neighbours from moment to moment (paper eq. 9), per motion [B].

    Σ_k Σ_t Σ_j w_jk | d(p_j^t, p_k^t) − d(p_j^t', p_k^t') |, where t' is the next of the given moments and, after the
    last, the canonical pose.

    Args:
        positions: [B, T, K, 3]. canonical: [K, 3]. graph: [K, J]; a key point in its own row adds nothing.
        radii: [K], for the weights.
    """
    moments = torch.cat([positions, canonical.detach().expand(len(positions), 1, -1, -1)], 1)
    lengths = _length(moments[:, :, graph] - moments[:, :, :, None])
    with torch.no_grad():
        squared = (canonical[graph] - canonical[:, None]).square().sum(-1)
        weights = rbf_weights(squared, radii[graph])
    return (lengths.diff(dim=1).abs() * weights).sum((1, 2, 3))


def chamfer(points: Tensor, guide: Tensor) -> Tensor:
    """Σ over points [..., K, 3] of the squared distance to the nearest of the guide [..., G, 3]: one way, per cloud."""
    with torch.no_grad():
        nearest = torch.cdist(points, guide).argmin(-1, keepdim=True).expand(*points.shape)
    return (points - guide.gather(-2, nearest)).square().sum((-1, -2))


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length with gradient 0, not NaN, at zero."""
    squared = vectors.square().sum(-1)
    return torch.where(squared > 0, squared.clamp(min=1e-20).sqrt(), squared)
