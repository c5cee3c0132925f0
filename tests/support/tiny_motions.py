"""A small object of coloured balls that bends in two ways, as a folder of motion videos made with splats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, render
from zoo.dimo.config import DIMOConfig, Joint, LatentFit, LossWeights, Pretraining
from zoo.dimo.data import MotionVideos, write_motion

FRAMES, VIEWS = 5, 6


def tiny_videos(folder: Path, motions: int = 3, resolution: int = 32) -> MotionVideos:
    """M motions × 6 views (4 to train) × 5 frames; all motions start in the same pose."""
    azimuths = np.linspace(0, 2 * np.pi, VIEWS, endpoint=False)
    cameras = orbit_cameras(azimuths, 0.2, 2.0, fov_y=np.deg2rad(33.9), width=resolution, height=resolution)
    names = [f"motion {m}" for m in range(motions)]
    for m, name in enumerate(names):
        points = np.stack([_pose(m, t / FRAMES) for t in range(FRAMES)]).astype(np.float32)
        write_motion(folder, name, _draw(points, cameras), points)
    videos = MotionVideos(
        folder, "caterpillar", names, [f"does {name}" for name in names], ["train"] * (motions - 1) + ["heldout"],
        names, FRAMES, resolution, [t / FRAMES for t in range(FRAMES)],
        np.tile(cameras.world_to_camera, (motions, 1, 1, 1)), np.tile(cameras.K, (motions, 1, 1, 1)),
        range(4), range(4, VIEWS), {"licence": "CC0-1.0"},
    )  # fmt: skip
    videos.write()
    return videos


def tracked_videos(folder: Path, tracked: list[np.ndarray | None]) -> MotionVideos:
    """Motions [T, P, 3] as motion videos without anything to see."""
    T = max(len(points) for points in tracked if points is not None)
    names = [f"motion {m}" for m in range(len(tracked))]
    for name, points in zip(names, tracked, strict=True):
        write_motion(folder, name, np.zeros((1, T, 8, 8, 4), np.uint8), points)
    eyes = np.tile(np.eye(4), (len(names), 1, 1, 1)), np.tile(np.eye(3), (len(names), 1, 1, 1))
    return MotionVideos(
        folder, "cloud", names, names, ["train"] * len(names), names, T, 8, np.arange(T) / T, *eyes, [0], []
    )


def tiny_config(**changes: object) -> DIMOConfig:
    """A model and a schedule that train in one or two seconds."""
    values = {
        "key_points": 12, "gaussians": 150, "latent": 4, "width": 32, "depth": 3, "skip": 1, "frames": FRAMES,
        "views": 4, "resolution": 32, "latent_spread": 0.5, "latent_log_var": -5.0, "arap": "distances",
        "losses": LossWeights(lpips=0.0, ssim=0.0, depth=0.0, normal=0.0, between=1.0),
        "pretraining": Pretraining(
            steps=12, batch=(2, 2, 2), resolutions=((0, 16),), initial="hull", alpha_only=True, densify_every=0,
            anneal_at=(), arap_from=0, decoder=(1e-3, 1e-3), final_opacity=0.0,
        ),
        "joint": Joint(
            steps=12, batch=(2, 2, 2), resolutions=((0, 16), (6, 32)), prune_every=5, decoder=(1e-3, 1e-4),
            means=(1e-3, 1e-4), colors=(2e-2, 2e-3), graph_every=4,
        ),
        "fit": LatentFit(steps=10, batch=(2, 2), resolutions=((0, 32),), latents=(3e-2, 3e-3)),
    }  # fmt: skip
    return DIMOConfig(**(values | changes))


def _pose(motion: int, phase: float) -> np.ndarray:
    """A row of balls along x: motion 0 bends up, motion 1 towards +Z, the others between."""
    along = np.linspace(-0.35, 0.35, 15)
    bend = 0.6 * np.sin(np.pi * phase) * along**2
    direction = {0: (1.0, 0.0), 1: (0.0, 1.0)}.get(motion, (0.7, 0.7))
    return np.stack([along, bend * direction[0], bend * direction[1]], -1)


def _draw(points: np.ndarray, cameras) -> np.ndarray:
    count = points.shape[1]
    colors = torch.stack(
        [torch.linspace(0.1, 0.9, count), torch.full((count,), 0.4), torch.linspace(0.9, 0.1, count)], -1
    )
    gaussians = Gaussians(
        torch.from_numpy(points), torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4), torch.full((1, count, 3), 0.05),
        torch.full((1, count), 0.95), colors=colors[None],
    )  # fmt: skip
    picture = render(gaussians, TensorCameras.from_cameras(cameras))
    straight = picture.rgb / picture.alpha.clamp(min=1e-6)
    frames = torch.cat([straight, picture.alpha], -1).clamp(0, 1).mul(255).round().byte()
    return frames.transpose(0, 1).numpy()
