"""Encoding of a clip's pixels: colour as H.264, alpha beside it, lossless.

Decoding gives frames with straight alpha, so a reader composites a clip on any background with
`rgb * a + background * (1 - a)` (on encoded sRGB values).

The colour video contains the straight colour, extended one pixel past the silhouette, and mid-grey 127 elsewhere. The
alternative, compositing on grey before encoding and subtracting the grey after decoding, is worse: 4:2:0 chroma mixes
object and background within every 2×2 block on the silhouette, and a subtraction cannot separate them. PSNR in dB in
a 2-pixel band around the silhouette, composited on white after decoding (256 px, crf 18; Fox, KayKit_Knight,
phoenix_bird, Quaternius_robot):

    composited on grey         28.6  35.4  24.0  28.2
    straight colour            31.6  36.8  25.9  30.8
    extended by one pixel      34.4  37.8  26.1  33.0    this format; 17–25 % more bytes than on grey
    extended by six pixels     34.6  37.8  26.0  33.1

One pixel suffices because it completes the 2×2 blocks on the silhouette. Without its alpha, such a video shows the
object on MV-VDM's grey, with an aliased outline that is one pixel too wide.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from factory.dataset.codecs.mp4 import Mp4Index, read_index
from factory.dataset.indices import checked_frames
from renderers.arguments import integer, shown
from renderers.background import Background, background_bytes
from renderers.meshes.clip import GREY
from renderers.video import Canvas, Planes, encode_planes, planes_of
from renderers.yuv.kernel_code import load_kernels

if TYPE_CHECKING:
    import av

_GREY = np.array([*GREY, 255], np.uint8).view("<u4")[0]
_FORMAT = ("yuv420p", 1, 1)  # pixel format, colour space (FFmpeg: 1 = BT.709), colour range (1 = limited)
_NPY_HEADER_BYTES = 128
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\), } *\n"
)


def bleed_colour(frames: np.ndarray) -> np.ndarray:
    """Prepare straight-alpha frames for the colour video (see the module docstring).

    Args:
        frames: uint8 [T, H, W, 4], straight alpha.

    Returns:
        uint8 [T, H, W, 4], opaque: the colour where alpha > 0; next to such pixels, the alpha-weighted mean of the
        3×3 neighbourhood; GREY elsewhere.
    """
    # A pixel is processed as one little-endian word 0xAABBGGRR, ten times as fast as three channels.
    everything = np.ascontiguousarray(frames).view("<u4")[..., 0]
    result = np.full(everything.shape, _GREY, np.uint32)
    rows, columns = _covered_part(everything)
    result[:, rows, columns] = _bleed(np.ascontiguousarray(everything[:, rows, columns]))
    return result[..., None].view(np.uint8)


def encode_colour(frames: np.ndarray, fps: float) -> bytes:
    """Encode the colour video of a view: `encode_h264(bleed_colour(frames), fps)` in less time, with the same bytes.

    Args:
        frames: uint8 [T, H, W, 4], straight alpha, H and W even and at least 16.
        fps: frames per second.
    """
    pixels = np.ascontiguousarray(frames).view("<u4")[..., 0]
    rows, columns = _covered_part(pixels)
    count, height, width = len(pixels), rows.stop - rows.start, columns.stop - columns.start
    luma = np.empty((count, height, width), np.uint8)
    cb, cr = np.empty((2, count, height // 2, width // 2), np.uint8)
    scratch = np.empty((4, width), np.uint32)
    load_kernels().bleed_to_yuv(pixels, rows.start, columns.start, int(_GREY), scratch, luma, cb, cr)
    canvas = Canvas(pixels.shape[1], pixels.shape[2], rows.start, columns.start, GREY)
    return encode_planes((luma, cb, cr), canvas, fps)


def _covered_part(pixels: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of pixels uint32 [T, H, W] with alpha in some frame, and one more on every side.

    They begin at even numbers, and their numbers are even if H and W are.
    """
    used = np.bitwise_or.reduce(pixels, axis=0) > 0x00FFFFFF
    return _extent(used.any(axis=1)), _extent(used.any(axis=0))


