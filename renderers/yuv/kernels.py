"""Frames with straight alpha to 4:2:0 planes, with colours that go one pixel past the silhouette, in one pass.

BT.709 (Rec. ITU-R BT.709-6, items 3.2-3.5) in limited range, with the fixed-point coefficients and the rounding of
FFmpeg's swscale with its flags area and accurate_rnd: the tests compare every value. In units of 2^-15:

    Y' = 16 + (5983 R + 20127 G + 2032 B)
    Cb = 128 + (-3298 R - 11094 G + 14392 B)
    Cr = 128 + (14392 R - 13073 G - 1320 B)

each rounded down to 1/64, of which chroma is then the mean of a 2x2 block.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from renderers.kernel_cache import UNCOUNTED, announce_compilation, compiler

i32, u8, u32 = np.int32, np.uint8, np.uint32
OPAQUE, COLOUR = np.uint32(0xFF000000), np.uint32(0x00FFFFFF)  # a pixel is 0xAABBGGRR

kernel = compiler([__file__], counts_references=False)
helper = njit(error_model="numpy", **UNCOUNTED)

announce_compilation(__name__, "video: compiling the kernel of colours for this machine, once …")


@kernel
def bleed_to_yuv(pixels, top, left, background, rows, luma, cb, cr):
    """Convert a part of frames to planes.

    A pixel with alpha keeps its colour; one next to such pixels gets their alpha-weighted mean; others the background.

    Args:
        pixels: uint32 [T, H, W]. Pixels outside the part have no alpha, and those at its edges none either, unless they
            are at the edges of the frame.
        top, left: of the part, even.
        background: 0xAABBGGRR, opaque.
        rows: uint32 [4, w], scratch memory.
        luma, cb, cr: uint8 [T, h, w], [T, h / 2, w / 2], outputs. h and w are the size of the part.
    """
    count, height, _ = luma.shape
    for t in range(count):
        for y in range(0, height, 2):
            _bleed_row(pixels[t], top + y, left, u32(background), rows[0], rows[2])
            _bleed_row(pixels[t], top + y + 1, left, u32(background), rows[1], rows[2])
            _luma(rows[0], luma[t, y])
            _luma(rows[1], luma[t, y + 1])
            _chroma(rows[0], rows[1], rows[2], rows[3], cb[t, y // 2], cr[t, y // 2])


@helper
def _bleed_row(image, y, left, background, out, near):
    """Write a row of the part with colours past the silhouette; `near` is scratch memory."""
    end = left + len(out)
    here, above = image[y, left:end], image[max(y - 1, 0), left:end]
    below = image[min(y + 1, len(image) - 1), left:end]
    combined = u32(0)
    for x in range(len(out)):
        pixel = here[x]
        out[x] = u32(pixel | OPAQUE) if pixel > COLOUR else background
        near[x] = u32(above[x] | pixel | below[x])
        combined = u32(combined | near[x])
    if combined <= COLOUR:
        return
    before = near[0]
    for x in range(len(out)):
        after = near[min(x + 1, len(out) - 1)]
        if here[x] <= COLOUR and u32(before | near[x] | after) > COLOUR:
            out[x] = _mean(image, y, left + x)
        before = near[x]


@helper
def _mean(image, y, x):
    """The alpha-weighted mean of the 3x3 neighbourhood, opaque; at the edges of the frame, rows count twice."""
    red = green = blue = weight = np.int64(0)
    for row in range(y - 1, y + 2):
        for column in range(x - 1, x + 2):
            pixel = np.int64(
                image[min(max(row, 0), image.shape[0] - 1), min(max(column, 0), image.shape[1] - 1)]
            )
            alpha = pixel >> 24
            red += (pixel & 255) * alpha
            green += (pixel >> 8 & 255) * alpha
            blue += (pixel >> 16 & 255) * alpha
            weight += alpha
    half = weight >> 1
    red, green, blue = (red + half) // weight, (green + half) // weight, (blue + half) // weight
    return u32(red | green << 8 | blue << 16) | OPAQUE


@helper
def _luma(row, out):
    for x in range(len(out)):
        pixel = row[x]
        r, g, b = i32(u8(pixel)), i32(u8(pixel >> 8)), i32(u8(pixel >> 16))
        exact = i32(r * i32(5983) + g * i32(20127) + b * i32(2032) + i32((16 << 15) + 256)) >> 9
        out[x] = u8(i32(exact + 32) >> 6)


@helper
def _chroma(first, second, blues, reds, cb, cr):
    """`blues`, `reds`: scratch memory."""
    middle = i32((128 << 15) + 256)
    for x in range(len(first)):
        pixel = first[x]
        r, g, b = i32(u8(pixel)), i32(u8(pixel >> 8)), i32(u8(pixel >> 16))
        blue = i32(b * i32(14392) - r * i32(3298) - g * i32(11094) + middle) >> 9
        red = i32(r * i32(14392) - g * i32(13073) - b * i32(1320) + middle) >> 9
        pixel = second[x]
        r, g, b = i32(u8(pixel)), i32(u8(pixel >> 8)), i32(u8(pixel >> 16))
        blues[x] = u32(blue + (i32(b * i32(14392) - r * i32(3298) - g * i32(11094) + middle) >> 9))
        reds[x] = u32(red + (i32(r * i32(14392) - g * i32(13073) - b * i32(1320) + middle) >> 9))
    for x in range(len(cb)):
        cb[x] = u8(u32(blues[2 * x] + blues[2 * x + 1] + 128) >> 8)
        cr[x] = u8(u32(reds[2 * x] + reds[2 * x + 1] + 128) >> 8)
