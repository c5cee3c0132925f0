"""Files of generated videos: colour as FFV1 or H.264, masks compressed without loss.

Frames up to `LOSSLESS_SIDE` pixels are stored without loss (FFV1, RGB); the judges then measure exactly what the model
generated. Larger frames are stored as H.264 4:4:4 at a quality where coding noise is below the judges' thresholds, so
that 60 videos of 720×480×49 take 0.5 GB instead of 3 GB. The bytes are the same on every processor (`renderers.video`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np

from renderers.video import X264

LOSSLESS_SIDE = 256  # pixels of the longer side
CRF = "8"
_AGAIN = "delete it and run again"


def pack_video(frames: np.ndarray, fps: float) -> bytes:
    """Encode a video of one or several views as a Matroska file.

    Args:
        frames: uint8 [V, T, H, W, 3]. The views follow each other in the file.
        fps: frames per second.
    """
    import av

    V, T, H, W, _ = frames.shape
    lossless = max(H, W) <= LOSSLESS_SIDE
    target = io.BytesIO()
    with av.open(target, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(
            "ffv1" if lossless else "libx264", rate=Fraction(fps).limit_denominator(1001)
        )
        stream.width, stream.height = W, H
        stream.pix_fmt = "bgr0" if lossless else "yuv444p"
        stream.codec_context.thread_count = 1
        if not lossless:
            stream.options = {"crf": CRF, "preset": "veryfast", "x264-params": X264}
        for frame in frames.reshape(V * T, H, W, 3):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return target.getvalue()


def unpack_video(data: bytes, views: int) -> np.ndarray:
    """Decode a file of `pack_video`: uint8 [V, T, H, W, 3].

    Raises:
        ValueError: the file cannot be decoded, or has no whole number of frames per view.
    """
    count = _count_frames(data)
    if not count or count % views:
        raise ValueError(f"a stored video has {count} frames, expected a multiple of {views} views")
    video: np.ndarray | None = None
    for t, frame in enumerate(decoded_frames(data)):  # a list of them would be the video a second time
        if video is None:
            video = np.empty((count, *frame.shape), np.uint8)
        video[t] = frame
    assert video is not None
    return video.reshape(views, -1, *video.shape[1:])


def decoded_frames(data: bytes) -> Iterator[np.ndarray]:
    """The frames of a file of `pack_video`, uint8 [H, W, 3], decoded one after another; the views follow each other.

    Raises:
        ValueError: not all of its frames can be decoded.
    """
    import av

    count, done = _count_frames(data), 0
    with _readable(), av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
            done += 1
    if done != count:
        raise ValueError(f"a stored video has {count} frames, of which {done} were decoded; {_AGAIN}")


def _count_frames(data: bytes) -> int:
    """Number of frames of a file of `pack_video`: each is a packet of its own."""
    import av

    with _readable(), av.open(io.BytesIO(data), "r") as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


@contextmanager
def _readable() -> Iterator[None]:
    """Errors of the decoder as a sentence."""
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"a stored video cannot be decoded ({error}); {_AGAIN}") from None


def pack_alpha(alpha: np.ndarray) -> bytes:
    """Compress coverage uint8 [V, T, H, W] without loss."""
    target = io.BytesIO()
    np.savez_compressed(target, alpha=alpha)
    return target.getvalue()


def unpack_alpha(data: bytes) -> np.ndarray:
    """Read the result of `pack_alpha`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return file["alpha"]


def straight_color(
    frames: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int] | None
) -> np.ndarray:
    """Colour and coverage of an object, uint8 [..., H, W, 4] with straight alpha.

    A pixel is c = a·f + (1 − a)·b with the object's colour f, the coverage a and the background's colour b, therefore
    f = (c − (1 − a)·b) / a. Without b, edge pixels keep their colour.

    Args:
        frames: uint8 [..., H, W, 3]. alpha: uint8 [..., H, W].
        background: b, 0..255; None = not one colour.
    """
    result = np.concatenate([frames, alpha[..., None]], -1)
    result[alpha == 0] = 0
    if background is not None:
        edge = (alpha > 0) & (alpha < 255)
        a = alpha[edge][:, None] / 255.0
        color = (frames[edge] - (1.0 - a) * np.asarray(background, np.float64)) / a
        result[edge, :3] = np.rint(np.clip(color, 0, 255))
    return result
