"""From what a decoder gives, planes of light and tint (Y'CbCr 4:2:0), to colours: exact, in one pass over each row.

BT.709, limited range, each chroma value for its block of 2x2 pixels, rounded as swscale does it for rgb24 on x86
(factory tests compare every value). Not by swscale itself because it gives RGB only, to be put on a background
afterwards and then turned into floats, three passes more over 50 MB a sample; and because its 32-bit layouts (FFmpeg
8) leave the last columns of pictures 16n + 2 or 16n + 4 wide unwritten.

Every number below fits 16 bits, and is cast to them where it could not be known: sixteen pixels at a time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

i16, i32, u16 = np.int16, np.int32, np.uint16
_SKIP = 32  # pixels of a row that are looked at together for whether any is covered


def _compiled(function):
    """Compile on first call and keep the machine code where numba can write."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:
        return njit(function, nogil=True, error_model="numpy")


_inlined = njit(error_model="numpy")


@_inlined
def _light(luma, light):
    """255 / 219 (luma - 16), as floor((luma - 16) 9539 / 2^13), of which no intermediate is negative."""
    for x in range(len(luma)):
        light[x] = ((luma[x] * 9539 + 3024) >> 13) - 19


@_inlined
def _tint(cb, cr, red, green, blue):
    """What chroma adds to each channel, for the two pixels next to each other that share it."""
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
def _on_background(light, tint, alpha, background, mixed):
    """One channel: round(colour alpha / 255 + background (1 - alpha / 255))."""
    back = u16(background)
    for x in range(len(light)):
        colour = u16(min(max(i16(light[x] + tint[x]), i16(0)), i16(255)))
        total = u16(u16(colour * alpha[x]) + u16(back * u16(255 - alpha[x])) + 128)
        mixed[x] = u16(total + (total >> 8)) >> 8  # / 255, to the nearest


@_inlined
def _looked_up(mixed, levels, out):
    for x in range(len(mixed)):
        out[x] = levels[mixed[x]]


@_inlined
def _any(alpha):
    some = np.uint8(0)
    for x in range(len(alpha)):
        some |= alpha[x]
    return some != 0


@_compiled
def composite(y, cb, cr, alpha, background, levels, out):
    """A picture on a background.

    Args:
        y, cb, cr: uint8 [H, >= W], [H / 2, >= W / 2] twice, the planes, with what pads their rows.
        alpha: uint8 [H, W]. background: uint8 [3]. levels: [256], what stands for each value in `out`.
        out: [3, H, W], of the type of levels.
    """
    height, width = alpha.shape
    light, mixed = np.empty(width, np.int16), np.empty(width, np.uint8)
    tint = np.empty((3, width + 1), np.int16)
    for row in range(height):
        first, last = 0, width  # what is covered lies between
        if not _any(alpha[row]):
            first = width
        else:
            while not _any(alpha[row, first : first + _SKIP]):
                first += _SKIP
            while not _any(alpha[row, max(last - _SKIP, 0) : last]):
                last -= _SKIP
        if first < last:
            pairs = slice(first >> 1, (last + 1) >> 1)
            _light(y[row, first:last], light)
            _tint(cb[row >> 1, pairs], cr[row >> 1, pairs], tint[0], tint[1], tint[2])
        count = last - first
        shown, covers, chosen = light[:count], alpha[row, first:last], mixed[:count]
        for channel in range(3):
            line = out[channel, row]
            line[:first] = levels[background[channel]]
            line[last:] = levels[background[channel]]
            if first < last:
                _on_background(shown, tint[channel], covers, background[channel], chosen)
                _looked_up(chosen, levels, line[first:last])


@_compiled
def to_rgb(y, cb, cr, out):
    """The first three channels of a picture, out uint8 [H, W, >= 3]; planes as above."""
    height, width, _ = out.shape
    light = np.empty(width, np.int16)
    tint = np.empty((3, width + 1), np.int16)
    half = (width + 1) >> 1
    for row in range(height):
        _light(y[row, :width], light)
        _tint(cb[row >> 1, :half], cr[row >> 1, :half], tint[0], tint[1], tint[2])
        for x in range(width):
            for channel in range(3):
                out[row, x, channel] = min(max(i16(light[x] + tint[channel, x]), i16(0)), i16(255))
