"""Fitting of latents to unseen motions, with all model parameters frozen (methods §4.7)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from renderers.arguments import array, instance, integer
from renderers.gaussians import Rendered
from renderers.gaussians.features import rotation_matrices
from zoo.dimo.data import MotionVideos
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.model import DIMO
from zoo.dimo.objective import StepReport, decayed_rate, photometric
from zoo.dimo.optimizer import NamedAdam
from zoo.dimo.tracks import mirrored_paths, symmetric

REPORT_EVERY = 25  # steps between two reports
SCAN = (3, 4), ((0, 64),)  # views and frames, and their size in pixels, by which starting points are compared
# As `SYMMETRIC`, of key points: these are spread evenly, so that points of the surface are within about half of their
# spacing of one. Of eleven symmetric creatures, mirrored key points are at 0.46 to 0.54 of it, of the snake at 1.05.
EVENLY = 0.75
TRIED, TRIAL = 3, 100  # starting points from which a fit is begun, and steps after which the best one goes on
SEARCH = 60, (5e-2, 3e-3)  # steps, and learning rates, of `nearest_latents`
SEARCHED = 4, 16  # frames and key points of such a step


def _checked(model: DIMO, videos: MotionVideos) -> DIMO:
    instance(model, DIMO, "fit_latent: model")
    instance(videos, MotionVideos, "fit_latent: videos")
    if not len(videos):
        raise ValueError(f"fit_latent: videos: expected at least one motion of {videos.object}, got none")
    return model


def _checked_starts(model: DIMO, starts: Tensor) -> Tensor:
    instance(starts, Tensor, "fit_latent: starts")
    array(starts.detach().cpu(), "fit_latent: starts", ("C", model.mu.shape[1]))
    if not len(starts):
        raise ValueError("fit_latent: starts: expected at least one latent, got none")
    return starts.detach().to(model.mu)


def fit_latent(
    model: DIMO,
    videos: MotionVideos,
    *,
    steps: int | None = None,
    seed: int = 0,
    starts: Tensor | None = None,
    on_step: Callable[[StepReport], object] | None = None,
) -> Tensor:
    """Fit one latent per motion of `videos` by minimising the photometric loss; only z is optimised (methods §4.7).

    Deviation from the paper, which starts from z ~ N(0, I) or 0: z starts from the `TRIED` of `starting_latents` whose
    pictures are nearest (`picture_errors`), and goes on from the one that is best after `TRIAL` steps. From one start
    alone, fits end 10 dB apart by chance.

    Args:
        model: a trained model. Its trainable parameters are frozen during the fit only.
        videos: M motions; the first `config.views` of their training views are used.
        steps: optimiser steps per motion; None = `config.fit.steps`.
        seed: seed of the batches.
        starts: latents [C, Z] to choose the first one from; None = `starting_latents(model)`, which takes as long
            as the fit of one motion. Pass them if motions are fitted in several calls.
        on_step: called every `REPORT_EVERY` steps and at the last step of a motion with step, steps, stage (the
            motion's name), loss and psnr in dB of the best start, and seconds since the motion's start. Its result
            is ignored.
    Returns:
        Latents [M, Z].
    """
    plan = _checked(model, videos).config.fit
    steps = integer(plan.steps if steps is None else steps, "fit_latent: steps", 0)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        starts = starting_latents(model) if starts is None else _checked_starts(model, starts)
        draws = integer(seed, "fit_latent: seed", 0), 3
        latents = [
            _fit_one(model, videos.select([index]), starts, steps, (*draws, index), on_step)
            for index in range(len(videos))
        ]
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return torch.cat(latents)


def _fit_one(
    model: DIMO,
    motion: MotionVideos,
    starts: Tensor,
    steps: int,
    draws: tuple[int, ...],
    on_step: Callable[[StepReport], object] | None,
) -> Tensor:
    """The latent [1, Z] of a single motion, see `fit_latent`."""
    plan, started = model.config.fit, time.perf_counter()
    views, latent = motion.train_views[: model.config.views], model.config.latent
    scan = Feed(motion, views, (1, *SCAN[0]), SCAN[1], latent, draws).batch(0).to(model.mu.device)
    feed = Feed(motion, views, (1, *plan.batch), plan.resolutions, latent, draws)
    errors = picture_errors(model, scan, starts)
    nearest = errors.topk(min(TRIED, len(starts)), largest=False).indices
    fits = [_Fit(starts[start : start + 1]) for start in nearest.tolist()]
    for step, batch in enumerate(feed.batches(0, steps)):
        if step == TRIAL:
            fits = [_best(model, scan, fits)]
        batch, rate = batch.to(model.mu.device), decayed_rate(plan.latents, step, steps)
        results = [each.advance(model, batch, rate) for each in fits]
        if on_step and ((step + 1) % REPORT_EVERY == 0 or step + 1 == steps):
            loss, error = min((loss.item(), error.item()) for loss, error in results)
            on_step(
                {
                    "step": step + 1, "steps": steps, "stage": motion.names[0], "loss": loss,
                    "psnr": -10 * math.log10(max(error, 1e-10)), "seconds": time.perf_counter() - started,
                }
            )  # fmt: skip
    return _best(model, scan, fits).z.detach()


def starting_latents(model: DIMO) -> Tensor:
    """Latents [C, Z] that a fit may start from: 0, those of the training motions, and those of their mirror images.

    Mirror images, which `zoo.dimo.polish` teaches the decoder, have no latents of their own in a model. They are
    searched for by the paths of the key points. There are none if the object is not symmetric about the plane x = 0.
    """
    known = torch.cat([torch.zeros_like(model.mu[:1]), model.mu]).detach()
    config, points = model.config, model.key_points.detach()
    if not (config.factorised and config.latent_space and symmetric(points, EVENLY)):
        return known
    with torch.no_grad():
        motion = model.trajectories(model.mu, model.phases)
        wanted = mirrored_paths(model.key_points, motion.positions, rotation_matrices(motion.rotations))
    draws = np.random.default_rng
    return torch.cat([known, nearest_latents(model, model.phases, wanted, lambda step: draws([3, step]))])


def nearest_latents(
    model: DIMO, phases: Tensor, wanted: Tensor, draws: Callable[[int], np.random.Generator]
) -> Tensor:
    """Latents [M, Z] whose motions are nearest to paths of the key points, with the decoder as it is.

    Each search starts at the training motion that is nearest to it (positions in four or five frames).

    Args:
        phases: of the frames, [T].
        wanted: positions of the key points, [M, T, K, 3].
        draws: random numbers of a step.
    """
    (steps, rates), (frames, points) = SEARCH, SEARCHED
    with torch.no_grad():
        some = slice(None, None, max(1, len(phases) // 4))
        paths = model.paths(model.mu, phases[some])
        apart = [(paths - each).square().sum(-1).mean((1, 2)).argmin() for each in wanted[:, some]]
    z = nn.Parameter(model.mu.detach()[torch.stack(apart)])
    adam = NamedAdam({"latents": [z]})
    for step in range(steps):
        rng = draws(step)
        t, k = (
            torch.from_numpy(rng.choice(count, min(size, count), replace=False)).to(wanted.device)
            for count, size in ((len(phases), frames), (len(model.key_points), points))
        )
        chosen = model.key_points.detach()[k]
        places = chosen + model.decoder(chosen, phases[t], z)[0]
        error = (places - wanted[:, t][:, :, k]).square().sum(-1).mean((1, 2)).sum()
        (z.grad,) = torch.autograd.grad(error, [z])
        adam.step({"latents": decayed_rate(rates, step, steps)})
    return z.detach()


@torch.no_grad()
def picture_errors(model: DIMO, batch: Batch, latents: Tensor) -> Tensor:
    """Mean squared error of the pictures of latents [C, Z] on a batch of one motion, [C]."""
    return torch.stack([photometric(model.config, _show(model, z[None], batch), batch)[1] for z in latents])


class _Fit:
    """A latent z [1, Z] that is being fitted, and its optimiser."""

    def __init__(self, start: Tensor) -> None:
        self.z = nn.Parameter(start.clone())
        self.adam = NamedAdam({"latents": [self.z]})

    def advance(self, model: DIMO, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """Take one step of Adam; returns the loss and the mean squared error before it."""
        loss, error = photometric(model.config, _show(model, self.z, batch), batch)
        loss.backward()
        self.adam.step({"latents": rate})
        return loss, error


def _best(model: DIMO, scan: Batch, fits: list[_Fit]) -> _Fit:
    """That whose pictures are nearest to a batch of one motion."""
    if len(fits) == 1:
        return fits[0]
    return fits[int(picture_errors(model, scan, torch.cat([each.z for each in fits])).argmin())]


def _show(model: DIMO, z: Tensor, batch: Batch) -> Rendered:
    """Render latents [1, Z] at the batch's phases from its cameras, on white."""
    white = torch.ones(3, device=z.device)
    return model.draw(model.skin(model.trajectories(z, batch.phases)), batch.cameras, background=white)
