"""Consistency between views: do two cameras see the same surface point in the same colour."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.arguments import instance, number
from renderers.cameras import Cameras
from zoo.metrics.checks import check_finite, check_floats, check_tensors


def view_error(frames: Tensor, depth: Tensor, cameras: Cameras, tolerance: float = 0.02) -> float:
    """Mean absolute colour difference, 0..1 per channel, between pairs of views of the same surface point.

    Each foreground pixel is unprojected with its depth and projected into every other view. It is visible there if
    its depth agrees with the depth stored there. Pixels on the outline are excluded in both views, since the
    background contributes to their colour.

    Args:
        frames: [V, T, 3, H, W] in 0..1.
        depth: [V, T, H, W] of the true surface, metres along the optical axis, 0 for background.
        cameras: of the V views.
        tolerance: of the depth comparison, relative to the depth.

    Returns:
        The mean over all pairs, or nan if no point is visible in two views.
    """
    check_floats("view_error", frames=frames, depth=depth)
    sizes = check_tensors("view_error", "V T 3 H W", frames=frames)
    depth_sizes = check_tensors("view_error", "V T H W", depth=depth)
    if depth_sizes != sizes:
        raise ValueError(f"view_error: depth: expected sizes {sizes} as the frames, got {depth_sizes}")
    check_finite("view_error", frames=frames, depth=depth)
    instance(cameras, Cameras, "view_error: cameras")
    if (len(cameras), cameras.height, cameras.width) != (sizes["V"], sizes["H"], sizes["W"]):
        raise ValueError(
            f"view_error: cameras: expected {sizes['V']} of the size of the frames, got {len(cameras)}"
        )
    tolerance = number(tolerance, "view_error: tolerance", 0.0)
    V, _, _, H, W = frames.shape
    K = torch.from_numpy(cameras.K).float()
    world_to_camera = torch.from_numpy(cameras.world_to_camera).float()
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    # [V, T, H, W]: 1 where the pixel and its eight neighbours are foreground (erosion as a negated max-pool).
    interior = -F.max_pool2d(-(depth > 0).float(), 3, stride=1, padding=1)
    total, count = 0.0, 0.0
    for source in range(V):
        points = (rays @ torch.linalg.inv(K[source]).T) * depth[source][..., None]  # [T, H, W, 3]
        points = F.pad(points, (0, 1), value=1.0) @ torch.linalg.inv(world_to_camera[source]).T
        for target in range(V):
            if target == source:
                continue
            in_target = (points @ world_to_camera[target].T)[..., :3]
            projected = in_target @ K[target].T
            pixels = projected[..., :2] / projected[..., 2:].clamp(min=1e-6)
            grid = pixels * 2 / torch.tensor([W, H]) - 1
            target_depth = (depth[target] * interior[target])[:, None]
            stored = F.grid_sample(target_depth, grid, mode="nearest", align_corners=False)[:, 0]
            colors = F.grid_sample(frames[target], grid, align_corners=False)
            close = (stored - in_target[..., 2]).abs() < tolerance * stored
            visible = (interior[source] > 0) & (stored > 0) & close
            total += float((((colors - frames[source]).abs().mean(1)) * visible).sum())
            count += float(visible.sum())
    return total / count if count else math.nan
