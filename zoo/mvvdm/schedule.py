"""The noise schedule of MV-VDM, shared by training, network and sampler.

It is AnimateDiff's, linear in β: β_t rises from 0.00085 to 0.012 over 1000 steps, ᾱ_t = ∏_{s≤t} (1 − β_s), and

    z_t = √ᾱ_t · z_0 + √(1 − ᾱ_t) · ε,   ε ~ N(0, 1)

Stable Diffusion and MVDream use "scaled_linear" instead, so their scheduler configs do not fit these weights.
"""

from __future__ import annotations

from functools import cache

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012


@cache
def signal_levels(device: torch.device | str = "cpu") -> Tensor:
    """ᾱ [1000], the fraction of the variance that is signal at each time step."""
    betas = torch.linspace(FIRST_BETA, LAST_BETA, STEPS)
    return (1 - betas).cumprod(0).to(device)


def signal_at(timestep: Tensor, like: Tensor) -> Tensor:
    """ᾱ at the time steps of a batch, shaped to be multiplied with a tensor [B, …].

    Args:
        timestep: [B], 0..999. Fractions, which some samplers use, are rounded.
        like: tensor [B, …] that gives type, device and number of dimensions.

    Returns:
        [B, 1, 1, …].
    """
    levels = signal_levels(timestep.device)[timestep.round().long()].to(like)
    return levels.view(-1, *[1] * (like.ndim - 1))


def mvvdm_scheduler(prediction_type: str = "epsilon", timestep_spacing: str = "leading") -> DDIMScheduler:
    """The sampler of Animate3D: DDIM on the training schedule.

    Args:
        prediction_type: what the network predicts, in diffusers' terms: "epsilon" (noise, the published network),
            "sample" or "v_prediction".
        timestep_spacing: "leading", as published, begins at t = 961 of 999 with 25 steps; "trailing" begins at t = 999
            for any number of steps (Lin et al. 2024).
    """
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=FIRST_BETA,
        beta_end=LAST_BETA,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
        timestep_spacing=timestep_spacing,
        prediction_type=prediction_type,
    )