def _extent(used: np.ndarray) -> slice:
    places = np.flatnonzero(used)
    first, last = (int(places[0]), int(places[-1])) if len(places) else (0, 0)
    return slice(max(first - 1, 0) // 2 * 2, min((last + 3) // 2 * 2, len(used)))


def _bleed(pixels: np.ndarray) -> np.ndarray:
    """Return the result of `bleed_colour` for pixels uint32 [T, H, W]."""
    covered = pixels > 0x00FFFFFF
    grown = covered.copy()
    grown[:, 1:] |= covered[:, :-1]
    grown[:, :-1] |= covered[:, 1:]
    tall = grown.copy()
    grown[:, :, 1:] |= tall[:, :, :-1]
    grown[:, :, :-1] |= tall[:, :, 1:]

    colour = np.where(covered, pixels | np.uint32(0xFF000000), _GREY)
    rim = np.flatnonzero(grown & ~covered)
    _, height, width = covered.shape
    y, x = rim // width % height, rim % width
    # Offsets to the 3×3 neighbours; at the border of the frame an offset outwards is 0.
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
    return colour


def decode_h264(data: bytes, frames: Sequence[int] | None = None, *, channels: int = 3) -> np.ndarray:
    """Decode frames of a video written by `renderers.video.encode_h264`, on one thread.

    Uses PyAV, which bundles FFmpeg, and skips the pictures that no requested frame depends on: for every third of 48
    frames it decodes 32 pictures. torchcodec gives the same pixels, but needs FFmpeg on the machine and decodes all 48.

    Args:
        data: content of the mp4 file.
        frames: indices in 0..T-1, in any order, repeats allowed; None = all.
        channels: 3, or 4 for RGB with an opaque alpha.

    Returns:
        uint8 [len(frames), H, W, channels].

    Raises:
        IndexError: the video has no such frame.
        ValueError: the video is not readable, or not 4:2:0 BT.709.
    """
    from factory.dataset.codecs.planes import to_rgb

    if integer(channels, "decode_h264: channels") not in (3, 4):
        raise ValueError(f"decode_h264: channels: expected 3 or 4, got {channels}")
    if not isinstance(data, bytes):
        raise TypeError(f"decode_h264: data: expected the bytes of a video, got {shown(data)}")
    index = _index(data)
    if frames is None:
        frames = range(len(index.frames))
    frames = checked_frames(frames, len(index.frames), "decode_h264")
    pixels = np.empty((len(frames), index.height, index.width, channels), np.uint8)
    pixels[..., 3:] = 255
    for place, planes in decoded_planes(data, index, frames):
        to_rgb(*planes, pixels[place])
    return pixels


def decode_on(
    background: Background,
    data: bytes,
    packed_alpha: bytes,
    frames: Sequence[int],
    levels: np.ndarray,
    out: np.ndarray,
) -> None:
    """Decode frames of a view and composite them on a background in one pass, in the layout used for training.

    Args:
        background: RGB, integers in 0..255 or floats in 0..1 (`renderers.background`).
        data: colour video of the view.
        packed_alpha: alpha of the view.
        frames: indices, see `decode_h264`.
        levels: [256], lookup table from 8-bit values to the output type.
        out: [len(frames), 3, H, W], of the type of `levels`; overwritten.

    Raises:
        IndexError: the video has no such frame.
        ValueError: the data is not readable, or the sizes of colour, alpha and `out` differ.
    """
    from factory.dataset.codecs.planes import composite

    index, alpha = _index(data), unpack_alpha(packed_alpha)
    size, expected = (len(frames), 3, index.height, index.width), (len(index.frames), *out.shape[2:])
    if out.shape != size or alpha.shape != expected:
        raise ValueError(
            f"decode_on: sizes differ: the video has {len(index.frames)} frames, {index.width}x{index.height}, the "
            f"alpha {alpha.shape}, and `out` for {len(frames)} frames has {out.shape}; expected {size}"
        )
    colour = np.asarray(background_bytes(background, "decode_on: background"), np.uint8)
    for place, planes in decoded_planes(data, index, frames):
        composite(*planes, alpha[frames[place]], colour, levels, out[place])


def _index(data: bytes) -> Mp4Index:
    try:
        return read_index(data)
    except ValueError as error:
        raise ValueError(f"decode_h264: not a readable H.264 mp4: {error}") from error


def decoded_planes(data: bytes, index: Mp4Index, frames: Sequence[int]) -> Iterator[tuple[int, Planes]]:
    """Decode frames to Y', Cb and Cr planes, in decoding order.

    Args:
        data: content of the mp4 file.
        index: its index (`factory.dataset.codecs.mp4.read_index`).
        frames: indices in 0..T-1, in any order, repeats allowed.

    Yields:
        For every position in `frames`: the position and the planes of its frame, uint8 [H, >= W], [H / 2, >= W / 2]
        and [H / 2, >= W / 2], including row padding.
    """
    import av

    places: defaultdict[int, list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        if not 0 <= frame < len(index.frames):
            raise IndexError(f"decode_h264: frame {frame} of a video of {len(index.frames)} frames")
        places[frame].append(place)
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.extradata = index.config
    decoder.thread_count = 1

    def decoded() -> Iterator[av.VideoFrame]:
        # Groups of pictures are closed: packets first..last-1 are exactly frames first..last-1, and no picture
        # depends on one that is decoded later.
        for first, last in itertools.pairwise([*index.keys, len(index.frames)]):
            requested = [i for i in range(first, last) if index.frames[i] in places]
            for i in range(first, requested[-1] + 1 if requested else first):
                # Skip pictures that no other picture refers to: with our encoder, every second one.
                decoder.skip_frame = "DEFAULT" if i in requested else "NONREF"
                packet = av.Packet(data[slice(*index.spans[i])])
                packet.pts = index.frames[i]
                yield from decoder.decode(packet)
        yield from decoder.decode(None)

    try:
        for picture in decoded():
            if picture.pts is not None and picture.pts in places:  # others were decoded as references only
                for place in places.pop(picture.pts):
                    yield place, _planes(picture, index)
    except av.FFmpegError as error:
        raise ValueError(
            f"decode_h264: {len(data)} bytes are not a readable H.264 mp4 ({error!r})"
        ) from error
    if places:
        raise ValueError(
            f"decode_h264: {len(data)} bytes are not a readable H.264 mp4 (no frame {min(places)})"
        )


def _planes(picture: av.VideoFrame, index: Mp4Index) -> Planes:
    """Return the Y', Cb and Cr planes of a picture including row padding, without copying them."""
    actual = (picture.format.name, picture.colorspace, picture.color_range)
    if (*actual, picture.width, picture.height) != (*_FORMAT, index.width, index.height):
        raise ValueError(
            f"decode_h264: expected 4:2:0 video in limited range with the matrix of BT.709 (yuv420p, 1, 1), "
            f"{index.width}x{index.height}; got {actual}, {picture.width}x{picture.height}"
        )
    return planes_of(picture)


def pack_alpha(alpha: np.ndarray) -> bytes:
    """Compress the alpha of one view losslessly: a zlib-compressed .npy file.

    `numpy.load(io.BytesIO(zlib.decompress(data)))` reads it back. Run-length matching (Z_RLE) suits silhouettes and is
    both faster and smaller than zlib's default. Measured on 24 anti-aliased frames at 256 px (Fox): 37 KiB, 3.4 ms to
    write, 1.7 ms to read; zlib 6: 45 KiB, 12 ms; zstd 1: 39 KiB, 1 ms; zstd 9: 37 KiB, 9 ms; lossless H.264: 44 KiB,
    18 ms to write, 9 ms to read.

    Args:
        alpha: uint8 [T, H, W].
    """
    if not isinstance(alpha, np.ndarray):
        raise TypeError(f"pack_alpha: alpha: expected uint8 [T, H, W], got {shown(alpha)}")
    if alpha.dtype != np.uint8 or alpha.ndim != 3:
        raise ValueError(f"pack_alpha: alpha: expected uint8 [T, H, W], got {alpha.dtype} {alpha.shape}")
    npy = io.BytesIO()
    np.save(npy, np.ascontiguousarray(alpha), allow_pickle=False)
    compressor = zlib.compressobj(6, strategy=zlib.Z_RLE)
    return compressor.compress(npy.getbuffer()) + compressor.flush()


def unpack_alpha(data: bytes, frames: Sequence[int] | None = None) -> np.ndarray:
    """Decompress the alpha of one view.

    Uses libdeflate, which needs a sixteenth of zlib's time for runs of equal bytes but must know the decompressed
    size, so the .npy header is decompressed first.

    Args:
        data: written by `pack_alpha`.
        frames: indices; None = all.

    Returns:
        uint8 [T, H, W], or [len(frames), H, W].

    Raises:
        IndexError: the clip has no such frame.
        ValueError: the data was not written by `pack_alpha`.
    """
    import deflate

    if not isinstance(data, bytes):
        raise TypeError(f"unpack_alpha: data: expected bytes, got {shown(data)}")
    try:
        header = _NPY_HEADER.fullmatch(zlib.decompressobj().decompress(data, _NPY_HEADER_BYTES))
        if not header:
            raise ValueError("not a .npy file with three dimensions of uint8")
        shape = [int(side) for side in header.groups()]
        npy = deflate.zlib_decompress(data, _NPY_HEADER_BYTES + math.prod(shape))
        alpha = np.frombuffer(npy, np.uint8, offset=_NPY_HEADER_BYTES).reshape(shape)
    except (zlib.error, deflate.DeflateError, ValueError) as error:
        raise ValueError(f"unpack_alpha: {len(data)} bytes are not a packed alpha ({error})") from error
    return alpha if frames is None else alpha[checked_frames(frames, len(alpha), "unpack_alpha")]
