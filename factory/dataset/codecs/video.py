"""How a clip's pixels are stored: colour as H.264, alpha beside it, lossless.

Colour and alpha come back as straight-alpha frames, so a reader puts a clip on any background with
`rgb * a + background * (1 - a)` (encoded values).

The colour video is the straight colour itself, carried one pixel past the silhouette and mid-grey 127 beyond.
The other way, a video of the object composited on grey whose grey is subtracted again, was measured and
rejected: 4:2:0 chroma mixes object and background inside every 2x2 block of the silhouette, and a
subtraction cannot take them apart. In a 2-pixel band around the silhouette, put on white after coding
(256 px, crf 18; Fox, KayKit_Knight, phoenix_bird, Quaternius_robot), dB:

    composited on grey   28.6  35.4  24.0  28.2
    straight colour      31.6  36.8  25.9  30.8
    and one pixel out    34.4  37.8  26.1  33.0    what is stored; 17-25 % more bytes than on grey
    and 6 pixels out     34.6  37.8  26.0  33.1

One pixel suffices because it completes the 2x2 blocks that hold the silhouette. Watched raw, such a video
shows the object on MV-VDM's grey with an outline that is a pixel too fat and not anti-aliased.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from factory.dataset.codecs.mp4 import Mp4Index, read_index
from renderers.meshes.clip import GREY

if TYPE_CHECKING:
    import av


_KIND = ("yuv420p", 1, 1)  # of the decoded pictures: FFmpeg's numbers of BT.709 and of limited range
_NPY_HEADER_BYTES = 128
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\), } *\n"
)


def bleed_colour(frames: np.ndarray) -> np.ndarray:
    """The colour video of straight-alpha frames, as the top of this file explains it.

    Args:
        frames: uint8 [T, H, W, 4], straight alpha.
    Returns:
        uint8 [T, H, W, 4], opaque: the colour wherever alpha > 0; next to such pixels the alpha-weighted mean
        of the covered 3x3 neighbours; GREY elsewhere.
    """
    # A pixel is handled as one little-endian word 0xAABBGGRR: ten times as fast as three channels.
    pixels = np.ascontiguousarray(frames).view("<u4")[..., 0]
    covered = pixels > 0x00FFFFFF
    grown = covered.copy()
    grown[:, 1:] |= covered[:, :-1]
    grown[:, :-1] |= covered[:, 1:]
    tall = grown.copy()
    grown[:, :, 1:] |= tall[:, :, :-1]
    grown[:, :, :-1] |= tall[:, :, 1:]

    colour = np.where(covered, pixels | np.uint32(0xFF000000), np.array([*GREY, 255], np.uint8).view("<u4"))
    rim = np.flatnonzero(grown & ~covered)
    _, height, width = covered.shape
    y, x = rim // width % height, rim % width
    # Steps to the neighbours; at the border of the picture a step stays where it is.
    rows = np.where(y > 0, -width, 0), 0, np.where(y < height - 1, width, 0)
    columns = np.where(x > 0, -1, 0), 0, np.where(x < width - 1, 1, 0)
    red, green, blue, weight = np.zeros((4, len(rim)), np.uint32)
    for row in rows:
        for column in columns:
            neighbour = pixels.ravel()[rim + row + column]
            alpha = neighbour >> 24
            red += (neighbour & 255) * alpha
            green += (neighbour >> 8 & 255) * alpha
            blue += (neighbour >> 16 & 255) * alpha
            weight += alpha
    red, green, blue = ((channel + weight // 2) // weight for channel in (red, green, blue))
    colour.ravel()[rim] = red | green << 8 | blue << 16 | np.uint32(0xFF000000)
    return colour[..., None].view(np.uint8)


def decode_h264(data: bytes, frames: Sequence[int] | None = None, *, channels: int = 3) -> np.ndarray:
    """Decode frames of what `renderers.video.encode_h264` makes by index, on one thread.

    Through PyAV, which brings its own FFmpeg, leaving out the pictures that no frame asked for needs: 32 of 48 for
    every third frame. torchcodec needs FFmpeg installed on the machine, decodes all 48, and gives the same pixels.

    Args:
        data: the file. frames: indices in 0..T-1, any order, repeats allowed; None = all.
        channels: 3, or 4 for an opaque alpha with them.
    Returns:
        uint8 [len(frames), H, W, channels].
    Raises:
        IndexError: a frame the video does not have. ValueError: not a readable video, or not 4:2:0 BT.709.
    """
    from factory.dataset.codecs.planes import to_rgb

    index = _index(data)
    frames = range(len(index.frames)) if frames is None else frames
    pixels = np.empty((len(frames), index.height, index.width, channels), np.uint8)
    pixels[..., 3:] = 255
    for place, planes in _pictures(data, index, frames):
        to_rgb(*planes, pixels[place])
    return pixels


def decode_on(
    background: Sequence[int],
    data: bytes,
    packed_alpha: bytes,
    frames: Sequence[int],
    levels: np.ndarray,
    out: np.ndarray,
) -> None:
    """Decode frames of a view straight onto a background, channel by channel: what training wants, in one pass.

    Args:
        background: RGB 0-255. data, packed_alpha: colour and alpha of the view. frames: indices, as above.
        levels: [256], what stands for each value. out: [len(frames), 3, H, W], of the type of levels.
    Raises:
        IndexError, ValueError: as `decode_h264`; or colour, alpha and `out` are not of one size.
    """
    from factory.dataset.codecs.planes import composite

    index, alpha = _index(data), unpack_alpha(packed_alpha)
    size, expected = (len(frames), 3, index.height, index.width), (len(index.frames), *out.shape[2:])
    if out.shape != size or alpha.shape != expected:
        raise ValueError(
            f"decode_on: a video of {len(index.frames)} frames, {index.width}x{index.height}, an alpha "
            f"{alpha.shape} and {len(frames)} frames {out.shape} to fill are not of one size"
        )
    colour = np.asarray(background, np.uint8)
    for place, planes in _pictures(data, index, frames):
        composite(*planes, alpha[frames[place]], colour, levels, out[place])


def _index(data: bytes) -> Mp4Index:
    try:
        return read_index(data)
    except ValueError as error:
        raise ValueError(f"decode_h264: not a readable H.264 mp4: {error}") from error


def _pictures(
    data: bytes, index: Mp4Index, frames: Sequence[int]
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Every place in `frames` with the planes of its frame: uint8 [H, >= W] and twice [H / 2, >= W / 2]."""
    import av

    places = defaultdict(list)
    for place, frame in enumerate(frames):
        if not 0 <= frame < len(index.frames):
            raise IndexError(f"decode_h264: frame {frame} of a video of {len(index.frames)} frames")
        places[frame].append(place)
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = index.config
    decoder.thread_count = 1

    def decoded() -> Iterator[av.VideoFrame]:
        # Groups of pictures are closed: packets first..last-1 are exactly frames first..last-1, and what comes
        # after the last one needed is needed by none.
        for first, last in itertools.pairwise([*index.keys, len(index.frames)]):
            asked = [i for i in range(first, last) if index.frames[i] in places]
            for i in range(first, asked[-1] + 1 if asked else first):
                # Nor is a picture that nobody refers to: every second one of ours.
                decoder.skip_frame = "DEFAULT" if i in asked else "NONREF"
                packet = av.Packet(data[slice(*index.spans[i])])
                packet.pts = index.frames[i]
                yield from decoder.decode(packet)
        yield from decoder.decode(None)

    try:
        for picture in decoded():
            for place in places.pop(picture.pts, ()):
                yield place, _planes(picture, index)
    except av.FFmpegError as error:
        raise ValueError(
            f"decode_h264: {len(data)} bytes are not a readable H.264 mp4 ({error!r})"
        ) from error
    if places:
        raise ValueError(
            f"decode_h264: {len(data)} bytes are not a readable H.264 mp4 (no frame {min(places)})"
        )


