"""Training batches: random motions, views and frames, cropped to the object.

A batch is a function of the seed and the step only, so a resumed run sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from renderers.gaussians import TensorCameras
from renderers.values import by_value
from zoo.dimo.data import MotionVideos, shrink

FULL_EVERY = 8  # uncropped images every this many steps, to penalise Gaussians outside the crops
KEPT_BYTES = 768 << 20  # limit of the in-memory cache of downsampled frames, in bytes


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Data of one step: S = M'·T' scenes (frames fastest) with C views each.

    Attributes:
        motions: int64 [M'], indices of the motions.
        frames: int64 [T'], indices of the frames, shared by all motions.
        phases: float32 [T'] in [0, 1].
        targets: uint8 [S, C, h, w, 4], straight alpha.
        cameras: the cameras of the targets, with principal points shifted by the crops.
        share: h·w over the number of pixels of an uncropped image. Multiplying a mean over the crop with it gives
            the mean over the whole image if the render, like the target, is empty outside the crop.
        noise: ε of paper eq. 5, float32 [M', Z], standard normal.
        blend: interpolation weights for the loss `between`, float32 [M'] in [0, 1).
    """

    motions: Tensor
    frames: Tensor
    phases: Tensor
    targets: Tensor
    cameras: TensorCameras
    share: float
    noise: Tensor
    blend: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to a device; copies to a GPU are asynchronous."""
        targets = self.targets.pin_memory() if torch.device(device).type == "cuda" else self.targets
        moved = vars(self) | {"targets": targets}
        return Batch(
            **{k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in moved.items()}
        )


class Feed:
    """Batch sampler of one stage: draws motions, views and frames without replacement.

    Args:
        videos, views: motions and indices of the views to draw from.
        batch: motions, views and frames per step.
        resolutions: (first step, image size in pixels) pairs.
        latent: Z, for the noise.
        seed: of the draws, together with the step.
        pictures: False = nothing is read; targets and cameras have no pixels, and half as many frames are drawn
            as there would be images per motion.
    """

    def __init__(
        self,
        videos: MotionVideos,
        views: Sequence[int],
        batch: tuple[int, int, int],
        resolutions: Sequence[tuple[int, int]],
        latent: int,
        seed: Sequence[int],
        pictures: bool = True,
    ) -> None:
        self.pictures = pictures
        self.videos, self.views, self.latent, self.seed = videos, list(views), latent, list(seed)
        available = (len(videos), len(self.views), videos.frames)
        self.sizes = [min(size, count) for size, count in zip(batch, available, strict=True)]
        if not pictures:
            self.sizes = [self.sizes[0], 1, min(-(-self.sizes[1] * self.sizes[2] // 2), videos.frames)]
        self.resolutions = resolutions
        self._kept: tuple[int, np.ndarray, np.ndarray] | None = None

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps first..last−1; a thread reads the next batch in the meantime."""
        with ThreadPoolExecutor(1, thread_name_prefix="dimo-feed") as reader:
            ahead = reader.submit(self.batch, first)
            for step in range(first, last):
                batch = ahead.result()
                if step + 1 < last:
                    ahead = reader.submit(self.batch, step + 1)
                yield batch

    def batch(self, step: int) -> Batch:
        """Return the batch of one step."""
        rng = np.random.default_rng([*self.seed, step])
        motions, picked, frames = (
            np.sort(rng.choice(count, size, replace=False))
            for count, size in zip(
                (len(self.videos), len(self.views), self.videos.frames), self.sizes, strict=True
            )
        )
        views = [self.views[i] for i in picked]
        resolution = self.resolution(step)
        noise, blend = (
            rng.standard_normal((len(motions), self.latent), np.float32),
            rng.random(len(motions), np.float32),
        )
        drawn = {
            "motions": torch.from_numpy(motions),
            "frames": torch.from_numpy(frames),
            "phases": torch.tensor([self.videos.phases[t] for t in frames]),
            "noise": torch.from_numpy(noise),
            "blend": torch.from_numpy(blend),
        }
        if not self.pictures:
            cameras = self.videos.cameras(motions, views, len(frames), resolution)
            none = torch.zeros(len(motions) * len(frames), 1, 0, 0, 4, dtype=torch.uint8)
            return Batch(**drawn, targets=none, cameras=cameras, share=1.0)
        frames_in = self._frames(motions, picked, frames, resolution)  # [S, C, H, H, 4] with H ≥ resolution
        factor = frames_in.shape[2] // resolution
        whole = step % FULL_EVERY == 0 or frames_in.shape[2] != factor * resolution
        if whole:
            height = width = resolution
            corners = np.zeros((*frames_in.shape[:2], 2), int)
        else:
            height, width, corners = windows(frames_in[..., 3], factor)
        cut = torch.from_numpy(_cut(frames_in, corners, factor, height, width, whole))
        targets = cut if cut.shape[2:4] == (height, width) else shrink(cut, height, width)

        cameras = self.videos.cameras(motions, views, len(frames), resolution)
        Ks = cameras.Ks.expand(len(cut), -1, -1, -1).clone()
        Ks[..., :2, 2] -= torch.from_numpy(corners[..., ::-1].copy()).float()
        return Batch(
            **drawn,
            targets=targets,
            cameras=TensorCameras(cameras.viewmats.expand(len(cut), -1, -1, -1), Ks, width, height),
            share=height * width / resolution**2,
        )

    def resolution(self, step: int) -> int:
        """Image size in pixels at a step, at most that of the videos."""
        scheduled = [pixels for first, pixels in self.resolutions if step >= first][-1]
        return min(scheduled, self.videos.resolution)

    def _frames(
        self, motions: np.ndarray, picked: np.ndarray, frames: np.ndarray, resolution: int
    ) -> np.ndarray:
        """Frames uint8 [S, C, H, H, 4], at `resolution` if the cache can hold that size, else at the stored size."""
        M, V, T = len(self.videos), len(self.views), self.videos.frames
        scenes = len(motions) * len(frames)
        if M * V * T * resolution**2 * 4 > KEPT_BYTES or resolution == self.videos.resolution:
            stored = self.videos.read(motions, [self.views[v] for v in picked], frames).numpy()
            return stored.transpose(0, 2, 1, 3, 4, 5).reshape(scenes, len(picked), *stored.shape[3:])
        if self._kept is None or self._kept[0] != resolution:
            small = np.empty((M, T, V, resolution, resolution, 4), np.uint8)
            self._kept = resolution, small, np.zeros((M, T, V), bool)
        _, small, cached = self._kept
        for m in motions:
            for t in frames:
                new = [v for v in picked if not cached[m, t, v]]
                if new:
                    views = [self.views[v] for v in new]
                    small[m, t, new] = self.videos.read([m], views, [t], resolution)[0, :, 0].numpy()
                    cached[m, t, new] = True
        return small[np.ix_(motions, frames, picked)].reshape(scenes, len(picked), resolution, resolution, 4)


