"""Weighted losses used by both training stages, and the learning-rate schedule (paper §3.3, eq. 5 and 8–10)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from renderers.gaussians import Rendered
from renderers.values import by_value
from zoo.dimo import losses
from zoo.dimo.config import DIMOConfig, LossWeights, Rate
from zoo.dimo.data import over
from zoo.dimo.feed import Batch
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.tracks import KeyPointTracks

StepReport = dict[str, object]


@by_value
class StepLoss(NamedTuple):
    """Result of one step.

    Attributes:
        loss: the minimised loss, a scalar.
        error: mean squared colour error, a scalar for progress reports; of alpha where only silhouettes are used, None
            where nothing is rendered.
    """

    loss: Tensor
    error: Tensor | None


def latents(model: DIMO, batch: Batch) -> Tensor:
    """Sample one latent per motion of the step by the reparameterisation of paper eq. 5.

    z_m = μ_m + σ_m ⊙ ε with σ_m = exp(½ log σ_m²) and ε ~ N(0, I) from `batch.noise`; z_m = μ_m if
    `latent_distribution` is off. Without a latent space, μ is a constant and receives no gradient.

    Returns:
        [M', Z].
    """
    mu = model.mu[batch.motions]
    if not model.config.latent_space:
        return mu.detach()
    if not model.config.latent_distribution:
        return mu
    return mu + (0.5 * model.log_var[batch.motions]).exp() * batch.noise


def photometric(config: DIMOConfig, picture: Rendered, batch: Batch) -> tuple[Tensor, Tensor]:
    """Weighted image losses: L_rgb + L_mask + L_lpips + L_depth + L_normal of paper eq. 8, and SSIM (methods §4.5).

    Means over a crop are multiplied by `batch.share`, the crop's fraction of the image area, so that they equal means
    over the whole image.

    Returns:
        The weighted loss and the unweighted mean squared colour error, both scalars.
    """
    weights, share = config.losses, batch.share
    # The published colour loss is a sum over a motion's renders, hence the factor; the other terms are means.
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
    """Weighted KL divergence of N(μ_m, σ_m²) from N(0, I), mean over the motions of the step (L_KL, paper eq. 10)."""
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
    """Weighted ARAP loss of the step's motions (L_arap, paper eq. 9) and the loss `between` of interpolated motions.

    `config.arap` selects the form: "distances" is `losses.arap_distances` (eq. 9), "rotations" is
    `losses.arap_rotations` (the form of the published code, methods §4.5).

    Args:
        points: canonical key points p_k, [K, 3].
        log_radii: log r_k, [K], or [1] if all key points share one radius.
        positions: p_k(t) at `batch.phases`, [M', T', K, 3].
        z: latents of the step, [M', Z].
        graph: Ω, int64 [K, G]; None = the nearest key points in the canonical pose.
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
        # The published code draws 8 random phases; evenly spaced ones cover the whole motion in every step.
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
    """Relative excess ARAP energy of interpolated motions (not in the paper): max(0, E(z_ab) / max(E(a), E(b)) − 1).

    z_ab interpolates latents a and b linearly with a random weight; consecutive motions of the step form the pairs. E
    is `losses.arap_distances`. The ratio makes pairs of small motions count as much as pairs of large ones. The
    denominator receives no gradient, so the loss cannot be lowered by making the ends less rigid.

    Args:
        points, positions, z, graph: as in `rigidity_loss`.
        radii: r_k, [K].

    Returns:
        One value per pair, [M' // 2].
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


def track_loss(
    model: DIMO, tracks: KeyPointTracks, motion: KeyPointMotion, z: Tensor, batch: Batch, reach: Tensor
) -> Tensor:
    """Weighted `losses.track_error` of the key points and of the root motion, mean over motions and frames of the step.

    Args:
        motion: p_k(t) and q_k(t) at `batch.phases`, [M', T', K, …].
        z: latents of the step, [M', Z].
        reach: distance from a key point at which its rotation counts as much as its position, world units.
    """
    rows = batch.motions[:, None], batch.frames[None]
    error = losses.track_error(
        motion.positions, motion.rotations, tracks.positions[rows], tracks.rotations[rows], reach
    )
    if model.decoder.root is not None:
        # One more point: the object as a whole, whose rotation counts at the object's root mean square radius.
        size = (tracks.points - tracks.points.mean(0)).square().sum(-1).mean().sqrt()
        shift, turn = model.decoder.root(batch.phases, z)
        targets = tracks.root_shifts[rows][..., None, :], tracks.root_rotations[rows][..., None, :, :]
        error = error + losses.track_error(shift[..., None, :], turn[..., None, :], *targets, size)
    return model.config.losses.tracks * error.mean()


def wanted_outputs(weights: LossWeights, smooth: bool) -> tuple[str, ...]:
    """Renderer outputs that the losses need; depth and normals only where `smooth` and their weights are non-zero."""
    extra = [name for name in ("depth", "normal") if smooth and getattr(weights, name)]
    return "rgb", "alpha", *extra


def renders_per_motion(batch: Batch) -> int:
    """C·T', the number of images per motion in the step."""
    return batch.targets.shape[1] * len(batch.frames)


def views_per_motion(batch: Batch) -> int:
    """C, the number of views per motion in the step."""
    return batch.targets.shape[1]


def decayed_rate(rate: Rate, step: int, steps: int) -> float:
    """Exponential decay start · (end / start)^(step / steps), constant after `steps` (methods §4.6)."""
    start, end = rate
    return start * (end / start) ** min(1.0, step / max(1, steps))
