"""Training videos of DIMO: M motions of one object, each rendered from V cameras in T frames.

A folder contains `motions.json` and, for each motion, `<file>.npy` (uint8 [V, T, H, W, 4], straight alpha) and
optionally `<file>.points.npy` (float32 [T, P, 3], ground-truth surface points in world coordinates). Frames are
memory-mapped, so only the requested ones are read; they stay uint8 until they are on the training device.

World coordinates are shared by all motions of an object: +Y up, the rest pose centred, scaled so that every motion
is inside the cameras' view.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from renderers.arguments import array, integer, shown
from renderers.background import Background, background_color
from renderers.files import atomic_path, file_path
from renderers.gaussians import TensorCameras
from renderers.values import by_value

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "motions.json"
SPLITS = ("train", "heldout")


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class MotionVideos:
    """A folder of motion videos: the contents of `motions.json`, and lazy access to the frames.

    Attributes:
        folder: folder of the files.
        object: the object's name.
        names, sentences, splits, files: one per motion, [M]; splits are "train" or "heldout", files are file stems.
        frames: T.
        resolution: H = W in pixels.
        phases: times of the frames, [T] in [0, 1].
        world_to_camera: float64 [M, V, 4, 4], OpenCV axes.
        K: intrinsics, float64 [M, V, 3, 3], in pixels at `resolution`.
        train_views, heldout_views: indices into V; held-out views are used for evaluation only.
        provenance: licence, author, source and so on, copied into model cards.
    """

    folder: Path
    object: str
    names: tuple[str, ...]
    sentences: tuple[str, ...]
    splits: tuple[str, ...]
    files: tuple[str, ...]
    frames: int
    resolution: int
    phases: tuple[float, ...]
    world_to_camera: np.ndarray
    K: np.ndarray
    train_views: tuple[int, ...]
    heldout_views: tuple[int, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("names", "sentences", "splits", "files", "phases", "train_views", "heldout_views"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("world_to_camera", "K"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        object.__setattr__(self, "folder", Path(self.folder))
        self._check()

    def __repr__(self) -> str:
        views = len(self.train_views) + len(self.heldout_views)
        return (
            f"MotionVideos({self.object!r}, {len(self.names)} motions, {views} views, {self.frames} frames of "
            f"{self.resolution}×{self.resolution}, in {str(self.folder)!r})"
        )

    @staticmethod
    def open(folder: str | os.PathLike) -> MotionVideos:
        """Open a folder and check its files.

        Raises:
            FileNotFoundError: the index or a motion's file is missing.
            ValueError: the index is malformed, or a file has another shape or dtype than the index specifies.
        """
        folder = file_path(folder, "MotionVideos.open: folder")
        try:
            text = (folder / INDEX).read_text()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"{folder} contains no {INDEX}; create motion videos with python -m factory.motions"
            ) from None
        try:
            videos = MotionVideos(folder, **json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder / INDEX}: not an index of motion videos ({error})") from error
        shape = (videos.num_views, videos.frames, videos.resolution, videos.resolution, 4)
        for stem in videos.files:
            array = videos._map(stem)
            if array.shape != shape or array.dtype != np.uint8:
                raise ValueError(
                    f"{folder / stem}.npy: expected uint8 {list(shape)}, got {array.dtype} {list(array.shape)}"
                )
        return videos

    def write(self) -> None:
        """Write `motions.json` atomically. Call this after all motions are written: `open` requires the index."""
        lists = ("world_to_camera", "K")
        values = {k: v.tolist() if k in lists else v for k, v in vars(self).items() if k != "folder"}
        part = self.folder / (INDEX + ".part")
        part.write_text(json.dumps(values, indent=1))
        os.replace(part, self.folder / INDEX)

    @property
    def num_views(self) -> int:
        """V, the number of cameras per motion."""
        return self.world_to_camera.shape[1]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, motions: Sequence[int | str] | str) -> MotionVideos:
        """Select motions by index or name, in the given order, or all motions of a split ("train", "heldout")."""
        if not isinstance(motions, str | Sequence | np.ndarray):
            raise TypeError(
                f"{self.folder}: motions: expected a split or a list of motions, got {shown(motions)}"
            )
        if isinstance(motions, str):
            if motions not in SPLITS:
                raise ValueError(
                    f"{self.folder}: expected a split of {SPLITS} or a list of motions, got {motions!r}"
                )
            chosen = [i for i, split in enumerate(self.splits) if split == motions]
        else:
            chosen = [self._index(motion) for motion in motions]
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            sentences=tuple(self.sentences[i] for i in chosen),
            splits=tuple(self.splits[i] for i in chosen),
            files=tuple(self.files[i] for i in chosen),
            world_to_camera=self.world_to_camera[chosen],
            K=self.K[chosen],
        )

    def read(
        self,
        motions: Sequence[int] | np.ndarray,
        views: Sequence[int],
        frames: Sequence[int] | np.ndarray,
        resolution: int | None = None,
    ) -> Tensor:
        """Read the frames of every combination of motion, view and frame.

        Args:
            motions, views, frames: indices.
            resolution: h = w in pixels, at most the stored one, which is the default. Smaller images are area averages
                of premultiplied colour, so that the background does not bleed into silhouettes.

        Returns:
            uint8 [len(motions), len(views), len(frames), h, w, 4], straight alpha, sRGB-encoded.
        """
        resolution = self.resolution if resolution is None else resolution
        resolution = integer(resolution, f"{self.folder}: resolution", 1, self.resolution)
        motions = check_indices(motions, len(self), f"{self.folder}: motions")
        views = check_indices(views, self.num_views, f"{self.folder}: views")
        frames = check_indices(frames, self.frames, f"{self.folder}: frames")
        picked = np.ix_(views, frames)
        stack = torch.from_numpy(np.stack([self._map(self.files[m])[picked] for m in motions]))
        return stack if resolution == self.resolution else shrink(stack, resolution, resolution)

    def points(self, motion: int) -> np.ndarray | None:
        """Ground-truth surface points of a motion, float32 [T, P, 3], world coordinates; None if there are none."""
        (motion,) = check_indices([motion], len(self), f"{self.folder}: motion")
        path = self.folder / f"{self.files[motion]}.points.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def cameras(
        self,
        motions: Sequence[int] | np.ndarray,
        views: Sequence[int],
        frames_count: int,
        resolution: int | None = None,
    ) -> TensorCameras:
        """Cameras of S = motions × frames scenes (frames fastest) with C = len(views) views each.

        If the motions share their cameras, a single set (S = 1) is returned, which broadcasts over the scenes.

        Args:
            motions, views: indices.
            frames_count: number of frames per motion.
            resolution: image size in pixels; None = that of the videos.
        """
        resolution = self.resolution if resolution is None else resolution
        resolution = integer(resolution, f"{self.folder}: resolution", 1)
        frames_count = integer(frames_count, f"{self.folder}: frames_count", 1)
        motions = check_indices(motions, len(self), f"{self.folder}: motions")
        picked = np.ix_(motions, check_indices(views, self.num_views, f"{self.folder}: views"))
        viewmats, K = self.world_to_camera[picked], self.K[picked].copy()
        K[..., :2, :] *= resolution / self.resolution
        if (viewmats == viewmats[:1]).all() and (K == K[:1]).all():
            viewmats, K, frames_count = viewmats[:1], K[:1], 1
        viewmats, K = (np.repeat(a, frames_count, axis=0) for a in (viewmats, K))
        return TensorCameras(
            torch.as_tensor(viewmats, dtype=torch.float32),
            torch.as_tensor(K, dtype=torch.float32),
            resolution,
            resolution,
        )

    def _map(self, stem: str) -> np.ndarray:
        try:
            return np.load(self.folder / f"{stem}.npy", mmap_mode="r")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.folder / stem}.npy is missing, although {INDEX} lists it; create the folder again"
            ) from None

    def _index(self, motion: int | str) -> int:
        if isinstance(motion, str):
            if motion not in self.names:
                raise KeyError(
                    f"{self.object} has no motion {motion!r}; its motions are {', '.join(self.names)}"
                )
            return self.names.index(motion)
        motion = integer(motion, f"{self.folder}: motions")
        if not -len(self) <= motion < len(self):
            raise IndexError(f"{self.object} has {len(self)} motions, got index {motion}")
        return motion % len(self)

    def _check(self) -> None:
        M, where = len(self.names), self.folder / INDEX
        sizes = {n: len(getattr(self, n)) for n in ("sentences", "splits", "files")}
        if set(sizes.values()) != {M}:
            raise ValueError(f"{where}: expected {M} entries per list, one per name, got {sizes}")
        V = self.world_to_camera.shape[1] if self.world_to_camera.ndim == 4 else -1
        if self.world_to_camera.shape != (M, V, 4, 4) or self.K.shape != (M, V, 3, 3):
            raise ValueError(
                f"{where}: expected world_to_camera [{M}, V, 4, 4] and K [{M}, V, 3, 3] with one V, "
                f"got {list(self.world_to_camera.shape)} and {list(self.K.shape)}"
            )
        if len(self.phases) != self.frames:
            raise ValueError(f"{where}: expected {self.frames} phases, one per frame, got {len(self.phases)}")
        if not set(self.train_views) | set(self.heldout_views) <= set(range(V)):
            raise ValueError(f"{where}: expected train_views and heldout_views in 0..{V - 1}")
        if not set(self.splits) <= set(SPLITS):
            raise ValueError(f"{where}: expected splits from {SPLITS}, got {sorted(set(self.splits))}")
        if any(Path(stem).name != stem for stem in self.files):
            raise ValueError(f"{where}: expected file stems without folders in files, got {list(self.files)}")


def check_indices(values: Sequence[int] | np.ndarray, count: int, name: str) -> list[int]:
    """Return an argument of indices as a list; negative ones count from the end.

    Raises:
        TypeError: it is not a sequence of integers.
        IndexError: one is out of range.
    """
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes):
        raise TypeError(f"{name}: expected indices below {count}, got {shown(values)}")
    indices = [integer(value, name) for value in values]
    if outside := [index for index in indices if not -count <= index < count]:
        raise IndexError(f"{name}: expected indices below {count}, got {outside[0]}")
    return indices


def write_motion(
    folder: str | os.PathLike, stem: str, frames: np.ndarray, points: np.ndarray | None = None
) -> None:
    """Write the files of one motion, each atomically.

    Args:
        folder: an existing folder.
        stem: file name without extension, as listed in `MotionVideos.files`.
        frames: uint8 [V, T, H, H, 4], straight alpha, sRGB-encoded.
        points: ground-truth surface points, float32 [T, P, 3], world coordinates.

    Raises:
        ValueError: wrong shape or dtype.
    """
    folder = file_path(folder, "write_motion: folder")
    if not isinstance(stem, str) or Path(stem).name != stem:
        raise ValueError(f"write_motion: stem: expected a file name without folders, got {shown(stem)}")
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder (write_motion: folder)", str(folder))
    frames = np.asarray(frames)
    if (
        frames.ndim != 5
        or frames.shape[2] != frames.shape[3]
        or frames.shape[4] != 4
        or frames.dtype != np.uint8
    ):
        raise ValueError(
            f"{stem}: expected uint8 frames [V, T, H, H, 4], got {frames.dtype} {list(frames.shape)}"
        )
    arrays = {stem: frames}
    if points is not None:
        points = array(points, f"{stem}: points").astype(np.float32)
        if points.ndim != 3 or points.shape[0] != frames.shape[1] or points.shape[2] != 3:
            raise ValueError(
                f"{stem}: expected points [T = {frames.shape[1]}, P, 3], got {list(points.shape)}"
            )
        arrays[f"{stem}.points"] = points
    for name, values in arrays.items():
        with atomic_path(folder / f"{name}.npy") as part:
            np.save(part, values)


def shrink(frames: Tensor, height: int, width: int) -> Tensor:
    """Downsample straight-alpha uint8 [..., H, W, 4] by area averages of premultiplied colour."""
    batch = frames.shape[:-3]
    pixels = frames.flatten(0, -4).permute(0, 3, 1, 2).float()
    pixels[:, :3] *= pixels[:, 3:] / 255.0
    small = F.adaptive_avg_pool2d(pixels, (height, width))
    alpha = small[:, 3:]
    small[:, :3] *= torch.where(alpha > 0, 255.0 / alpha.clamp(min=1e-6), 0.0)
    return small.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).reshape(*batch, height, width, 4)


def over(frames: Tensor, background: Background = 1.0) -> tuple[Tensor, Tensor]:
    """Composite straight-alpha uint8 [..., 4] over a colour, a grey or RGB (`renderers.background`).

    Returns:
        Colour float32 [..., 3] and alpha float32 [..., 1], both in [0, 1].
    """
    red, green, blue = background_color(background)
    # A grey stays a number, which needs no copy to the device.
    behind = red if red == green == blue else torch.tensor([red, green, blue], device=frames.device)
    straight = frames.float() / 255.0
    alpha = straight[..., 3:]
    return straight[..., :3] * alpha + behind * (1.0 - alpha), alpha
