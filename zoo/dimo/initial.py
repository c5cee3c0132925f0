"""Initial positions for both training stages: in a ball, or on the visual hull of one frame; and more key points."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.dimo.blending import rbf_weights
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.model import DIMO
from zoo.dimo.points import spacing, visual_hull


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


@torch.no_grad()
def add_key_points(run: TrainingContext) -> DIMO:
    """`run.model` with `run.config.key_points` key points, which are those of `run.tracks`; the Gaussians stay.

    The decoder is a function of a key point's place, so the new ones move as it says for places between the old ones,
    until it is trained with them. Radii follow the key points' spacing.

    Raises:
        ValueError: the videos have no tracks, or the model's key points are not the first of theirs, as those of a
            model are that was trained on the same tracks with fewer key points.
    """
    model, tracks = run.model, run.tracks
    old = model.key_points
    if tracks is None or len(tracks.points) <= len(old) or not torch.equal(tracks.points[: len(old)], old):
        raise ValueError(
            f"add_key_points: the {len(old)} key points of the model are not the first of {run.config.key_points} "
            f"tracked ones of {run.videos.folder}"
        )
    points = tracks.points
    nearest = torch.cdist(points, old).argmin(1)
    closer = spacing(points).mean() / spacing(old).mean()
    links = min(run.config.graph, len(points))
    state = model.state_dict() | {
        "key_points": points,
        "log_radii": model.log_radii[nearest] + closer.log(),
        "graph": nearest.new_zeros(len(points), links),  # computed by `refresh`
        "neighbours": nearest.new_zeros(len(model.means), min(run.config.neighbours, links)),
    }
    more = DIMO.from_state(run.config, state).to(run.device)
    more.refresh()
    return more
