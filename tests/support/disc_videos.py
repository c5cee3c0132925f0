"""Video models of a few frames for tests: `--video-model disc_videos:multi_view`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from factory.generation.jobs import MultiViewVideo, ViewGeometry
from factory.generation.video_sources import GREY, WHITE

SIDE, FRAMES = 32, 6


def disc(offset: float, color: tuple[int, int, int], background: tuple[int, int, int]) -> np.ndarray:
    """A disc in the middle, moved upwards by `offset` pixels: uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = np.hypot(x - SIDE / 2, y - SIDE / 2 + offset) < SIDE / 5
    return np.where(inside[..., None], np.uint8(color), np.uint8(background))


def record(calls: str, text: str) -> None:
    """Append a line to a file, to count calls across processes."""
    if calls:
        with Path(calls).open("a") as file:
            file.write(text + "\n")


def speed_of(sentence: str) -> float:
    """Pixels per frame: "stays" does not move, "leaves" leaves the frame."""
    return 0.0 if "stays" in sentence else 9.0 if "leaves" in sentence else 0.8


class MultiView:
    """Four views of a disc that moves by a few pixels (`speed_of`).

    Of the other words, "breaks" raises, and "dies" ends the process once.
    """

    def __init__(self, calls: str = "", tint: int = 0) -> None:
        self.calls, self.tint = calls, tint

    def generate_views(self, asset: Any, sentence: str, seed: int) -> MultiViewVideo:
        record(self.calls, sentence)
        if "breaks" in sentence:
            raise RuntimeError("the model broke")
        if "dies" in sentence and not Path(self.calls + ".died").exists():
            Path(self.calls + ".died").touch()
            os._exit(7)
        speed = speed_of(sentence)
        green = 40 + int(hashlib.sha256(sentence.encode()).hexdigest()[:2], 16) // 2
        color = (200, green, 30 + self.tint)
        frames = np.stack([[disc(speed * t, color, GREY) for t in range(FRAMES)]] * 4)
        geometry = ViewGeometry((0.0, 90.0, 180.0, 270.0), (15.0,) * 4, 40.0, 3.0)
        return MultiViewVideo(frames, frames[:, 0], 3.0, geometry, GREY, {"model": "discs"})


def multi_view(calls: str = "", tint: int = 0) -> MultiView:
    return MultiView(calls, tint)


class Generated:
    """What an image-to-video model returns."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.fps, self.provenance = frames, 8.0, {"model": "one view"}


class OneView:
    """An image-to-video model: the disc moves (`speed_of`)."""

    def generate(self, image: np.ndarray, sentence: str, seed: int) -> Generated:
        speed = speed_of(sentence)
        return Generated(np.stack([disc(speed * t, (200, 60, 30), WHITE) for t in range(FRAMES)]))


def one_view() -> OneView:
    return OneView()


class HoppingView(OneView):
    """The disc moves, whatever the sentence."""

    def generate(self, image: np.ndarray, sentence: str, seed: int) -> Generated:
        return super().generate(image, "hops", seed)


def hopping_view() -> HoppingView:
    return HoppingView()


class ThreeViews:
    """A model that adds views: the same video from three sides."""

    def add_views(
        self, frames: np.ndarray, image: np.ndarray, geometry: ViewGeometry, seed: int
    ) -> MultiViewVideo:
        views = ViewGeometry((0.0, 85.7, 205.7), geometry.elevations_deg * 3, 33.9, 2.0)
        video = np.stack([frames] * 3)
        return MultiViewVideo(video, video[:, 0], 8.0, views, WHITE, {"model": "three views"})


def three_views() -> ThreeViews:
    return ThreeViews()
