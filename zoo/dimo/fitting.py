"""Latents of motions that were not trained on: only z is optimised, the model stays as it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from renderers.gaussians import Rendered, render
from zoo.dimo.data import MotionVideos
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.model import DIMO
from zoo.dimo.objective import StepReport, decayed_rate, photometric
from zoo.dimo.optimizer import NamedAdam

REPORT_EVERY = 25  # steps between two reports


def fit_latent(
    model: DIMO,
    videos: MotionVideos,
    *,
    steps: int | None = None,
    seed: int = 0,
    on_step: Callable[[StepReport], object] | None = None,
) -> Tensor:
    """Find the latents [M, Z] with which a trained model reproduces the motions of `videos`; only z is optimised.

    Each motion begins at the best of 0 and the latents that the model knows.

    Args:
        steps: those of `config.fit` unless given.
    """
    plan, device = model.config.fit, model.mu.device
    steps = plan.steps if steps is None else steps
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        found = []
        for index in range(len(videos)):
            one, started = videos.select([index]), time.perf_counter()
            feed = Feed(
                one,
                one.train_views[: model.config.views],
                (1, *plan.batch),
                plan.resolutions,
                model.config.latent,
                (seed, 3, index),
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
                            "step": step + 1, "steps": steps, "stage": one.names[0], "loss": loss.item(),
                            "psnr": psnr, "seconds": time.perf_counter() - started,
                        }
                    )  # fmt: skip
            found.append(z.detach())
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
    return torch.cat(found)


@torch.no_grad()
def nearest_latent(model: DIMO, batch: Batch) -> Tensor:
    """The latent [1, Z], among 0 and the trained ones, with the smallest image error on a batch of one motion."""
    candidates = torch.cat([torch.zeros_like(model.mu[:1]), model.mu])
    errors = [photometric(model.config, _show(model, z[None], batch), batch)[1] for z in candidates]
    return candidates[torch.stack(errors).argmin()][None]


def _show(model: DIMO, z: Tensor, batch: Batch) -> Rendered:
    white = torch.ones(3, device=z.device)
    return render(model.skin(model.trajectories(z, batch.phases)), batch.cameras, background=white)
