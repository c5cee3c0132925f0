"""Conversion of decoded Y'CbCr 4:2:0 planes to RGB, optionally composited on a background, in one pass per row.

BT.709, limited range; each chroma sample applies to its 2×2 block of pixels (no interpolation):

    R = 255/219 (Y' - 16) + 1.5748 · 255/224 (Cr - 128)
    G = 255/219 (Y' - 16) - 0.1873 · 255/224 (Cb - 128) - 0.4681 · 255/224 (Cr - 128)
    B = 255/219 (Y' - 16) + 1.8556 · 255/224 (Cb - 128)

(Rec. ITU-R BT.709-6, items 3.2–3.5.) Fixed-point coefficients and rounding reproduce swscale's output for rgb24 on
x86 exactly; the tests compare every value. swscale itself is not used because it only produces RGB: compositing and
conversion to floats would need three more passes over 50 MB per sample. Its 32-bit layouts (FFmpeg 8) also leave the
last columns of images 16n + 2 or 16n + 4 pixels wide uninitialised.

All intermediate values fit 16 bits and are cast explicitly where the compiler cannot infer that, so that the loops are
vectorised to sixteen pixels at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

i16, i32, u16 = np.int16, np.int32, np.uint16
_SKIP = 32  # pixels of a row that are tested for coverage together


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile on first call; cache the machine code if numba can write next to this file."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:
        return njit(function, nogil=True, error_model="numpy")


_inlined = njit(error_model="numpy")


@_inlined
def _luma_term(luma, light):
    """255/219 (Y' - 16) for a row of pixels."""
    # 9539 / 2^13 ≈ 255/219. floor((Y' - 16) · 9539 / 2^13) is written with the offset 19 · 2^13 - 16 · 9539 = 3024, so
    # that no intermediate value is negative.
    for x in range(len(luma)):
        light[x] = ((luma[x] * 9539 + 3024) >> 13) - 19


@_inlined
def _chroma_terms(cb, cr, red, green, blue):
    """The chroma terms of R, G and B, for both pixels that share a chroma sample."""
    # b = 8 (Cb - 128), r = 8 (Cr - 128). The coefficients are those of the module docstring times 2^13, so that the
    # product shifted by 16 bits is in pixel values: 14686 / 2^13 ≈ 1.5748 · 255/224, and so on.
    for x in range(len(cb)):
        b, r = i16(i16(cb[x]) * 8 - 1024), i16(i16(cr[x]) * 8 - 1024)
        adds_red = i16(i32(r) * i32(14686) >> 16)
        adds_green = i16(i16(i32(b) * i32(-1747) >> 16) + i16(i32(r) * i32(-4366) >> 16))
        adds_blue = i16(i32(b) * i32(17305) >> 16)
        red[2 * x] = adds_red
        red[2 * x + 1] = adds_red
        green[2 * x] = adds_green
        green[2 * x + 1] = adds_green
        blue[2 * x] = adds_blue
        blue[2 * x + 1] = adds_blue


@_inlined
def _blend(light, chroma, alpha, background, mixed):
    """One channel of a row: round((C α + B (255 - α)) / 255), C = clip(luma term + chroma term, 0, 255)."""
    back = u16(background)
    for x in range(len(light)):
        colour = u16(min(max(i16(light[x] + chroma[x]), i16(0)), i16(255)))
        total = u16(u16(colour * alpha[x]) + u16(back * u16(255 - alpha[x])) + 128)
        mixed[x] = u16(total + (total >> 8)) >> 8  # exact rounded division by 255 for totals below 2^16


@_inlined
def _map_values(mixed, levels, out):
    """Convert 8-bit values to the output type with a lookup table."""
    for x in range(len(mixed)):
        out[x] = levels[mixed[x]]


@_inlined
def _any(alpha):
    """Whether any pixel is covered. A loop without a branch, which is vectorised, unlike an early return."""
    combined = np.uint8(0)
    for x in range(len(alpha)):
        combined |= alpha[x]
    return combined != 0


@_compiled
def composite(y, cb, cr, alpha, background, levels, out):
    """Convert a frame to RGB on a background.

    Args:
        y: uint8 [H, >= W], luma plane including row padding.
        cb: uint8 [H / 2, >= W / 2], chroma plane including row padding.
        cr: likewise.
        alpha: uint8 [H, W].
        background: uint8 [3].
        levels: [256], lookup table from 8-bit values to the output type.
        out: [3, H, W], of the type of `levels`.
    """
    height, width = alpha.shape
    light, mixed = np.empty(width, np.int16), np.empty(width, np.uint8)
    chroma = np.empty((3, width + 1), np.int16)
    for row in range(height):
        # All covered pixels are in first..last-1; most of a frame is background, which needs no conversion. Both
        # bounds move in steps of 32 pixels, so `first` is even and starts a chroma pair.
        first, last = 0, width
        if not _any(alpha[row]):
            first = width
        else:
            while not _any(alpha[row, first : first + _SKIP]):
                first += _SKIP
            while not _any(alpha[row, max(last - _SKIP, 0) : last]):
                last -= _SKIP
        if first < last:
            pairs = slice(first >> 1, (last + 1) >> 1)
            _luma_term(y[row, first:last], light)
            _chroma_terms(cb[row >> 1, pairs], cr[row >> 1, pairs], chroma[0], chroma[1], chroma[2])
        count = last - first
        row_light, row_alpha, row_mixed = light[:count], alpha[row, first:last], mixed[:count]
        for channel in range(3):
            line = out[channel, row]
            line[:first] = levels[background[channel]]
            line[last:] = levels[background[channel]]
            if first < last:
                _blend(row_light, chroma[channel], row_alpha, background[channel], row_mixed)
                _map_values(row_mixed, levels, line[first:last])


@_compiled
def to_rgb(y, cb, cr, out):
    """Convert a frame to RGB.

    Args:
        y: see `composite`; likewise cb and cr.
        out: uint8 [H, W, >= 3]; the first three channels are written.
    """
    height, width, _ = out.shape
    light = np.empty(width, np.int16)
    chroma = np.empty((3, width + 1), np.int16)
    half = (width + 1) >> 1
    for row in range(height):
        _luma_term(y[row, :width], light)
        _chroma_terms(cb[row >> 1, :half], cr[row >> 1, :half], chroma[0], chroma[1], chroma[2])
        for x in range(width):
            for channel in range(3):
                out[row, x, channel] = min(max(i16(light[x] + chroma[channel, x]), i16(0)), i16(255))
