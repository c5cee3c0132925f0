"""FreeInit (Wu et al. 2024) for MV-VDM, also for networks with `from_first`.

FreeInit samples several times. Each iteration starts from the result of the previous one, noised again with the initial
noise ε, of which only the low frequencies are kept; the high ones are those of new noise η:

    z_T = LPF(√ᾱ_T · z_0 + √(1 − ᾱ_T) · ε) + HPF(η)

A `from_first` network subtracts √ᾱ_T · z^1 from its input (`MVVDMUNet`), which must therefore contain it at all
frequencies. For such a network the equation is applied to the change d = z_0 − z^1, and z_T = √ᾱ_T · z^1 + d_T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def initial_value(
    pipeline: Any, first: Tensor, noise: Tensor, last: Tensor | None, iteration: int, sampling: Any
) -> Tensor:
    """Initial value of an iteration, for all frames but the first.

    Args:
        pipeline: an `MVVDMPipeline` (which imports this file); its scheduler's time steps are set.
        first: clean first frames z^1, [V, 1, C, h, w].
        noise: ε, [V, T - 1, C, h, w].
        last: the previous iteration's result z_0, like `noise`; None in the first iteration.
        iteration: from 0.
        sampling: settings of the sampling loop, of which the number of steps and the generator are used.

    Returns:
        [V, T - 1, C, h, w].
    """
    relative = pipeline.unet.config.from_first
    if last is None:
        start = noise if relative else pipeline.initial(first, noise)
    else:
        start = last - first if relative else last
    mixed, _ = pipeline._apply_free_init(
        start.transpose(1, 2),  # diffusers filters over the last three axes: frames, rows and columns
        iteration,
        sampling.num_inference_steps,
        first.device,
        first.dtype,
        sampling.generator,
    )
    mixed = mixed.transpose(1, 2)
    if not relative:
        return mixed
    if last is None:
        return pipeline.initial(first, mixed)
    return pipeline.initial(first, torch.zeros_like(mixed)) + mixed
