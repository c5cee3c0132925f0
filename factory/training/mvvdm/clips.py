"""Clips of an MV-Video dataset at the resolution and layout that MV-VDM trains on."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from factory.dataset.loader import TrainingClips
from factory.dataset.reader import Clip, ClipDataset
from factory.training.mvvdm.recipe import Recipe
from renderers.cameras import Cameras
from renderers.meshes.clip import GREY
from zoo.mvvdm.evaluation import TrueClip


class ClipShare(TrainingClips):
    """A part of every batch, at the model's resolution. The batches do not depend on who shares them."""

    def __init__(self, dataset: ClipDataset, resolution: int, *, part: slice, **options: Any) -> None:
        whole = dataset[0].metadata["width"] == resolution
        dtype = torch.uint8 if whole else torch.float32  # means are no bytes
        transform = partial(_resize_frames, size=resolution)
        super().__init__(dataset, rank=0, world_size=1, dtype=dtype, transform=transform, **options)
        self._part = part

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        return [batch[self._part] for batch in super().epoch_batches(epoch)]


def _resize_frames(batch: dict[str, Any], size: int) -> dict[str, Any]:
    return {**batch, "frames": shrunk(batch["frames"], size)}


def shrunk(frames: torch.Tensor, size: int) -> torch.Tensor:
    """[..., 3, H, W] → [..., 3, size, size], by the mean of what falls into a pixel."""
    if frames.shape[-1] == size:
        return frames
    if frames.shape[-1] < size or frames.shape[-1] != frames.shape[-2]:
        raise ValueError(
            f"clips are {frames.shape[-1]}x{frames.shape[-2]} px and this model wants squares of {size} px or more: "
            f"render them with --resolution {size}, or choose another preset"
        )
    small = F.interpolate(frames.flatten(0, -4), size=(size, size), mode="area")
    return small.unflatten(0, frames.shape[:-3])


def true_clip(dataset: ClipDataset, clip: Clip, recipe: Recipe) -> TrueClip:
    """A clip as the model would make it: evenly spaced views from the first on, and as many frames."""
    known = clip.metadata
    views = list(range(0, known["num_views"], known["num_views"] // recipe.views))[: recipe.views]
    stride = known["num_frames"] // recipe.frames
    arrays = clip.read(
        views,
        list(range(0, stride * recipe.frames, stride)),
        background=GREY,
        modalities=[name for name in ("depth",) if name in dataset.modalities],
    )
    size, factor = recipe.resolution, known["width"] // recipe.resolution
    frames = torch.from_numpy(arrays.frames).movedim(-1, 2).float()
    frames = shrunk(frames, size).round().byte().movedim(2, -1).numpy()
    K = arrays.cameras.K * np.array([size / known["width"], size / known["height"], 1.0])[:, None]
    depth = arrays.depth
    if depth is not None and factor > 1:
        depth = depth[..., factor // 2 :: factor, factor // 2 :: factor][..., :size, :size]
    cameras = Cameras(arrays.cameras.world_to_camera, K, size, size)
    return TrueClip(clip.clip_id, known["caption"], frames, cameras, depth)
