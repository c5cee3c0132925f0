"""Frames to an mp4 file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from renderers.video import encode_h264


def write_mp4(path: str | os.PathLike[str], frames: np.ndarray, fps: float, *, crf: int = 16) -> None:
    """Write frames as H.264; complete or not at all, the same frames giving the same bytes.

    Args: as of `renderers.video.encode_h264`, which also says what it raises.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        encode_h264(frames, fps, crf=crf, gop=250, to=str(part))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
