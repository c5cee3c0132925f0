"""Mattes by name: the coverage of the object in every frame of a video.

background         what differs from a background of one colour
module:function    a Python function that returns a function of frames uint8 [T, H, W, 3]
any other name     a segmentation model of transformers (`factory.generation.segmentation`)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cluster import StageError
from factory.generation.jobs import ModelChoice
from factory.generation.judging import foreground_masks
from factory.generation.video_sources import is_custom, load_custom
from zoo.animate3d.matte import border_color, cut_out
from zoo.errors import ZooError

BACKGROUND = "background"
LOSSY_NOISE, NOISE = 14.0, 6.0  # 8-bit steps, see `zoo.animate3d.matte.cut_out`

Matte = Callable[[np.ndarray, "tuple[int, int, int] | None"], np.ndarray]


def open_matte(choice: ModelChoice, device: str = "cpu") -> Matte:
    """The matte of a name: a function of frames uint8 [T, H, W, 3] and background that returns uint8 [T, H, W].

    Raises:
        StageError: there is no such matte, or its model cannot be loaded.
    """
    if choice.name == BACKGROUND:
        return background_matte
    try:
        if is_custom(choice.name):
            model: Any = load_custom(choice)
            return lambda frames, background: model(frames)
        from factory.generation.segmentation import TrackingMatte

        return TrackingMatte(choice.name, device, **choice.options)
    except (ImportError, AttributeError, TypeError, ValueError, OSError, ZooError) as error:
        raise StageError(f"--matte {choice.name}: {error}") from error


def background_matte(frames: np.ndarray, background: tuple[int, int, int] | None) -> np.ndarray:
    """Coverage of an object before a background of one colour, uint8 [T, H, W]; all 0 in frames without the object.

    Raises:
        BackgroundError: the background has several colours.
    """
    from scipy.ndimage import binary_dilation

    noise = NOISE if max(frames.shape[1:3]) <= 256 else LOSSY_NOISE  # larger frames are stored as H.264
    if background is None:
        color, spread = border_color(frames, "video")
        background = tuple(round(value) for value in color)
        noise = max(noise, 3 * spread)
    alpha = np.zeros(frames.shape[:3], np.uint8)
    for t, frame in enumerate(frames):
        mask = foreground_masks(frame[None], background, noise=noise)[0]  # without specks
        if mask.any():
            around = binary_dilation(mask, np.ones((3, 3)))
            box = _box(around)
            whole = cut_out(frame[box][None], background, "video", noise=noise)[0, ..., 3]
            alpha[t][box] = np.where(around[box], whole, 0)
    return alpha


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around the pixels of a mask [H, W], with two more on each side that has them."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return tuple(slice(max(0, int(each[0]) - 2), int(each[-1]) + 3) for each in (rows, columns))  # type: ignore[return-value]
