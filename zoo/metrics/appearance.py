"""Appearance over time: does the object keep its colours."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.arguments import integer
from zoo.metrics.checks import check_tensors
from zoo.metrics.silhouettes import foreground_mask


def color_histogram_overlap(frames: Tensor, bins: int = 6) -> Tensor:
    """Mean histogram intersection (Swain & Ballard 1991) of the object's colours with those of the first frame, 0..1.

    Reported as "identity" in metrics.json.

    Args:
        frames: [V, T, 3, H, W] in 0..1 on MV-VDM's grey; every later frame is compared with its view's first.
        bins: of the joint RGB histogram, per channel.
    """
    bins = integer(bins, "color_histogram_overlap: bins", 1, 256)
    if check_tensors("color_histogram_overlap", "V T 3 H W", frames=frames)["T"] < 2:
        raise ValueError("color_histogram_overlap: frames: expected at least 2 frames per view, got fewer")
    masks = foreground_mask(frames)
    cells = (frames.clamp(0, 1 - 1e-6) * bins).long()
    cells = (cells[:, :, 0] * bins + cells[:, :, 1]) * bins + cells[:, :, 2]
    overlaps = []
    for view, view_masks in zip(cells, masks, strict=True):
        histograms = [
            torch.bincount(frame[mask], minlength=bins**3) / mask.sum().clamp(min=1)
            for frame, mask in zip(view, view_masks, strict=True)
        ]
        overlaps += [torch.minimum(histograms[0], histogram).sum() for histogram in histograms[1:]]
    return torch.stack(overlaps).mean()
