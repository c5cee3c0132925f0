"""Frames to an mp4 file."""

from __future__ import annotations

import os

import numpy as np

from renderers.files import atomic_path, file_path
from renderers.video import encode_h264
from zoo.formats import check_suffix


def write_mp4(path: str | os.PathLike[str], frames: np.ndarray, fps: float, *, crf: int = 16) -> None:
    """Write frames as H.264, atomically; the same frames give the same bytes.

    Args:
        path: of the file.
        frames: uint8 [T, H, W, 3], even sides.
        fps: frame rate.
        crf: constant rate factor of x264; lower is better and larger.

    Raises:
        ValueError: the name does not end in .mp4.
        ValueError, RuntimeError: as `renderers.video.encode_h264`.
    """
    path = file_path(path, "write_mp4: path")
    check_suffix(path, (".mp4",), "videos")
    with atomic_path(path) as part:
        encode_h264(frames, fps, crf=crf, gop=250, to=str(part))
