"""Loss functions of DIMO (Mou et al., ICCV 2025, §3.3; methods §4.5).

Images are [..., H, W, C] with values in [0, 1]. Each function returns an unweighted scalar unless its docstring gives
another shape; the weights are applied by the training loop (`zoo.dimo.config.LossWeights`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.gaussians.features import rotation_matrices
from zoo.dimo.blending import rbf_weights
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
    "track_error",
]

# --- image losses -----------------------------------------------------------------------------------


def depth_smoothness(depth: Tensor, image: Tensor) -> Tensor:
    """Edge-aware smoothness of depth (L_depth of eq. 8): mean |∂D| · exp(−|∂I|), summed over x and y.

    Args:
        depth: [..., H, W, 1]. image: [..., H, W, 3]; depth may jump where the colour does.
    """
    rows, columns = ((_step(depth, axis).abs() * (-_edges(image, axis)).exp()).mean() for axis in (-3, -2))
    return rows + columns


def normal_smoothness(normal: Tensor, image: Tensor) -> Tensor:
    """Bilateral smoothness of normals (L_normal of paper eq. 8): mean √(1 + (|∂n| · exp(−3|∂I|))²) over x plus over y.

    The minimum is 2 (1 per direction), reached by a plane.

    Args:
        normal: [..., H, W, 3], unit vectors.
        image: [..., H, W, 3] in [0, 1].
    """
    rows, columns = (
        (1 + (_step(normal, axis).abs() * (-3 * _edges(image, axis)).exp()).square()).sqrt().mean()
        for axis in (-3, -2)
    )
    return rows + columns


def _step(values: Tensor, axis: int) -> Tensor:
    """Forward differences along `axis`, which becomes one element shorter."""
    return values.diff(dim=axis)


def _edges(image: Tensor, axis: int) -> Tensor:
    """|∂I| along `axis`, averaged over the channels: [..., H, W, C] to [..., 1], one shorter along `axis`."""
    return _step(image, axis).abs().mean(-1, keepdim=True)


# --- latents and key points -------------------------------------------------------------------------


def kl_divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of N(μ, σ²) from N(0, I), −½ Σ_d (1 + log σ_d² − μ_d² − σ_d²) (paper eq. 10).

    Args:
        mu: μ, [M, Z].
        log_var: log σ², [M, Z].

    Returns:
        One value ≥ 0 per motion, [M].
    """
    return -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(-1)


def arap_distances(positions: Tensor, canonical: Tensor, graph: Tensor, radii: Tensor) -> Tensor:
    """As-rigid-as-possible energy in the distance-preserving form of paper eq. 9.

    L_arap = Σ_k Σ_t Σ_{j∈Ω_k} w_jk | d(p_j^t, p_k^t) − d(p_j^{t+Δt}, p_k^{t+Δt}) |, where d is the Euclidean distance,
    Ω_k the neighbours of key point k in the motion graph, and w_jk the blending weight of eq. 1, normalised over the
    neighbours j ≠ k. t + Δt is the next of the given time steps; the last one is compared with the canonical pose.

    Args:
        positions: p_k^t, [B, T, K, 3], world units.
        canonical: p_k, [K, 3]; receives no gradient.
        graph: Ω, int64 [K, J]. A key point in its own row is ignored.
        radii: r_k, [K], for the weights w_jk; receives no gradient.

    Returns:
        One energy per motion, [B].
    """
    moments = torch.cat([positions, canonical.detach().expand(len(positions), 1, -1, -1)], 1)
    lengths = _length(moments[:, :, graph] - moments[:, :, :, None])
    with torch.no_grad():
        squared = (canonical[graph] - canonical[:, None]).square().sum(-1)
        # At distance 0, the key point itself would have the largest weight of its row by far, and its edge has no
        # energy: it is excluded before the weights are normalised.
        others = graph != torch.arange(len(graph), device=graph.device)[:, None]
        weights = rbf_weights(squared, radii[graph]) * others
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    return (lengths.diff(dim=1).abs() * weights).sum((1, 2, 3))


def chamfer(points: Tensor, guide: Tensor) -> Tensor:
    """One-sided Chamfer distance Σ_k min_j ‖p_k − p̃_j‖² (L_chamfer, paper §3.3; methods §4.5).

    Args:
        points: p_k, the current key points, [..., K, 3].
        guide: p̃_j, the key points at the end of stage 1, [..., G, 3].

    Returns:
        One sum per point cloud, [...].
    """
    with torch.no_grad():
        nearest = torch.cdist(points, guide).argmin(-1, keepdim=True).expand(*points.shape)
    return (points - guide.gather(-2, nearest)).square().sum((-1, -2))


def track_error(
    positions: Tensor, rotations: Tensor, tracked: Tensor, turned: Tensor, reach: Tensor | float
) -> Tensor:
    """Squared distance of key points from their tracks, with that of points rigidly attached to them.

    Σ_k ‖p_k − p*_k‖² + ½ ρ² ‖R(q_k) − R*_k‖²_F. For an angle θ between R(q_k) and R*_k, the second term is
    4 ρ² sin²(θ / 2) ≈ (ρ θ)²: the squared displacement of a point at distance ρ from the axis.

    Args:
        positions: p_k, [..., K, 3].
        rotations: q_k, [..., K, 4], of any norm and sign.
        tracked: p*_k, [..., K, 3].
        turned: R*_k, [..., K, 3, 3].
        reach: ρ, world units.

    Returns:
        Sums over the key points, [...].
    """
    places = (positions - tracked).square().sum(-1)
    turns = (rotation_matrices(rotations) - turned).square().sum((-1, -2))
    return (places + 0.5 * reach**2 * turns).sum(-1)


def _length(vectors: Tensor) -> Tensor:
    """Euclidean norm over the last axis. Its gradient at the zero vector is 0, where that of `norm` is NaN."""
    squared = vectors.square().sum(-1)
    return torch.where(squared > 0, squared.clamp(min=1e-20).sqrt(), squared)
