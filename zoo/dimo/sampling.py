"""Random latents of a motion space whose motions leave the object whole."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.dimo.model import DIMO

WHOLE = 0.06  # largest share of torn Gaussians
DRAWS = 8  # most latents drawn for one


def draw(model: DIMO, phases: Tensor, seed: int) -> Tensor:
    """Draw a latent z, [Z].

    The paper draws from N(0, I) (§3.2). Here that distribution is truncated: latents whose motion tears more than
    `WHOLE` of the object's solid Gaussians off their neighbours (`zoo.dimo.evaluation.torn`) are drawn again. These are
    3 % of the bundled models' latents at most. Of `DRAWS` latents that all tear, the least torn one is taken.

    The draw depends on the seed and the weights only, and leaves torch's global generator alone. On another device or
    in another precision, a share is rounded differently, so a latent at the limit may be another one.

    Args:
        model: the model.
        phases: at which the motion is checked, [T] in [0, 1].
        seed: of the random numbers.
    """
    from zoo.dimo.evaluation import torn

    generator = torch.Generator().manual_seed(seed)
    mu = model.mu
    drawn: list[tuple[float, Tensor]] = []
    while len(drawn) < DRAWS and not (drawn and drawn[-1][0] <= WHOLE):
        z = torch.randn(mu.shape[1], generator=generator).to(mu)
        drawn.append((float(torn(model, z[None], phases.to(mu))), z))
    return min(drawn, key=lambda each: each[0])[1]
