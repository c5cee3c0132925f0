"""Clips of an MV-Video dataset at the resolution and in the layout that MV-VDM trains on."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from factory.dataset.loader import TrainingClips
from factory.dataset.reader import Clip, ClipDataset
from factory.training.mvvdm.recipe import MVVDMRecipe
from renderers.cameras import Cameras
from renderers.meshes.clip import GREY
from zoo.mvvdm.evaluation import TrueClip


class ClipShare(TrainingClips):
    """One worker's share of every batch, at the model's resolution. Whole batches do not depend on the split."""

    def __init__(self, dataset: ClipDataset, resolution: int, *, part: slice, **options: Any) -> None:
        """Args:
        dataset, options: of `TrainingClips`, without its rank, world size and dtype.
        resolution: of the model, pixels.
        part: this worker's examples of a batch.
        """
        is_native = dataset[0].metadata["width"] == resolution
        dtype = torch.uint8 if is_native else torch.float32  # averaged pixels are not integers
        transform = partial(_resize_frames, size=resolution)
        super().__init__(dataset, rank=0, world_size=1, dtype=dtype, transform=transform, **options)
        self._part = part

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        return [batch[self._part] for batch in super().epoch_batches(epoch)]


def _resize_frames(batch: dict[str, Any], size: int) -> dict[str, Any]:
    return {**batch, "frames": shrunk(batch["frames"], size)}


def shrunk(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Downsample [..., 3, H, W] to [..., 3, size, size] by averaging the source pixels of each target pixel.

    Raises:
        ValueError: the frames are not square, or smaller than `size`.
    """
    if frames.shape[-1] == size:
        return frames
    if frames.shape[-1] < size or frames.shape[-1] != frames.shape[-2]:
        raise ValueError(
            f"clips are {frames.shape[-1]}x{frames.shape[-2]} px, the model needs square clips of {size} px or more: "
            f"render them with --resolution {size}, or choose another preset"
        )
    small = F.interpolate(frames.flatten(0, -4), size=(size, size), mode="area")
    return small.unflatten(0, frames.shape[:-3])


def true_clip(dataset: ClipDataset, clip: Clip, recipe: MVVDMRecipe) -> TrueClip:
    """The ground truth for a sample of the model: the same number of views and frames, at the model's resolution.

    Views are evenly spaced around the object, starting with the first; frames are evenly spaced in time.
    """
    row = clip.metadata
    views = list(range(0, row["num_views"], row["num_views"] // recipe.views))[: recipe.views]
    stride = row["num_frames"] // recipe.frames
    arrays = clip.read(
        views,
        list(range(0, stride * recipe.frames, stride)),
        background=GREY,
        modalities=[name for name in ("depth",) if name in dataset.modalities],
    )
    size, factor = recipe.resolution, row["width"] // recipe.resolution
    frames = shrunk(torch.from_numpy(arrays.frames).movedim(-1, 2).float(), size)
    pixels = frames.round().byte().movedim(2, -1).numpy()
    # Pixel coordinates scale with the image, so the first two rows of K do.
    K = arrays.cameras.K * np.array([size / row["width"], size / row["height"], 1.0])[:, None]
    depth = arrays.depth
    if depth is not None and factor > 1:  # averages across a silhouette are no depths: take the centre pixel
        depth = depth[..., factor // 2 :: factor, factor // 2 :: factor][..., :size, :size]
    cameras = Cameras(arrays.cameras.world_to_camera, K, size, size)
    return TrueClip(clip.clip_id, row["caption"], pixels, cameras, depth)
