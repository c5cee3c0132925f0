"""Encode frames to H.264 mp4 files that every player and browser supports."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np

from renderers.arguments import integer, number, shown

LARGEST_SIDE = 16384  # of a frame in x264
_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
# x264's options of all videos. Key frames exactly where they are asked for, no macroblock tree, and the same bytes
# everywhere: see `encode_h264`.
X264 = "mbtree=0:rc-lookahead=0:b-adapt=0:scenecut=0:cpu-independent=1"

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Canvas:
    """A video of one colour around a rectangle whose content changes; all lengths are even numbers of pixels.

    Attributes:
        height, width: of the video.
        top, left: of the rectangle.
        colour: RGB around it, 0..255.
    """

    height: int
    width: int
    top: int
    left: int
    colour: tuple[int, int, int]


def encode_h264(
    frames: np.ndarray,
    fps: float | Fraction,
    *,
    crf: int = 18,
    preset: str = "veryfast",
    gop: int = 8,
    to: str | None = None,
) -> bytes:
    """Encode frames as H.264 mp4 (4:2:0, limited range, BT.709 matrix and primaries, sRGB transfer).

    The output is deterministic: one thread, no dates, no encoder names, and no macroblock tree. With the macroblock
    tree x264 (build 165, vectorised code) gave different bytes from call to call at widths such as 64, 96 or 224.
    Without it, the same crf means 0.9 dB more quality and a third more bytes.
    The bytes are the same on every processor, x86-64 or Arm: x264's option `cpu-independent` turns off its search for
    intra modes for processors with SSSE3, which has other results than that for all others.

    Args:
        frames: uint8 [T, H, W, 3], sRGB-encoded, H and W even; or [T, H, W, 4] with alpha ignored.
        fps: frames per second.
        crf: quality of x264, 0 (lossless) to 51.
        preset: effort of x264; "medium" takes twice the time of "veryfast" for 0.4 dB at the same size.
        gop: distance of key frames: reading a single frame decodes at most this many (8 costs 7 % more bytes).
        to: path of a file to write instead, with its index at the beginning, so that a browser can play it while it
            loads. Returned bytes are read as a whole, so they have no need of that.
    Returns:
        The contents of the file; b"" if it was written to `to`.
    Raises:
        ValueError: wrong shape or type, or an odd side; fps, crf or gop out of range.
        TypeError: an argument is not of the type above.
        OSError: `to` cannot be written.
        RuntimeError: PyAV is not installed.
    """
    _check_frames(frames)
    rate = frame_rate(fps, "encode_h264: fps")
    crf, gop = integer(crf, "encode_h264: crf", 0, 51), integer(gop, "encode_h264: gop", 1, 10_000)
    if preset not in _PRESETS:
        raise ValueError(f"encode_h264: preset: expected one of {', '.join(_PRESETS)}, got {shown(preset)}")
    _, height, width, channels = frames.shape
    av = _import_av()
    to_yuv, format = _Yuv420(), "rgb24" if channels == 3 else "rgba"
    pictures = (to_yuv(av.VideoFrame.from_ndarray(frame, format=format)) for frame in frames)
    return _encode(pictures, width, height, rate, crf, preset, gop, to)


def encode_planes(planes: Planes, canvas: Canvas, fps: float | Fraction) -> bytes:
    """Encode the Y', Cb and Cr planes of a rectangle of a video, with the defaults of `encode_h264`.

    Args:
        planes: uint8 [T, h, w], [T, h / 2, w / 2] and [T, h / 2, w / 2]. All lengths are even.
        canvas: what surrounds them.
        fps: frames per second.
    """
    _import_av()
    rate = frame_rate(fps, "encode_planes: fps")
    return _encode(_pictures(planes, canvas), canvas.width, canvas.height, rate, 18, "veryfast", 8, None)


def _pictures(planes: Planes, canvas: Canvas) -> Iterator[Any]:
    """Yield the pictures of a video in 4:2:0: one object whose content changes."""
    from av import VideoFrame

    blank = np.empty((canvas.height, canvas.width, 3), np.uint8)
    blank[:] = canvas.colour
    picture = _Yuv420()(VideoFrame.from_ndarray(blank, format="rgb24"))
    for contents in zip(*planes, strict=True):
        picture.make_writable()  # the encoder may still refer to the one before
        for plane, content, size in zip(planes_of(picture), contents, (1, 2, 2), strict=True):
            (rows, columns), y, x = content.shape, canvas.top // size, canvas.left // size
            plane[y : y + rows, x : x + columns] = content
        yield picture


def planes_of(picture: Any) -> Planes:
    """Return the Y', Cb and Cr planes of a 4:2:0 picture, including row padding, without copying them."""
    y, cb, cr = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
        for plane in picture.planes
    )
    return y, cb, cr


