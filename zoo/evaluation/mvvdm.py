"""Task of MV-VDM models: videos of creatures that they were not trained on, from first frames and a sentence."""

from __future__ import annotations

import numpy as np
import torch

from renderers.meshes import GREY
from zoo.evaluation.media import Media
from zoo.evaluation.scenes import Scene, SceneTask, orbit
from zoo.evaluation.tasks import Assignment, Measurement


def creatures(assignment: Assignment, own_truth: bool = False) -> Measurement:
    """Sample a video of every clip, at the model's resolution, and compare it at the protocol's."""
    return _Creatures.measure(assignment, own_truth)


class _Creatures(SceneTask):
    """The clips of a protocol, as truths and as samples."""

    @property
    def resolution(self) -> int:
        return int(self.settings["resolution"])

    def render(self, scene: Scene) -> Media:
        return self._render(scene, self.resolution)

    def _render(self, scene: Scene, resolution: int) -> Media:
        cameras = orbit(self.settings, resolution)
        clip = scene.render(scene.framed(cameras, self.settings["margin"]), cameras, depth=True)
        return Media(clip.over(GREY), clip.frames[..., 3], None, clip.depth, cameras)

    def predict(self, label: str, index: int) -> Media:
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
