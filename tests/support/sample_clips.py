"""Clips with known content: an anti-aliased disc, whose colour encodes the view and whose position the frame."""

from __future__ import annotations

import colorsys
from functools import cache

import numpy as np

from factory.assets.licences import attribution
from factory.dataset.schema import MOTION_COLUMNS, ClipInfo, make_row
from renderers.cameras import orbit_cameras
from renderers.meshes.clip import RenderedClip, RenderSettings

FPS = 24


def disc_colour(view: int, views: int) -> tuple[int, ...]:
    """Return a different saturated colour for each view."""
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(view / views, 0.8, 0.9))


@cache
def disc_coverage(frame: int, frames: int, size: int) -> np.ndarray:
    """Return the fraction of each pixel that the disc covers, float [size, size], from 8 x 8 samples per pixel."""
    y, x = (np.mgrid[: 8 * size, : 8 * size] + 0.5) / 8.0
    inside = np.hypot(x - size * (0.35 + 0.3 * frame / frames), y - 0.47 * size) < 0.3 * size
    return inside.reshape(size, 8, size, 8).mean(axis=(1, 3))


def disc_clip(views: int = 16, frames: int = 8, size: int = 64) -> RenderedClip:
    pixels = np.zeros((views, frames, size, size, 4), np.uint8)
    for frame in range(frames):
        pixels[:, frame, ..., 3] = np.rint(255 * disc_coverage(frame, frames, size))
    for view in range(views):
        pixels[view, ..., :3] = disc_colour(view, views)
    pixels[pixels[..., 3] == 0] = 0
    cameras = orbit_cameras(
        np.deg2rad(5.0 + 360.0 / views * np.arange(views)),
        np.deg2rad(20.0),
        3.0,
        fov_y=np.deg2rad(40.0),
        width=size,
        height=size,
    )
    return RenderedClip(pixels, cameras, 0.25 + np.arange(frames) / FPS, "discs 1 (numpy)")


def clip_info(views: int = 16, **changes: object) -> ClipInfo:
    values: dict = {
        "clip_id": "disc",
        "split": "train",
        "asset_uid": "disc-1",
        "asset_sha256": "ab" * 32,
        "source": "tests",
        "source_url": "https://example.org/disc",
        "title": "Disc",
        "author": "Ada",
        "licence": "CC-BY-4.0",
        "attribution": attribution("Disc", "Ada", "https://example.org/disc", "CC-BY-4.0"),
        "noai": "no",
        "noai_checked_at": "2025-01-31",
        "animation_name": "roll",
        "animation_index": 0,
        "window": "first",
        "start_time": 0.25,
        "end_time": 0.25 + 7 / FPS,
        "fps": FPS,
        "elevation_deg": 20.0,
        "azimuth_offset_deg": 5.0,
        "azimuths_deg": 5.0 + 360.0 / views * np.arange(views),
        "distance": 3.0,
        "fov_y_deg": 40.0,
        "asset_to_world": np.diag([1 / 3, 1 / 3, 1 / 3, 1.0]),
        "renderer": "opengl",
        "settings": RenderSettings(samples=16),
        "package_version": "0.1.0",
        "seed": 7,
        "motion": {name: 0.1 * index for index, name in enumerate(MOTION_COLUMNS)},
    }
    return ClipInfo(**{**values, **changes})


@cache
def disc_row(views: int = 16, frames: int = 8) -> dict:
    """Return a cached row with the disc; copy it before changing it."""
    return make_row(disc_clip(views, frames), clip_info(views))


def psnr(picture: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """Return the PSNR over the pixels `where`, dB, of 8-bit images."""
    error = picture.astype(np.float64)[where] - truth.astype(np.float64)[where]
    return float(10 * np.log10(255.0**2 / np.mean(error**2))) if error.any() else np.inf


def silhouette_band(alpha: np.ndarray) -> np.ndarray:
    """bool [T, H, W]: pixels within 2 of the border between covered and not."""
    from scipy.ndimage import binary_dilation, binary_erosion

    cross = np.zeros((3, 3, 3), bool)
    cross[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    mask = alpha >= 128
    return binary_dilation(mask, cross, iterations=2) & ~binary_erosion(mask, cross, iterations=2)
