"""Initial positions for both training stages: uniform in a ball, or on the visual hull of one frame."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.dimo.blending import rbf_weights
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.model import DIMO
from zoo.dimo.points import visual_hull


def points_in_ball(rng: np.random.Generator, count: int, radius: float) -> Tensor:
    """Sample points uniformly in a ball around the origin, [count, 3]; radii follow the cube root of a uniform draw."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return torch.from_numpy(
        (radius * directions * rng.uniform(size=(count, 1)) ** (1 / 3)).astype(np.float32)
    )


def hull_points(run: TrainingContext, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Points [count, 3] and colours [count, 3] from the visual hull of `run.pose`, on the training device."""
    motion, frame = run.pose
    points, colors = visual_hull(run.videos, motion, frame, run.views, count, rng)
    return torch.from_numpy(points).to(run.device), torch.from_numpy(colors).to(run.device)


def carry_back(run: TrainingContext, places: Tensor) -> Tensor:
    """Move points [N, 3] from the pose `run.pose` to the canonical pose by subtracting blended displacements.

    x = x(t) − Σ_k w_k Δ_k(t) over the four key points nearest to x(t), with the weights of paper eq. 1. Rotations are
    ignored: stage 1 does not train them.
    """
    model, videos = run.model, run.videos
    motion, frame = run.pose
    phase = torch.tensor([videos.phases[frame]], device=run.device)
    posed = model.paths(model.mu[motion : motion + 1], phase)[0, 0]
    nearest = torch.cdist(places, posed).topk(min(4, len(posed)), largest=False)
    weights = rbf_weights(nearest.values.square(), model.log_radii.exp()[nearest.indices])
    return places - ((posed - model.key_points)[nearest.indices] * weights[..., None]).sum(1)


@torch.no_grad()
def decode_positions(model: DIMO, videos: MotionVideos) -> Tensor:
    """Key points in every frame of every motion, [M, T, K, 3], decoded from the means of the latents."""
    phases = torch.tensor(videos.phases, device=model.mu.device)
    return torch.cat([model.paths(z, phases) for z in model.mu.split(4)])
