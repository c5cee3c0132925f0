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
import zlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from renderers.meshes.clip import GREY

_X264 = "mbtree=0:rc-lookahead=0:b-adapt=0:scenecut=0"  # see encode_h264; key frames exactly where `gop` says

# --- colour ---------------------------------------------------------------------------------------


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


def encode_h264(
    frames: np.ndarray, fps: float | Fraction, *, crf: int = 18, preset: str = "veryfast", gop: int = 8
) -> bytes:
    """Encode frames as an H.264 mp4 (4:2:0, limited range, BT.709 matrix and primaries, sRGB transfer).

    The same frames give the same bytes: one thread, no dates, no names of encoders, and no macroblock tree.
    That one gave other bytes from call to call at widths like 64, 96 or 224 (x264 165, its vector code only);
    without it the same crf means 0.9 dB more and a third more bytes. The index lies at the end of the file:
    it is always read from a table cell, as a whole, where a "fast start" saves nothing.

    Args:
        frames: uint8 [T, H, W, 3], sRGB-encoded, H and W even; or [T, H, W, 4], alpha ignored.
        fps: frames per second.
        crf: x264's quality, 0 (lossless) to 51. preset: x264's effort; "medium" costs twice the time of
            "veryfast" for 0.4 dB and the same bytes. gop: frames from one key frame to the next, the most
            that reading a single frame has to decode (8 costs 7 % of bytes).
    Raises:
        ValueError: shape, type or an odd side.
    """
    import av
    from av.bitstream import BitStreamFilterContext
    from av.codec.context import Flags
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
    from av.video.reformatter import VideoReformatter as Reformatter

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4) or not len(frames):
        raise ValueError(
            f"encode_h264: expected uint8 [T, H, W, 3], T > 0, got {frames.dtype} {frames.shape}"
        )
    _, height, width, channels = frames.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"encode_h264: 4:2:0 video has even sides only, got {width}x{height}; render at an even size"
        )
    reformatter = Reformatter()
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.options = {"crf": str(crf), "preset": preset, "bf": "1", "x264-params": _X264}
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1
        codec.gop_size = gop
        codec.flags |= Flags.bitexact
        codec.color_range = ColorRange.MPEG
        codec.colorspace = Colorspace.ITU709
        codec.color_primaries = ColorPrimaries.BT709
        codec.color_trc = ColorTrc.IEC61966_2_1
        # x264 writes its version and options into a SEI message, 700 bytes a file.
        without_sei = BitStreamFilterContext("filter_units=remove_types=6", stream)
        for index, frame in enumerate(frames):
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(frame, format="rgb24" if channels == 3 else "rgba"),
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                # The mean of each 2x2 block: what a decoder that repeats chroma (most do) undoes best.
                interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
                threads=1,
            )
            picture.pts = index
            for packet in stream.encode(picture):
                container.mux(without_sei.filter(packet))
        for packet in stream.encode(None):
            container.mux(without_sei.filter(packet))
        container.mux(without_sei.filter(None))
    return target.getvalue()


def decode_h264(data: bytes, frames: Sequence[int] | None = None, *, channels: int = 3) -> np.ndarray:
    """Decode frames of an H.264 mp4 by index, on one thread, leaving out groups of pictures nobody asked for.

    Through PyAV, which brings its own FFmpeg; torchcodec gives the same pixels at the same speed (± 10 %) but
    needs FFmpeg installed on the machine.

    Args:
        data: the file. frames: indices in 0..T-1, any order, repeats allowed; None = all.
        channels: 3, or 4 for an opaque alpha with them.
    Returns:
        uint8 [len(frames), H, W, channels].
    Raises:
        IndexError: a frame the video does not have. ValueError: not a readable video.
    """
    import av
    from av.video.reformatter import Interpolation, VideoReformatter

    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            packets = [packet for packet in container.demux(stream) if packet.size]
            index_of = {pts: index for index, pts in enumerate(sorted(packet.pts for packet in packets))}
            wanted = list(range(len(packets)) if frames is None else frames)
            missing = [index for index in wanted if not 0 <= index < len(packets)]
            if missing:
                raise IndexError(f"decode_h264: frame {missing[0]} of a video of {len(packets)} frames")

            reformatter, layout = VideoReformatter(), {3: "rgb24", 4: "rgba"}[channels]
            decoded: dict[int, np.ndarray] = {}
            needed = set(wanted)

            def take(packet: av.Packet | None) -> None:
                for frame in stream.decode(packet):
                    index = index_of[frame.pts]
                    if index in needed:
                        picture = reformatter.reformat(
                            frame, format=layout, interpolation=Interpolation.BILINEAR, threads=1
                        )
                        decoded[index] = picture.to_ndarray()

            starts = [i for i, packet in enumerate(packets) if packet.is_keyframe] + [len(packets)]
            for start, end in itertools.pairwise(starts):
                # Groups of pictures are closed: packets start..end-1 are exactly frames start..end-1.
                if not needed.isdisjoint(range(start, end)):
                    for packet in packets[start:end]:
                        take(packet)
            take(None)
            if not wanted:
                return np.empty((0, stream.height, stream.width, channels), np.uint8)
            return np.stack([decoded[index] for index in wanted])
    except (av.FFmpegError, KeyError) as error:
        raise ValueError(
            f"decode_h264: {len(data)} bytes are not a readable H.264 mp4 ({error!r})"
        ) from error


# --- alpha ----------------------------------------------------------------------------------------


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

    Raises:
        IndexError: a frame the clip does not have. ValueError: the bytes are not what `pack_alpha` writes.
    """
    try:
        alpha = np.load(io.BytesIO(zlib.decompress(data)), allow_pickle=False)
    except (zlib.error, ValueError, EOFError) as error:
        raise ValueError(f"unpack_alpha: {len(data)} bytes are not a packed alpha ({error})") from error
    return alpha if frames is None else alpha[list(frames)]
