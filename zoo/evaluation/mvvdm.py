"""Task of MV-VDM models: videos of creatures that they were not trained on, from first frames and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from renderers.meshes import GREY
from zoo.evaluation import controls
from zoo.evaluation.media import Media
from zoo.evaluation.scenes import Scene, check_objects, open_scenes, orbit, sibling
from zoo.evaluation.tasks import Assignment, Measurement, measure_pairs


def creatures(assignment: Assignment, own_truth: bool = False) -> Measurement:
    """Sample a video of every clip, at the model's resolution, and compare it at the protocol's."""
    check_objects(assignment.protocol)
    scenes, others, protocol, hashes = open_scenes(assignment, own_truth)
    task = _Creatures(assignment, scenes, others, protocol.settings)
    rows = measure_pairs(task, assignment, protocol)
    return Measurement(protocol, "", hashes, rows, task.pictures)


class _Creatures:
    """The clips of a protocol, as truths and as samples."""

    def __init__(
        self, assignment: Assignment, scenes: list[Scene], others: list[Scene], settings: dict[str, Any]
    ) -> None:
        self.scenes, self.others, self.settings = scenes, others, settings
        self.models = dict(assignment.models)
        self.names: Sequence[str] = [scene.name for scene in scenes]
        self.shown: dict[int, np.ndarray] = {}
        self.resolution = settings["resolution"]
        self._rendered = lru_cache(maxsize=3)(self._render)

    def truth(self, index: int) -> Media:
        return self._rendered(self.scenes[index], self.resolution)

    def control(self, name: str, index: int) -> Media | None:
        other = sibling(self.scenes, self.others, index)
        if name != controls.OTHER or other is None:
            return None
        return self._rendered(other, self.resolution)

    def predict(self, label: str, index: int) -> Media:
        return self._sample(label, index)

    def pictures(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        truth = self.truth(index).frames
        assert truth is not None
        return truth[0], self.shown[index]

    def _render(self, scene: Scene, resolution: int) -> Media:
        cameras = orbit(self.settings, resolution)
        clip = scene.render(scene.framed(cameras, self.settings["margin"]), cameras, depth=True)
        return Media(clip.over(GREY), clip.frames[..., 3], None, clip.depth, cameras)

    def _sample(self, label: str, index: int) -> Media:
        from zoo.mvvdm.evaluation import TrueClip, sampler

        model, scene = self.models[label], self.scenes[index]
        size = max(self.resolution, int(model.config.resolution))
        truth = self._render(scene, size) if size != self.resolution else self.truth(index)
        assert truth.frames is not None and truth.cameras is not None
        sample = sampler(model, seed=self.settings["seed"], steps=self.settings["steps"], guidance_scale=None)
        video = sample(TrueClip(scene.name, scene.caption, truth.frames, truth.cameras))
        return Media(_shrunk(video, self.resolution), None, None, None, self.truth(index).cameras)


def _shrunk(video: np.ndarray, resolution: int) -> np.ndarray:
    """Area averages of uint8 [V, T, H, W, 3] at a lower resolution."""
    if video.shape[2] == resolution:
        return video
    planes = torch.from_numpy(video).movedim(-1, 2).float()
    small = torch.nn.functional.adaptive_avg_pool2d(planes.flatten(0, 1), resolution)
    return small.unflatten(0, planes.shape[:2]).round().byte().movedim(2, -1).contiguous().numpy()
