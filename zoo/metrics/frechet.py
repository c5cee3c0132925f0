"""Fréchet video distance (Unterthiner et al. 2018) on features of I3D trained on Kinetics-400."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.metrics.backbones import Folder, load_script
from zoo.metrics.checks import check_finite, check_floats, check_tensors, check_videos

SIDE = 224
FEWEST_FRAMES = 10  # I3D's temporal strides leave nothing of shorter videos
BATCH = 8


def fvd(frames: Tensor, target: Tensor, *, weights: Folder | None = None) -> float:
    """Fréchet distance between the I3D features of generated and true videos, as in StyleGAN-V's evaluation.

    The features are the 400 logits of the TorchScript I3D, of frames that are resized to 224² (bilinear) and scaled to
    −1..1. The distance depends strongly on the number of videos: compare only figures from equally many. One video on
    either side leaves the squared distance of the features.

    The FVD that Consistent4D and DIMO print uses other weights (i3d_pretrained_400.pt) and is not comparable.

    Args:
        frames: generated videos, [V, T, 3, H, W] in 0..1, T ≥ 10; each view is a video.
        target: true videos, [N, T, 3, H, W], of any number and size.
        weights: folder with "i3d" of `BACKBONES`; None is the hub.

    Returns:
        At least 0; 0 for the same videos.

    Raises:
        NotComputed: the published weights of I3D are missing.
    """
    check_videos("fvd", least=FEWEST_FRAMES, frames=frames)
    sizes = check_videos("fvd", least=FEWEST_FRAMES, target=target)
    if frames.shape[1] != sizes["T"]:
        raise ValueError(
            f"fvd: target: expected videos of {frames.shape[1]} frames as frames, got {sizes['T']}"
        )
    return frechet_distance(i3d_features(frames, weights), i3d_features(target, weights))


@torch.no_grad()
def i3d_features(frames: Tensor, weights: Folder | None = None) -> Tensor:
    """I3D's logits of videos [V, T, 3, H, W] in 0..1, [V, 400]."""
    network = load_script("i3d", weights, frames.device)
    features = []
    for batch in frames.float().split(BATCH):
        images = F.interpolate(batch.flatten(0, 1), (SIDE, SIDE), mode="bilinear", align_corners=False)
        video = (images * 2 - 1).unflatten(0, batch.shape[:2]).movedim(2, 1)  # [B, 3, T, 224, 224]
        features.append(
            network(video.contiguous(), rescale=False, resize=False, return_features=True).flatten(1)
        )
    return torch.cat(features)


def frechet_distance(features: Tensor, target: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (Dowson & Landau 1982; Heusel et al. 2017).

        ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)

    The covariances are unbiased. With one sample on either side they are undefined, and the first term is returned.

    Args:
        features: [N, D].
        target: [M, D].

    Returns:
        At least 0, up to rounding.
    """
    check_floats("frechet_distance", features=features, target=target)
    sizes = check_tensors("frechet_distance", "N D", features=features)
    if check_tensors("frechet_distance", "M D", target=target)["D"] != sizes["D"]:
        raise ValueError(
            f"frechet_distance: target: expected {sizes['D']} features, got {list(target.shape)}"
        )
    check_finite("frechet_distance", features=features, target=target)
    first, second = (each.detach().cpu().double().numpy() for each in (features, target))
    distance = float(np.square(first.mean(0) - second.mean(0)).sum())
    if min(len(first), len(second)) < 2:
        return distance
    # tr (Σ₁ Σ₂)^½ is the sum of the singular values of A₁ A₂ᵀ, where Σᵢ = Aᵢᵀ Aᵢ with centred samples over √(n − 1):
    # exact for singular covariances, which a matrix square root is not.
    roots = [(each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (first, second)]
    traces = sum(float(np.square(root).sum()) for root in roots)
    cross = float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())
    return distance + traces - 2 * cross
