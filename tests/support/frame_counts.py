"""The number of frames in a file, as a program counts it that did not write it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import av
import numpy as np

from zoo.export.html import read_page


def video(path: Path) -> tuple[int, float]:
    """Number of decoded frames, and frames per second."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0)), float(container.streams.video[0].average_rate)


def key_frames(path: Path) -> int:
    """The number of key times of a glTF animation, from the file's JSON."""
    data = path.read_bytes()
    assert data[:4] == b"glTF"
    content = json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])
    (animation,) = content["animations"]
    (count,) = {content["accessors"][sampler["input"]]["count"] for sampler in animation["samplers"]}
    return count


def arrays(path: Path) -> int:
    with np.load(path) as content:
        assert len(content["rotations"]) == len(content["phases"])
        return len(content["positions"])


COUNT = {
    ".mp4": lambda path: video(path)[0],
    ".glb": key_frames,
    ".npz": arrays,
    ".html": lambda path: read_page(path)[1]["motion"].shape[1],
    ".ply": lambda path: len(list(path.with_suffix("").iterdir())),
}