def _planes(picture: av.VideoFrame, index: Mp4Index) -> tuple[np.ndarray, ...]:
    """With what pads their rows."""
    kind = (picture.format.name, picture.colorspace, picture.color_range)
    if (*kind, picture.width, picture.height) != (*_KIND, index.width, index.height):
        raise ValueError(
            f"decode_h264: expected 4:2:0 video in limited range with the matrix of BT.709 (yuv420p, 1, 1), "
            f"{index.width}x{index.height}; got {kind}, {picture.width}x{picture.height}"
        )
    return tuple(
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
        for plane in picture.planes
    )


def pack_alpha(alpha: np.ndarray) -> bytes:
    """Compress the alpha of one view, lossless: a .npy file in zlib's format.

    Anybody reads it back with `numpy.load(io.BytesIO(zlib.decompress(data)))`. Matching runs only, which is
    all that silhouettes need, is faster and smaller here than zlib's default. 24 anti-aliased frames at
    256 px (Fox): 37 KiB in 3.4 ms, read in 1.7 ms; zlib 6: 45 KiB in 12 ms; zstd 1: 39 KiB in 1 ms;
    zstd 9: 37 KiB in 9 ms; lossless H.264: 44 KiB in 18 ms, read in 9 ms.

    Args:
        alpha: uint8 [T, H, W].
    """
    if alpha.dtype != np.uint8 or alpha.ndim != 3:
        raise ValueError(f"pack_alpha: expected uint8 [T, H, W], got {alpha.dtype} {alpha.shape}")
    npy = io.BytesIO()
    np.save(npy, np.ascontiguousarray(alpha), allow_pickle=False)
    compressor = zlib.compressobj(6, strategy=zlib.Z_RLE)
    return compressor.compress(npy.getbuffer()) + compressor.flush()


def unpack_alpha(data: bytes, frames: Sequence[int] | None = None) -> np.ndarray:
    """The alpha of one view, uint8 [T, H, W], or of the frames asked for, in their order.

    Through libdeflate, which runs of equal bytes cost a sixteenth of zlib's time, but wants to know how many.

    Raises:
        IndexError: a frame the clip does not have. ValueError: the bytes are not what `pack_alpha` writes.
    """
    import deflate

    try:
        header = _NPY_HEADER.fullmatch(zlib.decompressobj().decompress(data, _NPY_HEADER_BYTES))
        if not header:
            raise ValueError("not a .npy file of three dimensions of bytes")
        shape = [int(side) for side in header.groups()]
        npy = deflate.zlib_decompress(data, _NPY_HEADER_BYTES + math.prod(shape))
        alpha = np.frombuffer(npy, np.uint8, offset=_NPY_HEADER_BYTES).reshape(shape)
    except (zlib.error, deflate.DeflateError, ValueError) as error:
        raise ValueError(f"unpack_alpha: {len(data)} bytes are not a packed alpha ({error})") from error
    return alpha if frames is None else alpha[list(frames)]
