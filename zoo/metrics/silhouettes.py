"""Silhouettes: foreground masks and their intersection over union."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.arguments import number
from renderers.background import Background, background_color
from zoo.metrics.checks import check_finite, check_floats, check_tensors

GREY = 127.0 / 255.0  # the background of MV-VDM's videos
FOREGROUND_THRESHOLD = 0.06  # largest channel difference from the background; above the noise of video coding


def foreground_mask(frames: Tensor, background: Background = GREY) -> Tensor:
    """Pixels that differ from a uniform background.

    Args:
        frames: [V, T, 3, H, W] in 0..1.
        background: grey or RGB, floats in 0..1 or integers in 0..255 (`renderers.background`).

    Returns:
        bool [V, T, H, W].
    """
    check_floats("foreground_mask", frames=frames)
    check_tensors("foreground_mask", "V T 3 H W", frames=frames)
    check_finite("foreground_mask", frames=frames)
    color = frames.new_tensor(background_color(background, "foreground_mask: background")).view(3, 1, 1)
    return (frames - color).abs().amax(2) > FOREGROUND_THRESHOLD


def intersection_and_union(alpha: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel counts of the intersection and the union of two silhouettes, each where the coverage exceeds 0.5."""
    check_tensors("intersection_and_union", "...", alpha=alpha, target=target)
    check_finite("intersection_and_union", alpha=alpha, target=target)
    predicted, expected = alpha > 0.5, target > 0.5
    return (predicted & expected).sum(), (predicted | expected).sum()


def iou(intersection: Tensor | float, union: Tensor | float) -> float:
    """Intersection over union from (accumulated) pixel counts; 0 if both silhouettes are empty."""
    for name, value in (("intersection", intersection), ("union", union)):
        number(value, f"iou: {name}", 0.0)
    return float(intersection / torch.as_tensor(union).clamp(min=1))
