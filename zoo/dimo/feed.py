"""What each step of training sees: a few motions, views and frames, cut to where the object is.

A batch follows from the seed and the step alone, so a resumed run reads what an undisturbed one would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from renderers.gaussians import TensorCameras
from zoo.dimo.data import MotionVideos, shrink

FULL_EVERY = 8  # every so many steps the whole picture, so that nothing can hide outside the cuts
KEPT_BYTES = 768 << 20  # a small size of all the videos is kept in memory once made, up to this


@dataclass(frozen=True)
class Batch:
    """One step's pictures: S = motions × frames scenes (frames fastest), C views each.

    Attributes:
        motions: int64 [M']. frames: int64 [T'], the same for all its motions. phases: float32 [T'].
        targets: uint8 [S, C, h, w, 4], straight alpha. cameras: theirs.
        share: which part of a whole picture's pixels h × w is.
        noise: float32 [M', Z], standard normal. blend: float32 [M'], uniform in 0..1.
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
        """The batch on a device; copies to a GPU run beside its work."""
        targets = self.targets.pin_memory() if torch.device(device).type == "cuda" else self.targets
        moved = vars(self) | {"targets": targets}
        return Batch(
            **{k: v.to(device, non_blocking=True) if hasattr(v, "to") else v for k, v in moved.items()}
        )


class Feed:
    """Batches of a stage, drawn from motions × views × frames."""

    def __init__(
        self,
        videos: MotionVideos,
        views: Sequence[int],
        batch: tuple[int, int, int],
        resolutions: Sequence[tuple[int, int]],
        latent: int,
        seed: Sequence[int],
    ) -> None:
        self.videos, self.views, self.latent, self.seed = videos, list(views), latent, list(seed)
        available = (len(videos), len(self.views), videos.frames)
        self.sizes = [min(wanted, there) for wanted, there in zip(batch, available, strict=True)]
        self.resolutions = resolutions
        self._kept: tuple[int, np.ndarray, np.ndarray] | None = None

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first..last-1; while one is used the next is read."""
        with ThreadPoolExecutor(1, thread_name_prefix="dimo-feed") as reader:
            ahead = reader.submit(self.batch, first)
            for step in range(first, last):
                batch = ahead.result()
                if step + 1 < last:
                    ahead = reader.submit(self.batch, step + 1)
                yield batch

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        rng = np.random.default_rng([*self.seed, step])
        motions, picked, frames = (
            np.sort(rng.choice(there, size, replace=False))
            for there, size in zip(
                (len(self.videos), len(self.views), self.videos.frames), self.sizes, strict=True
            )
        )
        views = [self.views[i] for i in picked]
        resolution = self.resolution(step)
        frames_in = self._frames(motions, picked, frames, resolution)  # [S, C, H, H, 4], perhaps larger
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
            motions=torch.from_numpy(motions),
            frames=torch.from_numpy(frames),
            phases=torch.tensor([self.videos.phases[t] for t in frames]),
            targets=targets,
            cameras=TensorCameras(cameras.viewmats.expand(len(cut), -1, -1, -1), Ks, width, height),
            share=height * width / resolution**2,
            noise=torch.from_numpy(rng.standard_normal((len(motions), self.latent), np.float32)),
            blend=torch.from_numpy(rng.random(len(motions), np.float32)),
        )

    def resolution(self, step: int) -> int:
        """Pixels of the pictures at a step."""
        wanted = [pixels for first, pixels in self.resolutions if step >= first][-1]
        return min(wanted, self.videos.resolution)

    def _frames(
        self, motions: np.ndarray, picked: np.ndarray, frames: np.ndarray, resolution: int
    ) -> np.ndarray:
        """uint8 [S, C, H, H, 4] at the wanted size where that is kept, else as stored."""
        M, V, T = len(self.videos), len(self.views), self.videos.frames
        scenes = len(motions) * len(frames)
        if M * V * T * resolution**2 * 4 > KEPT_BYTES or resolution == self.videos.resolution:
            stored = self.videos.read(motions, [self.views[v] for v in picked], frames).numpy()
            return stored.transpose(0, 2, 1, 3, 4, 5).reshape(scenes, len(picked), *stored.shape[3:])
        if self._kept is None or self._kept[0] != resolution:
            small = np.empty((M, T, V, resolution, resolution, 4), np.uint8)
            self._kept = resolution, small, np.zeros((M, T, V), bool)
        _, small, known = self._kept
        for m in motions:
            for t in frames:
                new = [v for v in picked if not known[m, t, v]]
                if new:
                    views = [self.views[v] for v in new]
                    small[m, t, new] = self.videos.read([m], views, [t], resolution)[0, :, 0].numpy()
                    known[m, t, new] = True
        return small[np.ix_(motions, frames, picked)].reshape(scenes, len(picked), resolution, resolution, 4)


def windows(alpha: np.ndarray, factor: int) -> tuple[int, int, np.ndarray]:
    """One size and many places of windows that hold what is seen in each picture, with a margin.

    Args:
        alpha: uint8 [S, C, H, H]. factor: pixels of these pictures per pixel of the smaller ones wanted.
    Returns:
        height, width and corners [S, C, 2] (y, x) in wanted pixels.
    """
    size = alpha.shape[2] // factor
    spans, middles = [], []
    for axis in (3, 2):  # rows that are not empty, then columns
        filled = alpha.max(axis=axis) > 0
        first = filled.argmax(-1)
        last = filled.shape[-1] - filled[..., ::-1].argmax(-1)
        spans.append(int((last - first).max()))
        middles.append((first + last) / 2)
    wanted = [min(size, -(-int(1.15 * span / factor + 6) // 4) * 4) for span in spans]
    corners = [
        np.clip(np.rint(middle / factor - length / 2), 0, size - length)
        for middle, length in zip(middles, wanted, strict=True)
    ]
    return *wanted, np.stack(corners, -1).astype(int)


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
