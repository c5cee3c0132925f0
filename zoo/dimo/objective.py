"""The weighted losses that both stages of DIMO's training share, and the schedule of learning rates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from renderers.gaussians import Rendered
from zoo.dimo import losses
from zoo.dimo.config import DIMOConfig, LossWeights, Rate
from zoo.dimo.data import over
from zoo.dimo.feed import Batch
from zoo.dimo.model import DIMO

StepReport = dict[str, object]


class StepLoss(NamedTuple):
    """Result of a step: the loss that was minimised, and the mean squared colour error for reports."""

    loss: Tensor
    error: Tensor


def latents(model: DIMO, batch: Batch) -> Tensor:
    """One z per motion of the step, [M', Z]: z = μ + σ·ε with σ = exp(log σ² / 2) (eq. 5), or μ itself."""
    mu = model.mu[batch.motions]
    if not model.config.latent_space:
        return mu.detach()
    if not model.config.latent_distribution:
        return mu
    return mu + (0.5 * model.log_var[batch.motions]).exp() * batch.noise


def photometric(config: DIMOConfig, picture: Rendered, batch: Batch) -> tuple[Tensor, Tensor]:
    """The weighted image losses (eq. 8), and the mean squared colour error.

    `batch.share`, the fraction of the image that the crop covers, makes crops count as much as whole images.
    """
    weights, share = config.losses, batch.share
    target, mask = over(batch.targets)
    rgb, alpha = picture.output("rgb"), picture.output("alpha")
    error = losses.squared_error(rgb, target) * share
    loss = weights.rgb * renders_per_motion(batch) * error
    loss = loss + weights.mask * share * losses.squared_error(alpha, mask)
    if weights.ssim:
        loss = loss + weights.ssim * share * (1 - losses.ssim(rgb, target)).mean()
    if weights.lpips:
        loss = loss + weights.lpips * share * losses.lpips(rgb, target)
    if picture.depth is not None:
        depth = picture.depth * alpha
        loss = loss + weights.depth * share * losses.depth_smoothness(depth, rgb.detach())
    if picture.normal is not None:
        loss = loss + weights.normal * share * losses.normal_smoothness(picture.normal, rgb.detach())
    return loss, error


def latent_loss(config: DIMOConfig, model: DIMO, batch: Batch) -> Tensor | float:
    """The weighted KL divergence of the step's latents from the standard normal (eq. 10), mean over motions."""
    if not (config.latent_space and config.latent_distribution and config.losses.kl):
        return 0.0
    divergence = losses.kl_divergence(model.mu[batch.motions], model.log_var[batch.motions])
    return config.losses.kl * divergence.mean()


def rigidity_loss(
    model: DIMO,
    points: Tensor,
    log_radii: Tensor,
    positions: Tensor,
    z: Tensor,
    batch: Batch,
    graph: Tensor | None = None,
) -> Tensor | float:
    """The weighted ARAP losses (eq. 9, or its form on distances) of the step's motions and of interpolations.

    See `losses.arap_distances` and `losses.arap_rotations`. Without a graph, neighbours are the nearest at rest.
    """
    config, weights = model.config, model.config.losses
    loss: Tensor | float = 0.0
    if graph is None:
        with torch.no_grad():
            size = min(config.graph, len(points))
            graph = torch.cdist(points, points).topk(size, largest=False).indices
    radii = log_radii.exp().expand(len(points))
    if weights.arap and config.arap == "distances":
        loss = loss + weights.arap * losses.arap_distances(positions, points, graph, radii).mean()
    elif weights.arap:
        moments = torch.arange(8, device=z.device) / 8
        offsets, _ = model.decoder(points.detach(), moments, z)
        loss = loss + weights.arap * losses.arap_rotations(points.detach() + offsets, graph).mean()
    if weights.between and len(z) > 1:
        loss = (
            loss + weights.between * excess_between(model, points, positions, z, batch, graph, radii).mean()
        )
    return loss


def excess_between(
    model: DIMO, points: Tensor, positions: Tensor, z: Tensor, batch: Batch, graph: Tensor, radii: Tensor
) -> Tensor:
    """Excess rigidity energy of interpolated motions over the less rigid of their two ends, [M' // 2].

    Rigidity is `losses.arap_distances`. As a share of the less rigid end's, since what shows between two quiet motions
    would be nothing beside a lively one; 0 where it is no larger.
    """
    pairs = len(z) // 2
    first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    mixed = torch.lerp(z[first], z[second], batch.blend[first, None])
    offsets, _ = model.decoder(points, batch.phases, mixed)
    between = losses.arap_distances(points + offsets, points, graph, radii)
    with torch.no_grad():
        ends = losses.arap_distances(positions, points, graph, radii)
        ends = torch.maximum(ends[first], ends[second])
    return (between / ends.clamp(min=1e-6) - 1).relu()


def wanted_outputs(weights: LossWeights, smooth: bool) -> tuple[str, ...]:
    extra = [name for name in ("depth", "normal") if smooth and getattr(weights, name)]
    return "rgb", "alpha", *extra


def renders_per_motion(batch: Batch) -> int:
    """Images per motion in the step. The published colour loss is a sum over them, ours a mean times this."""
    return batch.targets.shape[1] * len(batch.frames)


def views_per_motion(batch: Batch) -> int:
    return batch.targets.shape[1]


def decayed_rate(rate: Rate, step: int, steps: int) -> float:
    start, end = rate
    return start * (end / start) ** min(1.0, step / max(1, steps))
