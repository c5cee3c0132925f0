"""The similarity of consecutive frames, a measure of `factory.clips.quality`."""

from __future__ import annotations

from functools import partial

import numpy as np

from renderers import fixed
from renderers.meshes.clip import GREY, composite

FEW_VIEWS = 4  # views a quarter turn apart: no motion is along the line of sight of all of them
_WINDOW = 7  # pixels per side, of SSIM


def frame_similarity(frames: np.ndarray) -> float:
    """Smallest SSIM of a frame with the previous one, 0-1; flashes and parts that pop in lower it.

    SSIM (Wang et al. 2004) of frames x and y, with local means μ, variances σ² and covariance σ_xy in 7 x 7 windows,
    c1 = (0.01 · 255)² and c2 = (0.03 · 255)²:

        (2 μ_x μ_y + c1) (2 σ_xy + c2) / ((μ_x² + μ_y² + c1) (σ_x² + σ_y² + c2))

    It is computed from luma at 128 pixels or less and averaged over the pixels that either frame covers, since
    the background is always similar; then the mean over four views is taken.

    Args:
        frames: uint8 [V, T, H, W, 4], straight alpha.
    """
    from scipy.ndimage import uniform_filter

    similar = []
    for view in frames[np.unique(np.linspace(0, len(frames), FEW_VIEWS, endpoint=False).astype(int))]:
        block = -(-view.shape[1] // 128)
        view = _surroundings(view, block)
        colour = fixed.dot(composite(view, GREY), np.array([0.299, 0.587, 0.114], np.float32))
        x, covered = _shrunk(colour, block), _shrunk(view[..., 3].astype(np.float32), block) > 0

        mean = partial(uniform_filter, size=(0, _WINDOW, _WINDOW), mode="nearest")
        mu = mean(x)
        variance = np.maximum(mean(x * x) - mu * mu, 0.0)
        covariance = mean(x[1:] * x[:-1]) - mu[1:] * mu[:-1]
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        ssim = (2 * mu[1:] * mu[:-1] + c1) * (2 * covariance + c2)
        ssim /= (mu[1:] ** 2 + mu[:-1] ** 2 + c1) * (variance[1:] + variance[:-1] + c2)
        either = covered[1:] | covered[:-1]
        count = either.sum(axis=(1, 2))
        total = (ssim * either).sum(axis=(1, 2), dtype=np.float64)
        similar.append(np.where(count > 0, total / np.maximum(count, 1), 1.0))
    return float(np.mean(similar, axis=0).min())


def _surroundings(view: np.ndarray, block: int) -> np.ndarray:
    """Return the part of the frames [T, H, W, 4] that the windows at covered pixels lie in, in whole blocks."""
    covered = np.bitwise_or.reduce(np.ascontiguousarray(view).view("<u4")[..., 0], axis=0) > 0x00FFFFFF
    parts = []
    for axis in (1, 0):
        places = np.flatnonzero(covered.any(axis=axis)) // block
        first, last = (places[0], places[-1]) if len(places) else (0, 0)
        parts.append(slice(max(first - _WINDOW // 2, 0) * block, (last + _WINDOW // 2 + 1) * block))
    return view[:, parts[0], parts[1]]


def _shrunk(images: np.ndarray, block: int) -> np.ndarray:
    """Downsample images [T, H, W] by averaging blocks of pixels; what is left of the last ones is cut off."""
    count, height, width = images.shape[0], images.shape[1] // block, images.shape[2] // block
    images = images[:, : height * block, : width * block]
    if block == 2:  # four times as fast as `mean`, which adds in the same order
        pairs = images[:, :, 0::2] + images[:, :, 1::2]
        return (pairs[:, 0::2] + pairs[:, 1::2]) / np.float32(4)
    return images.reshape(count, height, block, width, block).mean(axis=(2, 4))
