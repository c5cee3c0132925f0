"""Separate an object in videos from its background, if the videos do not store transparency.

The background must be one colour. It is estimated at the border of the images. Pixels of that colour that are connected
to the border are background; regions of the same colour inside the object are not connected to it, and stay.
"""

from __future__ import annotations

import numpy as np

from renderers.background import Background, background_bytes

UNIFORM = (
    12.0  # 8-bit steps: a border that differs more from its median, in the 90th percentile, is not one colour
)
PARALLEL = (
    0.9  # cosine of two differences from the background, from which one pixel may be a mixture of the other
)


class BackgroundError(ValueError):
    """The background cannot be told from the object."""


def border_color(frames: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """Median colour at the border of a video, and how far the border's pixels are from it.

    Args:
        frames: uint8 [T, H, W, 3].
        name: of the video, for the message.

    Returns:
        float64 [3], in 0..255; the 90th percentile of the largest difference in a channel.

    Raises:
        BackgroundError: the border has several colours.
    """
    edge = np.concatenate(
        [
            frames[:, 0].reshape(-1, 3),
            frames[:, -1].reshape(-1, 3),
            frames[:, :, 0].reshape(-1, 3),
            frames[:, :, -1].reshape(-1, 3),
        ]
    ).astype(np.float64)
    color = np.median(edge, axis=0)
    spread = float(np.percentile(np.abs(edge - color).max(1), 90))
    if spread > UNIFORM:
        raise BackgroundError(
            f"{name}: expected a background of one colour, but colours at the border of the images differ by "
            f"{spread:.0f} of 255; use videos with transparency or a plain background, or remove it with a "
            f"segmentation model"
        )
    return color, spread


def cut_out(
    frames: np.ndarray, background: Background | None, name: str, *, noise: float = 6.0
) -> np.ndarray:
    """Add transparency to a video of an object before a background of one colour.

    Args:
        frames: uint8 [T, H, W, 3].
        background: its colour (`renderers.background`); None = estimated at the border.
        name: of the video, for messages.
        noise: pixels that differ less from the background's colour, in 8-bit steps, have that colour; it is raised to
            three times what is seen at the border.

    Returns:
        uint8 [T, H, W, 4], straight alpha.

    Raises:
        BackgroundError: the background has several colours, or a frame shows nothing else.
    """
    masks, color = object_masks(frames, background, name, noise=noise)
    result = np.zeros((*frames.shape[:3], 4), np.uint8)
    for t, (frame, object_mask) in enumerate(zip(frames, masks, strict=True)):
        if not object_mask.any():
            raise BackgroundError(
                f"{name}: frame {t} shows only background; expected the object in all frames"
            )
        result[t] = _matte(frame.astype(np.float64), object_mask, color)
    return result


def object_masks(
    frames: np.ndarray, background: Background | None, name: str, *, noise: float = 6.0
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of an object before a background of one colour; the mask of a frame without the object is empty.

    Args:
        frames, background, name, noise: as in `cut_out`.

    Returns:
        bool [T, H, W], and the background's colour, float64 [3] in 0..255.

    Raises:
        BackgroundError: the background has several colours.
    """
    from scipy import ndimage

    if background is None:
        color, spread = border_color(frames, name)
        noise = max(noise, 3 * spread)
    else:
        color = np.array(background_bytes(background, f"{name}: background"), np.float64)
    masks = np.zeros(frames.shape[:3], bool)
    for t, frame in enumerate(frames):
        labels, _ = ndimage.label(np.abs(frame - color).max(-1) < noise, np.ones((3, 3)))
        border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        masks[t] = ~np.isin(labels, border[border > 0])
    return masks, color


def _matte(frame: np.ndarray, object_mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Straight colour and coverage of the object, uint8 [H, W, 4].

    A pixel at the edge is a mixture c = alpha·f + (1 − alpha)·b, so that c − b is parallel to f − b and alpha times as
    long. f is the neighbour with the largest difference from the background b in about that direction.
    """
    from scipy import ndimage

    difference = frame - background
    length = np.linalg.norm(difference, axis=-1)
    longest, color = length.copy(), frame.copy()
    for shift in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        neighbour = np.roll(difference, shift, (0, 1))
        size = np.roll(length, shift, (0, 1))
        parallel = (neighbour * difference).sum(-1) > PARALLEL * size * length
        larger = parallel & (size > longest)
        longest[larger], color[larger] = size[larger], (neighbour + background)[larger]
    edge = object_mask & ~ndimage.binary_erosion(object_mask, np.ones((3, 3)))
    alpha = np.where(edge, length / np.maximum(longest, 1e-6), object_mask)
    color = np.where(edge[..., None], color, frame)
    return np.rint(np.concatenate([color, 255 * alpha[..., None]], -1)).astype(np.uint8)
