"""Frames to an mp4 that every player and browser opens."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np


def write_mp4(path: str | os.PathLike[str], frames: np.ndarray, fps: float, *, crf: int = 16) -> None:
    """Write frames as H.264 (4:2:0, BT.709); complete or not at all, the same frames giving the same bytes.

    Args:
        frames: uint8 [T, H, W, 3], sRGB-encoded, H and W even.
        fps: frames per second. crf: x264's quality, 0 (lossless) to 51.
    Raises:
        ValueError: shape, type or an odd side. RuntimeError: PyAV is not installed.
    """
    try:
        import av
        from av.bitstream import BitStreamFilterContext
        from av.codec.context import Flags
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
        from av.video.reformatter import VideoReformatter as Reformatter
    except ImportError as error:
        raise RuntimeError(f"{path}: videos are written by PyAV ({error}): pip install 'av>=18'") from error

    path = Path(path)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"{path}: expected uint8 frames [T, H, W, 3], T > 0, got {frames.dtype} {frames.shape}"
        )
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"{path}: 4:2:0 video has even sides only, got {width}x{height}; choose an even size"
        )
    reformatter = Reformatter()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # The index at the beginning: a page plays such a video while it arrives.
        with av.open(
            str(part), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}
        ) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            # Without x264's macroblock tree: with it the same frames give other bytes from call to call.
            stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0:rc-lookahead=0"}
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            codec = stream.codec_context
            codec.thread_count = 1
            codec.flags |= Flags.bitexact
            codec.color_range = ColorRange.MPEG
            codec.colorspace = Colorspace.ITU709
            codec.color_primaries = ColorPrimaries.BT709
            codec.color_trc = ColorTrc.IEC61966_2_1
            without_sei = BitStreamFilterContext(
                "filter_units=remove_types=6", stream
            )  # x264's version and options
            for index, frame in enumerate(frames):
                picture = reformatter.reformat(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
                    format="yuv420p",
                    src_color_range=ColorRange.JPEG,
                    dst_color_range=ColorRange.MPEG,
                    src_colorspace=Colorspace.ITU709,
                    dst_colorspace=Colorspace.ITU709,
                    interpolation=Interpolation.AREA
                    | Interpolation.ACCURATE_RND
                    | Interpolation.FULL_CHR_H_INP,
                    threads=1,
                )
                picture.pts = index
                for packet in stream.encode(picture):
                    container.mux(without_sei.filter(packet))
            for packet in stream.encode(None):
                container.mux(without_sei.filter(packet))
            container.mux(without_sei.filter(None))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
