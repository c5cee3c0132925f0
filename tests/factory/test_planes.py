"""Colour conversion and compositing of decoded planes, compared bit for bit with swscale and a reference in NumPy."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from factory.dataset.buffers import value_table
from factory.dataset.codecs.planes import composite, to_rgb
from renderers.meshes.clip import GREY, WHITE, composite_in_place

SIZES = [(height, width) for height in (2, 34) for width in (*range(2, 72, 2), 130, 254, 500)]


def picture(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> av.VideoFrame:
    packed = np.concatenate([plane.ravel() for plane in (y, cb, cr)]).reshape(-1, y.shape[1])
    frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
    return frame


def by_swscale(frame: av.VideoFrame) -> np.ndarray:
    """rgb24, because with rgba swscale leaves the last columns unwritten at widths of 16n + 2 and 16n + 4."""
    return (
        VideoReformatter()
        .reformat(frame, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1)
        .to_ndarray()
    )


def planes(rng: np.random.Generator, height: int, width: int) -> list[np.ndarray]:
    sizes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    return [rng.integers(0, 256, size, np.uint8) for size in sizes]


def rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray, channels: int = 3) -> np.ndarray:
    out = np.full((*y.shape, channels), 77, np.uint8)
    to_rgb(y, cb, cr, out)
    return out


def test_every_value_is_swscales():
    """All 2^24 combinations of Y', Cb and Cr."""
    cb, cr = (plane.astype(np.uint8) for plane in np.mgrid[:256, :256])
    for first in range(0, 256, 4):
        y = np.tile(np.arange(first, first + 4, dtype=np.uint8).reshape(2, 2), (256, 256))
        assert np.array_equal(rgb(y, cb, cr), by_swscale(picture(y, cb, cr))), first
    y[0, 0] -= 9  # control
    assert not np.array_equal(rgb(y, cb, cr), by_swscale(picture(y + np.uint8(9), cb, cr)))


def test_every_size_is_swscales():
    rng = np.random.default_rng(0)
    for size in SIZES:
        y, cb, cr = planes(rng, *size)
        expected = by_swscale(picture(y, cb, cr))
        assert np.array_equal(rgb(y, cb, cr), expected), size
        padded = [np.pad(plane, ((0, 0), (0, 14))) for plane in (cb, cr)]
        four = np.full((*size, 4), 77, np.uint8)
        to_rgb(np.pad(y, ((0, 0), (0, 30))), *padded, four)
        assert np.array_equal(four[..., :3], expected) and (four[..., 3] == 77).all(), size


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.float64])
def test_on_a_background_as_the_slow_way(dtype):
    rng = np.random.default_rng(1)
    levels = value_table(dtype)
    for size in SIZES:
        y, cb, cr = planes(rng, *size)
        noise = rng.integers(0, 256, size, np.uint8)
        disc = np.hypot(*(np.mgrid[: size[0], : size[1]] - np.array(size).reshape(2, 1, 1) / 2)) < size[1] / 3
        for alpha in (noise, noise // 255 * noise, disc * noise, disc * np.uint8(255), 0 * noise):
            for background in (GREY, WHITE, (0, 130, 255)):
                slow = np.dstack([by_swscale(picture(y, cb, cr)), alpha])
                composite_in_place(slow, background)
                expected = torch.from_numpy(slow[..., :3].copy()).permute(2, 0, 1).to(dtype)
                if dtype != torch.uint8:
                    expected = expected.div(127.5).sub(1.0)
                out = np.empty((3, *size), levels.dtype)
                composite(y, cb, cr, alpha, np.array(background, np.uint8), levels, out)
                assert torch.equal(torch.from_numpy(out).view(dtype), expected), (size, background)
