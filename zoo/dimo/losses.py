"""The losses of DIMO as functions of tensors (paper §3.3; methods §4.5). Pictures are [..., H, W, C], values 0..1.

Each returns a scalar unless it says otherwise. Weights are the caller's.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.dimo.model import rbf_weights

# --- pictures ---------------------------------------------------------------------------------------


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference: the colour loss, and on alpha the mask loss."""
    return (image - target).square().mean()


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each picture, [...]: 1 where equal (Wang et al. 2004; Gaussian window 11, σ 1.5).

    Like the original, only where the whole window is inside the picture; smaller pictures have a window of their size.
    """
    *batch, height, width, channels = image.shape
    size = min(11, height, width)
    offsets = torch.arange(size, device=image.device, dtype=image.dtype) - (size - 1) / 2
    window = (-offsets.square() / (2 * 1.5**2)).exp()
    window = window / window.sum()
    a, b = (t.reshape(-1, height, width, channels).permute(0, 3, 1, 2).flatten(0, 1) for t in (image, target))
    stack = torch.stack([a, b, a * a, b * b, a * b])
    planes = stack.flatten(0, 1)[None]  # as channels of one picture, which is several times as quick on a CPU
    for shape in ((1, 1, 1, size), (1, 1, size, 1)):
        planes = F.conv2d(
            planes, window.view(shape).expand(planes.shape[1], -1, -1, -1), groups=planes.shape[1]
        )
    mean_a, mean_b, aa, bb, ab = planes[0].unflatten(0, (5, -1))
    spread = aa - mean_a**2 + bb - mean_b**2 + 0.03**2
    alike = 2 * (ab - mean_a * mean_b) + 0.03**2
    values = (2 * mean_a * mean_b + 0.01**2) * alike / ((mean_a**2 + mean_b**2 + 0.01**2) * spread)
    return values.mean((-1, -2)).unflatten(0, (-1, channels)).mean(1).reshape(batch)


def lpips(image: Tensor, target: Tensor) -> Tensor:
    """Perceptual distance (Zhang et al. 2018, VGG), mean over pictures [..., H, W, 3].

    Raises RuntimeError where the package or the published weights of its backbone cannot be had.
    """
    a, b = (t.flatten(0, -4).movedim(-1, 1) * 2 - 1 for t in (image, target))
    return lpips_network(image.device)(a, b).mean()


@cache
def lpips_network(device: torch.device) -> nn.Module:
    """LPIPS with frozen weights, loaded once a device. Raises RuntimeError with what is missing."""
    try:
        from lpips import LPIPS

        network = LPIPS(net="vgg", verbose=False)
    except (ImportError, OSError) as error:
        raise RuntimeError(
            "LPIPS needs the package lpips and the weights that torchvision publishes as vgg16-397923af.pth in "
            f"{torch.hub.get_dir()}/checkpoints ({type(error).__name__}: {error}); put the file there, "
            "or train without: LossWeights(lpips=0)"
        ) from error
    return network.requires_grad_(False).eval().to(device)


def depth_smoothness(depth: Tensor, image: Tensor) -> Tensor:
    """Mean |∂D| · exp(−|∂I|): depth [..., H, W, 1] may jump only where the colour [..., H, W, 3] does."""
    return sum((_step(depth, axis).abs() * (-_edges(image, axis)).exp()).mean() for axis in (-3, -2))


def normal_smoothness(normal: Tensor, image: Tensor) -> Tensor:
    """Mean √(1 + (|∂n| · exp(−3|∂I|))²), bilateral: normals [..., H, W, 3] may turn only where the colour changes.

    1 per direction at best, so 2 for a plane.
    """
    return sum(
        (1 + (_step(normal, axis).abs() * (-3 * _edges(image, axis)).exp()).square()).sqrt().mean()
        for axis in (-3, -2)
    )


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


def arap_rotations(positions: Tensor, graph: Tensor) -> Tensor:
    """How far neighbourhoods are from turning rigidly, against the first moment, per motion [B] (Sorkine & Alexa 2007).

    Σ_t Σ_k Σ_j ‖(p_j − p_k)^t − R_k^t (p_j − p_k)^0‖² with the best rotation R_k^t, through which no gradient goes.

    Args:
        positions: [B, T, K, 3], T >= 2. graph: [K, J] neighbours that hold at all moments.
    """
    edges = positions[:, :, graph] - positions[:, :, :, None]  # [B, T, K, J, 3]
    first, later = edges[:, :1], edges[:, 1:]
    with torch.no_grad():
        turns = best_rotations(first, later)
    return (later - first @ turns.transpose(-1, -2)).square().sum((1, 2, 3, 4))


def best_rotations(source: Tensor, target: Tensor) -> Tensor:
    """Rotations [..., 3, 3] that bring vectors [..., J, 3] nearest to others (Kabsch): target ≈ source @ Rᵀ."""
    u, _, vt = torch.linalg.svd(target.transpose(-1, -2) @ source)
    signs = torch.ones_like(u[..., 0])
    signs[..., 2] = torch.linalg.det(u @ vt)  # −1 would be a reflection
    return (u * signs[..., None, :]) @ vt


def chamfer(points: Tensor, guide: Tensor) -> Tensor:
    """Σ over points [..., K, 3] of the squared distance to the nearest of the guide [..., G, 3]: one way, per cloud."""
    with torch.no_grad():
        nearest = torch.cdist(points, guide).argmin(-1, keepdim=True).expand(*points.shape)
    return (points - guide.gather(-2, nearest)).square().sum((-1, -2))


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length with gradient 0, not NaN, at zero."""
    squared = vectors.square().sum(-1)
    return torch.where(squared > 0, squared.clamp(min=1e-20).sqrt(), squared)
