"""Animated glTF as FBX, written by Blender in a child process (`renderers.meshes.blender`)."""

from __future__ import annotations

import json
import os

import numpy as np

from renderers.files import atomic_path, file_path
from renderers.gltf.files import split_glb
from zoo.errors import ModelError
from zoo.formats import check_suffix

_MOST_FPS = 240
_WHOLE = 1e-3  # a frame rate this close to a whole number is one
_OTHER_RATE = 60  # for frames that no whole frame rate meets


def write_fbx(path: str | os.PathLike[str], glb: bytes, *, fps: int, frames: int) -> None:
    """Write the last animation of a .glb as .fbx, atomically, with its textures inside.

    Args:
        path: of the file.
        glb: the file, with key frames at multiples of 1 / `fps`.
        fps: frame rate at which Blender bakes the animation.
        frames: number of frames.

    Raises:
        ModelError: Blender is not installed, or it failed.
        ValueError: the name does not end in .fbx.
    """
    from renderers.meshes import RenderError, blender

    path = file_path(path, "write_fbx: path")
    check_suffix(path, (".fbx",), "animations")
    animations = json.loads(split_glb(glb)[0]).get("animations", [])
    with atomic_path(path) as part:
        try:
            blender.write_fbx(glb, part, len(animations) - 1, fps=fps, frames=frames)
        except RenderError as error:
            raise ModelError(f"{path}: FBX is written by Blender: {error}") from error


def frame_times(times: np.ndarray) -> tuple[int, np.ndarray]:
    """Return a whole frame rate, as FBX needs, and its frame times, which include the given ones if one does.

    Args:
        times: [T] seconds, increasing, from 0.
    """
    length = float(times[-1])
    if length <= 0:
        return 24, np.zeros(1)
    steps = np.diff(times)
    rate = 1.0 / float(steps.mean())
    even = np.abs(steps * rate - 1.0).max() < _WHOLE
    rates = [rate * k for k in range(1, 9)] if even else []
    whole = [round(r) for r in rates if abs(r - round(r)) < _WHOLE and 12 <= round(r) <= _MOST_FPS]
    fps = whole[0] if whole else _OTHER_RATE
    return fps, np.arange(int(np.floor(length * fps + 1e-6)) + 1) / fps
