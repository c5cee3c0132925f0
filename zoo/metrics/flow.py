"""Optical flow between frames, its distance from the flow of a reference video, and amount and smoothness of motion.

The flow is estimated (pyramidal Lucas-Kanade), on both videos alike, so no network and no ground truth is needed.
`flow_amount` and `flow_smoothness` are cheaper relatives of VBench's dynamic degree and motion smoothness, and not
comparable with them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.arguments import integer
from zoo.metrics.checks import check_finite, check_floats, check_tensors, check_videos

# σ of the Gaussian blurs, in pixels: before subsampling, of the images at each level, of the structure tensor and
# the mismatch (the size of the Lucas-Kanade window), and of the flow after each level.
FASTEST = 0.05  # share of the pixels that `flow_amount` averages
SMALLEST = 2  # side of the coarsest level, in pixels, of which a gradient can be taken
BLUR_PYRAMID, BLUR_IMAGE, BLUR_WINDOW, BLUR_FLOW = 1.0, 0.7, 2.0, 1.0


def flow_between_frames(frames: Tensor) -> Tensor:
    """Optical flow from each frame to the next: frames [V, T, 3, H, W] in 0..1 to [V, T − 1, 2, H, W] in pixels."""
    check_floats("flow_between_frames", frames=frames)
    if check_tensors("flow_between_frames", "V T 3 H W", frames=frames)["T"] < 2:
        raise ValueError("flow_between_frames: frames: expected at least 2 frames per view, got fewer")
    grey = frames.mean(2)
    flow = optical_flow(grey[:, :-1].flatten(0, 1), grey[:, 1:].flatten(0, 1))
    return flow.unflatten(0, (len(frames), -1))


def endpoint_error(flow: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean distance in pixels between flows [V, T, 2, H, W] where the mask, bool [V, T, H, W], is set."""
    sizes = check_tensors("endpoint_error", "V T 2 H W", flow=flow, target=target)
    mask_sizes = check_tensors("endpoint_error", "V T H W", mask=mask)
    if mask_sizes != sizes:
        raise ValueError(f"endpoint_error: mask: expected sizes {sizes} as the flows, got {mask_sizes}")
    check_finite("endpoint_error", flow=flow, target=target)
    lengths = (flow - target).norm(dim=2)
    return (lengths * mask).sum() / mask.sum().clamp(min=1)


def flow_amount(frames: Tensor) -> float:
    """Amount of motion: mean flow of the fastest 5 % of pixels between successive frames, as a share of the image.

        mean_{views, pairs} mean_{fastest 5 %} ‖flow‖ / min(H, W)

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 2.

    Returns:
        At least 0; 0 for a still video. More is not better: videos that fall apart move.
    """
    sizes = check_videos("flow_amount", least=2, frames=frames)
    lengths = flow_between_frames(frames).norm(dim=2)
    return float(largest_mean(lengths, FASTEST).double().mean() / min(sizes["H"], sizes["W"]))


def flow_smoothness(frames: Tensor) -> float:
    """Smoothness of motion: how well every second frame is re-created from its neighbours by halving their flow.

        1 − mean |x_i − x̂_i|,  x̂_i(p) = ½ (x_{i−1}(p − ½ f(p)) + x_{i+1}(p + ½ f(p))),  i = 1, 3, 5, …

    with the flow f from frame i − 1 to frame i + 1. Standing still scores 1, so it is read beside `flow_amount`.

    Args:
        frames: [V, T, 3, H, W] in 0..1, T ≥ 3.

    Returns:
        In 0..1, the mean over views.
    """
    check_videos("flow_smoothness", least=3, frames=frames)
    even = frames[:, ::2]
    before, after = even[:, :-1].flatten(0, 1), even[:, 1:].flatten(0, 1)
    half = optical_flow(before.mean(1), after.mean(1)) / 2
    halfway = (warp(before, -half)[0] + warp(after, half)[0]) / 2
    truth = frames[:, 1 : 2 * even.shape[1] - 1 : 2].flatten(0, 1)
    return float(1 - (halfway - truth).abs().double().mean())


def largest_mean(values: Tensor, share: float) -> Tensor:
    """Mean of the largest values of each image [..., H, W], [...]: of a share of them, rounded down, at least one."""
    flat = values.flatten(-2)
    return flat.topk(max(1, int(flat.shape[-1] * share)), dim=-1).values.mean(-1)


