"""Evaluation of a DIMO model: image metrics on held-out views, silhouette IoU, rigidity, and 3D motion error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from renderers.arguments import instance, integer, shown
from zoo.dimo.blending import rbf_weights
from zoo.dimo.data import MotionVideos, check_indices, over
from zoo.dimo.model import DIMO
from zoo.dimo.tracks import UNUSED
from zoo.metrics.images import lpips, psnr_from_mse, squared_error, ssim
from zoo.metrics.rigidity import torn_share
from zoo.metrics.silhouettes import intersection_and_union, iou
from zoo.metrics.trajectories import arap_rotations, trajectory_error

SOLID = 0.3  # opacity above which a Gaussian is counted as part of the surface


@torch.no_grad()
def evaluate(
    model: DIMO,
    videos: MotionVideos,
    *,
    latents: Tensor | None = None,
    views: Sequence[int] | None = None,
    resolution: int | None = None,
    every: int = 1,
    perceptual: bool = False,
) -> dict[str, object]:
    """Evaluate a model against videos, rendered on white with the latents' means (z = μ).

    Args:
        latents: [M, Z], one per motion of `videos`. None = the model's own means; `videos` must then hold the training
            motions in training order.
        views: indices of the views to compare; None = the held-out views.
        resolution: in pixels, at most that of the videos, which is the default.
        every: stride over frames; 2 evaluates every second frame.
        perceptual: also compute LPIPS; requires its network weights.

    Returns:
        A dict with the means over motions of psnr (dB, from the mean squared error over a motion's images), ssim, iou
        (silhouettes at alpha 0.5), arap (see `arap_energy`), torn (see `torn`) and, where the folder has surface
        points, motion_error (see `motion_error`) and torn_truth, the same share of the surface points; worst_psnr,
        worst_motion, views, resolution, gaussians; and "motions", one dict per motion with its name and the same
        metrics.

    Raises:
        ValueError: the number of latents differs from the number of motions.
    """
    instance(model, DIMO, "evaluate: model")
    instance(videos, MotionVideos, "evaluate: videos")
    z = model.mu if latents is None else latents
    _check_latents(z, model, videos)
    every = integer(every, "evaluate: every", 1)
    resolution = videos.resolution if resolution is None else integer(resolution, "evaluate: resolution", 1)
    views = check_indices(
        videos.heldout_views if views is None else views, videos.num_views, "evaluate: views"
    )
    if not views:
        raise ValueError("evaluate: views: expected at least one view, got none")
    resolution = min(resolution, videos.resolution)
    frames = list(range(0, videos.frames, every))
    rows = []
    for motion, name in enumerate(videos.names):
        row: dict[str, Any] = {"name": name}
        pictures = _measure(
            model, videos, z[motion : motion + 1], motion, views, frames, resolution, perceptual
        )
        row |= pictures
        row |= _measure_shape(model, videos, z[motion : motion + 1], motion)
        rows.append(row)
    keys = [key for key in rows[0] if key != "name"]
    worst = min(rows, key=lambda row: row["psnr"])
    means = {key: sum(row[key] for row in rows) / len(rows) for key in keys}
    return means | {
        "worst_psnr": worst["psnr"], "worst_motion": worst["name"], "views": views, "resolution": resolution,
        "gaussians": len(model.means), "motions": rows,
    }  # fmt: skip


def still_psnr(videos: MotionVideos, views: Sequence[int] | None = None) -> list[float]:
    """PSNR of a motion's first frame, repeated, against all of its frames, on white; dB, one per motion.

    What a model without any motion reaches: a model that moves as the videos do is above it.

    Args:
        views: indices of the views to compare; None = the held-out views.
    """
    instance(videos, MotionVideos, "still_psnr: videos")
    views = check_indices(
        videos.heldout_views if views is None else views, videos.num_views, "still_psnr: views"
    )
    if not views:
        raise ValueError("still_psnr: views: expected at least one view, got none")
    results = []
    for motion in range(len(videos)):
        frames, _ = over(videos.read([motion], views, range(videos.frames))[0])
        results.append(psnr_from_mse((frames - frames[:, :1]).square().mean()))
    return results


def _check_latents(z: Tensor, model: DIMO, videos: MotionVideos) -> None:
    if not len(videos):
        raise ValueError(f"evaluate: videos: expected at least one motion of {videos.object}, got none")
    if not isinstance(z, Tensor) or z.shape[1:] != model.mu.shape[1:] or z.device.type == "meta":
        raise TypeError(
            f"evaluate: latents: expected a tensor [{len(videos)}, {model.mu.shape[1]}], got {shown(z)}"
        )
    if len(z) != len(videos):
        raise ValueError(
            f"evaluate: {len(videos)} motions of {videos.object}, but {len(z)} latents; pass one latent per motion"
        )


def _measure(
    model: DIMO,
    videos: MotionVideos,
    z: Tensor,
    motion: int,
    views: list[int],
    frames: list[int],
    resolution: int,
    perceptual: bool,
) -> dict[str, float]:
    """Image and silhouette metrics of one motion with latent z [1, Z], over all views and frames."""
    device = z.device
    errors, likeness, distance = [], [], []
    both: Tensor | float = 0.0
    either: Tensor | float = 0.0
    cameras = videos.cameras([motion], views, 1, resolution).to(device)
    for frame in frames:
        target, mask = over(videos.read([motion], views, [frame], resolution)[:, :, 0].to(device))
        phase = torch.tensor([videos.phases[frame]], device=device)
        white = torch.ones(3, device=device)
        picture = model.draw(model.skin(model.trajectories(z, phase)), cameras, background=white)
        image = picture.output("rgb").clamp(0, 1)
        errors.append(squared_error(image, target))
        likeness.append(ssim(image, target).mean())
        if perceptual:
            distance.append(lpips(image, target))
        intersection, union = intersection_and_union(picture.output("alpha"), mask)
        both, either = both + intersection, either + union
    measured = {
        "psnr": psnr_from_mse(torch.stack(errors).mean()),
        "ssim": float(torch.stack(likeness).mean()),
        "iou": iou(both, either),
    }
    return measured | ({"lpips": float(torch.stack(distance).mean())} if perceptual else {})


def _measure_shape(model: DIMO, videos: MotionVideos, z: Tensor, motion: int) -> dict[str, float]:
    """Rigidity and 3D motion error of one motion with latent z [1, Z], in all frames."""
    times = torch.tensor(videos.phases, device=z.device, dtype=torch.float32)
    row = {"arap": float(arap_energy(model, z)), "torn": float(torn(model, z, times))}
    if (points := videos.points(motion)) is not None:
        surface = torch.tensor(points)
        row["torn_truth"] = float(torn_share(surface, surface[0]).max())
        # Points that the model was trained on do not measure it.
        surface = surface[:, UNUSED] if model.config.losses.tracks and surface.shape[1] > 1 else surface
        row["motion_error"] = motion_error(model, z[0], surface, videos.phases)
    return row


@torch.no_grad()
def arap_energy(model: DIMO, z: Tensor, phases: Tensor | None = None) -> Tensor:
    """ARAP energy (`arap_rotations`) of the decoded key points over the motion graph; 0 for a rigid motion.

    Args:
        z: latents, [B, Z].
        phases: [T] in [0, 1]; None = the model's own.

    Returns:
        [B].
    """
    phases = model.phases if phases is None else phases
    return arap_rotations(model.paths(z, phases), model.graph)


@torch.no_grad()
def torn(model: DIMO, z: Tensor, phases: Tensor | None = None) -> Tensor:
    """Share of solid Gaussians that are torn off their neighbours in the worst frame (`zoo.metrics.torn_share`).

    Gaussians of opacity up to `SOLID` are ignored: they are hardly visible. The reference is the canonical pose.

    Args:
        z: latents, [B, Z].
        phases: [T] in [0, 1]; None = the model's own.

    Returns:
        [B] in [0, 1]; 0 if no Gaussian is solid.
    """
    phases = model.phases if phases is None else phases
    solid = model.opacity_logits.float().sigmoid() > SOLID
    if not solid.any():
        return z.new_zeros(len(z))
    reference = model.means[solid]
    shares = [
        torn_share(model.skin(model.trajectories(each[None], phases)).means[:, solid], reference).max()
        for each in z
    ]
    return torch.stack(shares)


@torch.no_grad()
def interpolation_rigidity(model: DIMO, pairs: int = 20, seed: int = 0) -> dict[str, float]:
    """Rigidity of interpolated motions: `arap_energy` at the midpoint of two latents over the larger of the two ends'.

    Args:
        pairs: number of random pairs of training motions.
        seed: seed of the pairs.

    Returns:
        "mean_ratio" and "worst_ratio" over the pairs; at most 1 where midpoints are as rigid as the less rigid end.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.stack([torch.randperm(model.num_motions, generator=generator)[:2] for _ in range(pairs)])
    a, b = model.mu[chosen.to(model.mu.device)].unbind(1)
    between, ends = (
        arap_energy(model, (a + b) / 2),
        torch.maximum(arap_energy(model, a), arap_energy(model, b)),
    )
    ratios = between / ends.clamp(min=1e-12)
    return {"mean_ratio": float(ratios.mean()), "worst_ratio": float(ratios.max())}


@torch.no_grad()
def motion_error(model: DIMO, z: Tensor, points: Tensor, phases: Sequence[float]) -> float:
    """Mean distance in metres between ground-truth surface points and their tracks predicted by the model.

    Each point is bound to the four Gaussians nearest to it in the first frame and moves with their RBF-weighted mean
    displacement.

    Args:
        z: one latent, [Z].
        points: ground truth, [T, P, 3], world coordinates.
        phases: T phases in [0, 1], those of `points`.
    """
    points = points.to(z.device, torch.float32)
    moments = torch.tensor(list(phases), device=z.device, dtype=torch.float32)
    return trajectory_error(tracked_points(model, z, points, moments), points)


@torch.no_grad()
def tracked_points(model: DIMO, z: Tensor, points: Tensor, phases: Tensor) -> Tensor:
    """Tracks predicted by the model, [T, P, 3], of surface points whose first positions are those of the truth.

    Args:
        model: the model.
        z: one latent, [Z].
        points: ground truth, [T, P, 3], world coordinates; only the first frame is used.
        phases: [T] in [0, 1].
    """
    means = model.skin(model.trajectories(z[None], phases)).means
    nearest = torch.cdist(points[0], means[0]).topk(min(4, means.shape[1]), largest=False)
    weights = rbf_weights(nearest.values.square(), nearest.values[:, :1].clamp(min=1e-3))
    moved = ((means - means[:1])[:, nearest.indices] * weights[..., None]).sum(-2)
    return points[:1] + moved
