"""Masks of the object in videos before a background of one colour."""

from __future__ import annotations

import numpy as np

from renderers.background import Background
from zoo.animate3d.matte import object_masks

SPECK = 5e-4  # of the frame's area: smaller regions are noise


def foreground_masks(
    frames: np.ndarray, background: Background | None = None, name: str = "video", *, noise: float = 8.0
) -> np.ndarray:
    """Masks of the object, without specks. The mask of a frame that shows only background is empty.

    Args:
        frames: uint8 [T, H, W, 3].
        background: its colour (`renderers.background`); None = estimated at the border.
        name: of the video, for messages.
        noise: pixels that differ less from the background's colour, in 8-bit steps, have that colour; with an
            estimated background it is raised to three times what is seen at the border.

    Returns:
        bool [T, H, W].

    Raises:
        BackgroundError: the background has several colours; a segmentation model is needed.
    """
    from scipy import ndimage

    masks, _ = object_masks(frames, background, name, noise=noise)
    least = max(2.0, SPECK * masks[0].size)
    for mask in masks:
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        small = areas < least
        small[0] = False
        mask[small[labels]] = False
    return masks