def windows(alpha: np.ndarray, factor: int) -> tuple[int, int, np.ndarray]:
    """Crop windows of one common size, with a margin, around the non-zero alpha of each image.

    Args:
        alpha: uint8 [S, C, H, H].
        factor: input pixels per output pixel, along each axis.

    Returns:
        Height, width and top-left corners [S, C, 2] (y, x) in output pixels; height and width are multiples of 4 or
        the full size.
    """
    size = alpha.shape[2] // factor
    spans, middles = [], []
    for axis in (3, 2):  # extent along y (reduce over x), then along x
        filled = alpha.max(axis=axis) > 0
        first = filled.argmax(-1)
        last = filled.shape[-1] - filled[..., ::-1].argmax(-1)
        spans.append(int((last - first).max()))
        middles.append((first + last) / 2)
    # Extent + 15 % + 6 output pixels, rounded up to a multiple of 4.
    lengths = [min(size, -(-int(1.15 * span / factor + 6) // 4) * 4) for span in spans]
    corners = [
        np.clip(np.rint(middle / factor - length / 2), 0, size - length)
        for middle, length in zip(middles, lengths, strict=True)
    ]
    return *lengths, np.stack(corners, -1).astype(int)


def _cut(
    frames: np.ndarray, corners: np.ndarray, factor: int, height: int, width: int, whole: bool
) -> np.ndarray:
    if whole:
        return frames
    S, C = frames.shape[:2]
    cut = np.empty((S, C, height * factor, width * factor, 4), np.uint8)
    for s in range(S):
        for c in range(C):
            y, x = corners[s, c] * factor
            cut[s, c] = frames[s, c, y : y + height * factor, x : x + width * factor]
    return cut
