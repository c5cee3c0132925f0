"""How noisy each time step is: AnimateDiff's linear schedule (methods §2.7), which sampler and network share."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

STEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012


@cache
def signal_levels(device: torch.device | str = "cpu") -> Tensor:
    """ᾱ [1000]: which part of the variance is still signal at each time step."""
    betas = torch.linspace(FIRST_BETA, LAST_BETA, STEPS)
    return (1 - betas).cumprod(0).to(device)


def signal_at(timestep: Tensor, like: Tensor) -> Tensor:
    """ᾱ of each example, [B, 1, 1, …], to be multiplied with tensors [B, …] like this one.

    `timestep`: [B], 0..999; some samplers stop between two.
    """
    levels = signal_levels(timestep.device)[timestep.round().long()].to(like)
    return levels.view(-1, *[1] * (like.ndim - 1))
