"""A large generated video is not held more than twice: the peak of each stage that has a whole video in memory.

The peak is that of Python's allocations (`tracemalloc`), which NumPy's and OpenCV's arrays are part of, in bytes of the
video. Buffers of the decoder and of torch are not: they hold one frame.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import Stage, Task
from factory.generation.frames import unpack_video
from factory.generation.jobs import AssembleJob, MultiViewVideo, TakeJob, ViewGeometry
from factory.generation.stages import ALPHA, AssembleStage, MatteStage, MeasureStage, _video_outcome
from zoo.dimo.data import shrink

T, H, W = 49, 480, 720  # CogVideoX's videos
BYTES = T * H * W * 3
MOST = 2.0  # videos
pytestmark = pytest.mark.slow
WHITE = (255, 255, 255)
JOB = TakeJob("take", "take", "rolls")


def ball_video() -> tuple[np.ndarray, np.ndarray]:
    """A textured ball that rolls to the right before white, uint8 [1, T, H, W, 3], and its coverage."""
    y, x = np.mgrid[:H, :W]
    frames = np.full((1, T, H, W, 3), 255, np.uint8)
    alpha = np.zeros((1, T, H, W), np.uint8)
    for t in range(T):
        dx = x - 300 - 2 * t
        inside = dx**2 + (y - 240) ** 2 < 120**2
        colors = np.stack([100 + dx % 97, 60 + y % 101, (dx + y) % 160], -1)
        frames[0, t][inside], alpha[0, t][inside] = colors[inside], 255
    return frames, alpha


def take_of(frames: np.ndarray, alpha: np.ndarray | None, background: tuple[int, int, int] | None) -> Any:
    """A generated video from one view; `alpha` is coverage that comes with it."""
    geometry = ViewGeometry((0.0,), (10.0,), 33.9, 2.0)
    return MultiViewVideo(frames, frames[:, 0].copy(), 8.0, geometry, background, {}, alpha)


def peak(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a function, and what it allocates at most at a time, in videos."""
    gc.collect()
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1] / BYTES
    finally:
        tracemalloc.stop()


def processed(stage: Stage, payload: dict[str, Any], root: Path) -> float:
    """Run a task and write its files; its peak."""
    stage.setup()
    outcome, used = peak(lambda: stage.process(Task("0" * 64, payload)))
    assert outcome.status == "done", outcome.reason
    write(outcome.files, root)
    return used


def write(files: dict[str, bytes], root: Path) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def test_no_stage_holds_a_large_video_more_than_twice(tmp_path):
    frames, alpha = ball_video()
    video = take_of(frames, None, WHITE)
    assert shrink  # imported before memory is measured
    outcome, used = peak(lambda: _video_outcome(video, JOB, "take", "0" * 64))
    assert 1 + used < MOST  # the video model's result beside what it is encoded with
    write(outcome.files, tmp_path)
    root, job = str(tmp_path), JOB.to_json()
    assert 1 < processed(MatteStage(root), job, tmp_path) < MOST
    with np.load(tmp_path / "take" / ALPHA) as file:
        assert ((file["alpha"] > 127) == (alpha > 127)).mean() > 0.999
    assert 1 < processed(MeasureStage(root), job, tmp_path) < MOST
    for side in (H, W):  # at 720 pixels the result, with coverage and margins, alone is twice the video
        every = AssembleJob("take", f"motions/ball/rolls-{side}", tuple(range(T)), side)
        assert 0.3 < processed(AssembleStage(root), every.to_json(), tmp_path) < 0.6
        assembled = np.load(tmp_path / f"motions/ball/rolls-{side}.npy", mmap_mode="r")
        assert assembled.shape == (1, T, side, side, 4)
    assert ((assembled[0, :, 120:600, :, 3] > 127) == (alpha[0] > 127)).mean() > 0.999
    data = outcome.files["take/video.mkv"]
    decoded, used = peak(lambda: unpack_video(data, 1))
    assert decoded.nbytes == BYTES and used < 1.2
    _, copied = peak(lambda: (unpack_video(data, 1), unpack_video(data, 1).copy()))
    assert copied > MOST  # a video more is noticed


def test_a_large_video_before_a_textured_background_is_not_held_more_than_twice(tmp_path):
    """There, the object is measured before one colour, too."""
    frames, alpha = ball_video()
    noise = np.random.default_rng(0).integers(0, 256, (H // 8, W // 8, 3), np.uint8)
    background = noise.repeat(8, 0).repeat(8, 1)
    for t in range(T):
        frames[0, t] = np.where(alpha[0, t, ..., None] > 127, frames[0, t], background)
    write(_video_outcome(take_of(frames, alpha, None), JOB, "take", "0" * 64).files, tmp_path)
    stages = [MatteStage(str(tmp_path)), MeasureStage(str(tmp_path))]
    del frames, alpha
    for stage in stages:
        assert 1 < processed(stage, JOB.to_json(), tmp_path) < MOST
    outcome = stages[-1].process(Task("0" * 64, JOB.to_json()))
    assert outcome.summary["scores"]["background_motion"] < 0.01  # the background was seen