def _encode(
    pictures: Iterable[Any],
    width: int,
    height: int,
    rate: Fraction,
    crf: int,
    preset: str,
    gop: int,
    to: str | None,
) -> bytes:
    """Encode 4:2:0 pictures of PyAV; see `encode_h264`."""
    av = _import_av()
    target = io.BytesIO()
    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if to else {})
    with av.open(to or target, "w", format="mp4", options=options) as container:
        stream = _add_stream(container, width, height, rate, crf, preset, gop)
        # x264 writes its version and options to an SEI message, 700 bytes per file.
        without_sei = av.bitstream.BitStreamFilterContext("filter_units=remove_types=6", stream)
        for index, picture in enumerate(pictures):
            picture.pts = index
            for packet in stream.encode(picture):
                container.mux(without_sei.filter(packet))
        for packet in stream.encode(None):
            container.mux(without_sei.filter(packet))
        container.mux(without_sei.filter(None))
    return target.getvalue()


def _check_frames(frames: np.ndarray) -> None:
    if not isinstance(frames, np.ndarray):
        raise TypeError(f"encode_h264: frames: expected a uint8 array [T, H, W, 3], got {shown(frames)}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4) or not len(frames):
        raise ValueError(
            f"encode_h264: expected frames uint8 [T, H, W, 3] with T > 0, got {frames.dtype} {frames.shape}"
        )
    height, width = frames.shape[1:3]
    if height % 2 or width % 2 or not 2 <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
        raise ValueError(
            f"encode_h264: frames: 4:2:0 video requires even sides from 2 to {LARGEST_SIDE}, got {width}x{height}; "
            f"render at an even size"
        )


def frame_rate(fps: float | Fraction, name: str) -> Fraction:
    """Return a frame rate argument as mp4 stores it.

    Raises:
        TypeError, ValueError: it is not a number from 0.01 to 1000.
    """
    value = number(fps, name, 0.01, 1000.0)
    exact = fps if isinstance(fps, Fraction) else Fraction(value)
    return exact.limit_denominator(1001)


def _import_av() -> ModuleType:
    try:
        import av
        import av.bitstream
        import av.codec.context
        import av.video.reformatter
    except ImportError as error:
        raise RuntimeError(
            f"encode_h264 requires PyAV, which cannot be imported ({error}): pip install 'av>=18'"
        ) from error
    return av


def _add_stream(
    container: Any, width: int, height: int, rate: Fraction, crf: int, preset: str, gop: int
) -> Any:
    """Add a deterministic libx264 video stream with the colour tags of `encode_h264`."""
    from av.codec.context import Flags
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    stream = container.add_stream("libx264", rate=rate)
    stream.options = {"crf": str(crf), "preset": preset, "bf": "1", "x264-params": X264}
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    codec = stream.codec_context
    codec.thread_count = 1
    codec.gop_size = gop
    codec.flags |= Flags.bitexact
    codec.color_range = ColorRange.MPEG
    codec.colorspace = Colorspace.ITU709
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.IEC61966_2_1
    return stream


class _Yuv420:
    """Converts RGB frames to 4:2:0, limited range, BT.709 matrix."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> Any:
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        return self._reformatter.reformat(
            frame,
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709,
            # Chroma is the mean of each 2x2 block, which a decoder that repeats chroma (most do) reconstructs best.
            interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
            threads=1,
        )
