"""The given videos as the solver compares them, and the model's images beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from renderers.cameras import Cameras
from zoo.animate3d import kernels
from zoo.animate3d.surface import Surface

_LARGEST = 192  # pixels; larger videos are reduced by a whole factor


@dataclass(frozen=True)
class Level:
    """All views and frames at one resolution and blur.

    Attributes:
        targets: float32 [T, V, H, W, 4], premultiplied and blurred.
        extrinsics: float64 [V, 3, 4], unit space to camera. intrinsics: float64 [V, 3, 3], pixels.
        taps: float32 [r + 1], the blur, from its centre outwards.
        pixel: size of a pixel in pixels of the finest level.
    """

    targets: np.ndarray
    extrinsics: np.ndarray
    intrinsics: np.ndarray
    taps: np.ndarray
    pixel: int

    @property
    def halo(self) -> int:
        """Radius in pixels within which uncovered pixels act on the silhouette."""
        return len(self.taps)


@dataclass(frozen=True)
class Views:
    """Videos and cameras in unit space.

    Attributes:
        frames: float32 [T, V, H, W, 4], premultiplied, sRGB-encoded.
        extrinsics: float64 [V, 3, 4]. intrinsics: float64 [V, 3, 3].
        scale: mean pixels per unit at the model's centre.
    """

    frames: np.ndarray
    extrinsics: np.ndarray
    intrinsics: np.ndarray
    _levels: dict[tuple[float, int], Level] = field(default_factory=dict, repr=False)

    @cached_property
    def scale(self) -> float:
        depth = np.maximum(self.extrinsics[:, 2, 3], 1e-3)
        return float((self.intrinsics[:, 0, 0] / depth).mean())

    def level(self, blur: float, pixel: int) -> Level:
        """The videos reduced by `pixel` and blurred with a Gaussian of σ = `blur` pixels of the finest level."""
        key = (blur, pixel)
        if key not in self._levels:
            frames = reduce_frames(self.frames, pixel)
            sigma = blur / pixel
            taps = np.exp(-0.5 * (np.arange(int(np.ceil(2.5 * sigma)) + 1) / sigma) ** 2)
            taps = (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)
            targets = np.empty_like(frames)
            for frame, target in zip(frames, targets, strict=True):
                kernels.blur(frame, taps, target)
            self._levels[key] = Level(
                targets, self.extrinsics, _reduced_intrinsics(self.intrinsics, pixel), taps, pixel
            )
        return self._levels[key]


def make_views(videos: np.ndarray, cameras: Cameras, centre: np.ndarray, scale: float) -> Views:
    """Premultiply the videos and transform the cameras to unit space.

    Args:
        videos: float [V, T, H, W, 4], straight RGBA, 0-1.
        cameras: in the coordinates of the model (`Asset.positions`).
        centre, scale: x_unit = (x_model - centre) / scale.
    """
    frames = np.ascontiguousarray(np.asarray(videos, np.float32).swapaxes(0, 1))
    frames = np.concatenate([frames[..., :3] * frames[..., 3:], frames[..., 3:]], -1)
    pixel = int(np.ceil(max(frames.shape[2:4]) / _LARGEST))
    unit_to_model = np.eye(4)
    unit_to_model[:3, :3] *= scale
    unit_to_model[:3, 3] = centre
    extrinsics = cameras.world_to_camera @ unit_to_model
    # Camera coordinates in units: depth is then in units too, and projection does not change.
    extrinsics = extrinsics[:, :3] / np.cbrt(np.linalg.det(extrinsics[:, :3, :3]))[:, None, None]
    return Views(
        np.ascontiguousarray(reduce_frames(frames, pixel)),
        np.ascontiguousarray(extrinsics),
        _reduced_intrinsics(cameras.K, pixel),
    )


def reduce_frames(frames: np.ndarray, pixel: int) -> np.ndarray:
    """Box-filter [T, V, H, W, 4] by a whole factor; the bottom and right are padded with transparency."""
    if pixel == 1:
        return frames
    T, V, H, W, C = frames.shape
    padded = np.pad(frames, ((0, 0), (0, 0), (0, -H % pixel), (0, -W % pixel), (0, 0)))
    blocks = padded.reshape(T, V, padded.shape[2] // pixel, pixel, padded.shape[3] // pixel, pixel, C)
    return blocks.mean((3, 5), dtype=np.float32)


def _reduced_intrinsics(K: np.ndarray, pixel: int) -> np.ndarray:
    """Intrinsics for pixels that are `pixel` times as large; image coordinates begin at the corner of the image."""
    return np.ascontiguousarray(np.diag([1 / pixel, 1 / pixel, 1.0]) @ K)


class Canvas:
    """Buffers for images of the model at one size."""

    def __init__(self, views: int, height: int, width: int) -> None:
        s = kernels.SUPER
        self.depth = np.empty((views, s * height, s * width), np.float32)
        self.face = np.empty((views, s * height, s * width), np.int32)
        self.weights = np.empty((views, s * height, s * width, 2), np.float32)
        self.image = np.empty((views, height, width, 4), np.float32)
        self.blurred = np.empty_like(self.image)
        self.sample = np.empty((views, height, width), np.int32)
        self._samples = np.diag([s, s, 1.0])

    def draw(self, surface: Surface, points: np.ndarray, colors: np.ndarray, level: Level) -> None:
        """Draw the surface at `points` float64 [n, 3] in `colors` float32 [N, 3]: `image`, `blurred`, `sample`."""
        intrinsics = np.ascontiguousarray(self._samples @ level.intrinsics)
        kernels.rasterise(
            points, surface.faces, level.extrinsics, intrinsics, self.depth, self.face, self.weights
        )
        kernels.shade(
            self.depth, self.face, self.weights, surface.shading_faces, colors, self.image, self.sample
        )
        kernels.blur(self.image, level.taps, self.blurred)
