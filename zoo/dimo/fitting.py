"""Fitting of latents to unseen motions, with all model parameters frozen (methods §4.7)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from renderers.arguments import instance, integer
from renderers.gaussians import Rendered, render
from zoo.dimo.data import MotionVideos
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.model import DIMO
from zoo.dimo.objective import StepReport, decayed_rate, photometric
from zoo.dimo.optimizer import NamedAdam

REPORT_EVERY = 25  # steps between two reports


def _checked(model: DIMO, videos: MotionVideos) -> DIMO:
    instance(model, DIMO, "fit_latent: model")
    instance(videos, MotionVideos, "fit_latent: videos")
    return model


def fit_latent(
    model: DIMO,
    videos: MotionVideos,
    *,
    steps: int | None = None,
    seed: int = 0,
    on_step: Callable[[StepReport], object] | None = None,
) -> Tensor:
    """Fit one latent per motion of `videos` by minimising the photometric loss; only z is optimised (methods §4.7).

    Deviation from the paper, which starts from z ~ N(0, I) or 0: z starts from the best of 0 and the training latents,
    see `nearest_latent`.

    Args:
        model: a trained model. Its trainable parameters are frozen during the fit only.
        videos: M motions; the first `config.views` of their training views are used.
        steps: optimiser steps per motion; None = `config.fit.steps`.
        seed: seed of the batches.
        on_step: called every `REPORT_EVERY` steps and at the last step of a motion with step, steps, stage (the
            motion's name), loss, psnr in dB and seconds since the motion's start. Its result is ignored.
    Returns:
        Latents [M, Z].
    """
    plan, device = _checked(model, videos).config.fit, model.mu.device
    steps = integer(plan.steps if steps is None else steps, "fit_latent: steps", 0)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        latents = []
        for index in range(len(videos)):
            motion, started = videos.select([index]), time.perf_counter()
            feed = Feed(
                motion,
                motion.train_views[: model.config.views],
                (1, *plan.batch),
                plan.resolutions,
                model.config.latent,
                (integer(seed, "fit_latent: seed", 0), 3, index),
            )
            z = nn.Parameter(nearest_latent(model, feed.batch(0).to(device)))
            adam = NamedAdam({"latents": [z]})
            for step, batch in enumerate(feed.batches(0, steps)):
                batch = batch.to(device)
                loss, error = photometric(model.config, _show(model, z, batch), batch)
                loss.backward()
                adam.step({"latents": decayed_rate(plan.latents, step, steps)})
                if on_step and ((step + 1) % REPORT_EVERY == 0 or step + 1 == steps):
                    psnr = -10 * math.log10(max(error.item(), 1e-10))
                    on_step(
                        {
                            "step": step + 1, "steps": steps, "stage": motion.names[0], "loss": loss.item(),
                            "psnr": psnr, "seconds": time.perf_counter() - started,
                        }
                    )  # fmt: skip
            latents.append(z.detach())
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return torch.cat(latents)


@torch.no_grad()
def nearest_latent(model: DIMO, batch: Batch) -> Tensor:
    """The latent [1, Z], among 0 and the trained ones, with the smallest image error on a batch of one motion."""
    candidates = torch.cat([torch.zeros_like(model.mu[:1]), model.mu])
    errors = [photometric(model.config, _show(model, z[None], batch), batch)[1] for z in candidates]
    return candidates[torch.stack(errors).argmin()][None]


def _show(model: DIMO, z: Tensor, batch: Batch) -> Rendered:
    """Render latents [1, Z] at the batch's phases from its cameras, on white."""
    white = torch.ones(3, device=z.device)
    return render(model.skin(model.trajectories(z, batch.phases)), batch.cameras, background=white)
