"""State shared by both training stages: videos, configuration, random generators and the model being trained."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from zoo.dimo.config import DIMOConfig
from zoo.dimo.data import MotionVideos
from zoo.dimo.model import DIMO, PIXEL_BLUR
from zoo.dimo.points import calmest_frame
from zoo.dimo.tracks import KeyPointTracks, key_point_tracks
from zoo.seeds import untouched


class TrainingContext:
    """The model being trained, its videos, configuration, seed and device.

    `KeyPointStage.finish` replaces `model`, so do not keep references to it across stages.
    """

    def __init__(self, videos: MotionVideos, config: DIMOConfig, seed: int, device: torch.device) -> None:
        if not len(videos):
            raise ValueError(
                f"{videos.folder}: expected at least one training motion, got none; check the selection of motions"
            )
        self.videos, self.seed, self.device = videos, seed, device
        self.views = list(videos.train_views[: config.views])
        if config.smoothing is None:
            config = replace(config, smoothing=smoothing_of(videos, self.views, config.resolution))
        self.config = config
        self.model = self._fresh_model()

    @cached_property
    def pose(self) -> tuple[int, int]:
        """Motion and frame whose visual hull initialises the points."""
        return calmest_frame(self.videos, self.views)

    @cached_property
    def tracks(self) -> KeyPointTracks | None:
        """Tracks of the key points on the training device; None if they are not used or the videos have none.

        With tracks, p_k stays at the tracked points of `pose`: both stages set its learning rate to 0. Only p_k + Δ_k
        is compared with the images and the tracks. Free, p_k drifts (by 27 mm in the median on the kangaroo, half the
        distance of two key points), Δ_k follows, and the canonical pose is none that the object has. Neighbouring key
        points then disagree about where the Gaussians between them belong, and blending tears these apart.
        """
        config = self.config
        if not (config.losses.tracks and config.factorised):
            return None
        tracks = key_point_tracks(self.videos, self.pose, config.key_points)
        return tracks and KeyPointTracks(*(field.to(self.device) for field in tracks))

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends on the seed and `key` only: (stage,) or (stage, use, step)."""
        return np.random.default_rng([self.seed, *key])

    def _fresh_model(self) -> DIMO:
        """Untrained model. The global random state is restored, so training does not affect the caller's draws."""
        with untouched():
            torch.default_generator.manual_seed(self.seed)  # and not those of GPUs, as torch.manual_seed does
            model = DIMO(self.config, len(self.videos))
        rng, shape = self.rng(0), model.mu.shape
        with torch.no_grad():
            if not self.config.latent_space:
                model.mu[:, 0] = torch.linspace(-1, 1, len(self.videos))
            else:
                spread = torch.from_numpy(rng.standard_normal(shape, np.float32))
                model.mu.add_(self.config.latent_spread * spread)
            model.log_var.fill_(self.config.latent_log_var)
        return model.to(self.device)


def smoothing_of(videos: MotionVideos, views: list[int], resolution: int) -> float:
    """`PIXEL_BLUR` of the training images as a standard deviation in the world (`DIMOConfig.smoothing`).

    A pixel is as large as it is at the origin, which is where objects are; the mean is over motions and views.

    Args:
        resolution: of the images that are trained on, in pixels; at most that of the videos.
    """
    size = min(resolution, videos.resolution)
    cameras = [videos.cameras([motion], views, 1, size) for motion in range(len(videos))]
    pixels = [each.viewmats[..., 2, 3] / each.Ks[..., 0, 0] for each in cameras]
    return math.sqrt(PIXEL_BLUR) * float(torch.stack(pixels).mean())