def optical_flow(before: Tensor, after: Tensor, levels: int = 3, iterations: int = 6) -> Tensor:
    """Displacements [N, 2, H, W] in pixels, x right and y down: pyramidal Lucas-Kanade (Bouguet 2001).

    Args:
        before: brightness [N, H, W] in 0..1 of the first frames.
        after: the same of the second frames.
        levels: of the pyramid, each half the size of the one before.
        iterations: refinements per level.
    """
    check_floats("optical_flow", before=before, after=after)
    sizes = check_tensors("optical_flow", "N H W", before=before, after=after)
    levels = integer(levels, "optical_flow: levels", 1, 16)
    iterations = integer(iterations, "optical_flow: iterations", 0, 1000)
    if min(sizes["H"], sizes["W"]) < SMALLEST << (levels - 1):
        raise ValueError(
            f"optical_flow: before: expected sides of at least {SMALLEST << (levels - 1)} pixels for {levels} levels, "
            f"got {sizes['W']}x{sizes['H']}"
        )
    pyramid = [(before[:, None], after[:, None])]
    for _ in range(levels - 1):
        first, second = pyramid[-1]
        pyramid.append(
            (
                F.avg_pool2d(_gaussian_blur(first, BLUR_PYRAMID), 2),
                F.avg_pool2d(_gaussian_blur(second, BLUR_PYRAMID), 2),
            )
        )
    flow = torch.zeros(len(before), 2, *pyramid[-1][0].shape[2:])
    for first, second in reversed(pyramid):
        size = first.shape[2:]
        flow = F.interpolate(flow, size, mode="bilinear", align_corners=False) * (size[0] / flow.shape[2])
        flow = _refine(
            _gaussian_blur(first, BLUR_IMAGE), _gaussian_blur(second, BLUR_IMAGE), flow, iterations
        )
    return flow


def _refine(first: Tensor, second: Tensor, flow: Tensor, iterations: int) -> Tensor:
    """Lucas-Kanade steps at one pyramid level; images [N, 1, H, W], flow [N, 2, H, W].

    Solves (G + ε I) d = b per pixel, with the structure tensor G = Σ ∇I ∇Iᵀ and the mismatch b = Σ ∇I (I₁ − I₂).
    """
    dy, dx = torch.gradient(first[:, 0], dim=(1, 2))
    xx, xy, yy = (
        _gaussian_blur(product[:, None], BLUR_WINDOW)[:, 0] for product in (dx * dx, dx * dy, dy * dy)
    )
    # ε = 1e-3 regularises G: uniform regions, where G is 0, get no displacement.
    determinant = xx * yy - xy * xy + 1e-3 * (xx + yy) + 1e-6
    for _ in range(iterations):
        moved, inside = warp(second, flow)
        change = ((first - moved) * inside)[:, 0]
        x, y = (_gaussian_blur((slope * change)[:, None], BLUR_WINDOW)[:, 0] for slope in (dx, dy))
        step = torch.stack([(yy + 1e-3) * x - xy * y, (xx + 1e-3) * y - xy * x], 1) / determinant[:, None]
        flow = flow + step.clamp(-1, 1)
    return _gaussian_blur(flow, BLUR_FLOW)


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Sample an image [N, C, H, W] at each pixel plus its flow [N, 2, H, W].

    Returns:
        The sampled image, and bool [N, 1, H, W]: whether the sampled position is inside the image.
    """
    H, W = image.shape[2:]
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    grid = torch.stack([(x + flow[:, 0]) * 2 / W - 1, (y + flow[:, 1]) * 2 / H - 1], -1)
    inside = (grid.abs() <= 1).all(-1)[:, None]
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False), inside


def _gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of images [N, C, H, W], borders replicated; cut off at 3 σ."""
    radius = math.ceil(3 * sigma)
    weights = torch.exp(-((torch.arange(-radius, radius + 1) / sigma) ** 2) / 2)
    weights = (weights / weights.sum()).to(images)
    C = images.shape[1]
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1).expand(C, 1, -1, 1), groups=C)
    return F.conv2d(rows, weights.view(1, 1, 1, -1).expand(C, 1, 1, -1), groups=C)
