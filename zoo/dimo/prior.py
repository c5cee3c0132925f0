"""Fitting of the latents' coordinates to N(0, I) after training (not in the paper).

New motions are decoded from z ~ N(0, I) (paper §3.2). In training, the decoder sees the trained motions and points
between them only, and those are nearer to the origin than draws are. In some directions, a draw is so far out that the
object comes apart.

The normal distribution N(b, L Lᵀ) that is nearest to N(0, I) among those whose motions leave the object whole is
searched, and z = L z' + b is then rewritten as z'. So z' ~ N(0, I) is a draw from the distribution found, and every
trained motion, and every point of a straight line between two of them, remains what it was.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from zoo.dimo.evaluation import SOLID
from zoo.dimo.model import DIMO
from zoo.dimo.optimizer import NamedAdam
from zoo.metrics.rigidity import median_stretch, nearest_neighbours

STAGE = 4  # of the random numbers: a training's stages and the fitting of latents have 1 to 3
DRAWS, PHASES = 12, 2  # per step
FREE = 1.3  # stretch that costs nothing; a Gaussian counts as torn at `zoo.metrics.rigidity.STRETCH`
WEIGHT = 2000.0  # of the mean squared stretch beyond it, relative to the KL divergence
RATES = (0.02, 0.001)  # learning rates at the first and the last step
LARGEST_GRADIENT = 20.0  # norm; a single draw that bursts must not decide


def fit_prior(model: DIMO, steps: int, seed: int = 0) -> None:
    """Change the coordinates of a trained model's latents so that draws of N(0, I) hold together, in place.

    Minimises KL(N(b, L Lᵀ) ‖ N(0, I)) + `WEIGHT` · mean(max(0, s − `FREE`)²) over L and b, where s is the stretch of a
    solid Gaussian's neighbourhood (`zoo.metrics.torn_share`) in a motion drawn from N(b, L Lᵀ).

    Args:
        model: a trained model with key points and a latent space.
        steps: of Adam; 0 leaves the model as it is.
        seed: of the training; that of the draws follows from it.
    """
    solid = model.opacity_logits.detach().sigmoid() > SOLID
    if not steps or solid.sum() < 2:
        return
    rng, size = np.random.default_rng([seed, STAGE]), model.mu.shape[1]
    reference = model.means.detach()[solid]
    nearest = nearest_neighbours(reference)
    linear, shift = nn.Parameter(torch.eye(size).to(model.mu)), nn.Parameter(torch.zeros(size).to(model.mu))
    adam = NamedAdam({"prior": [linear, shift]})
    trainable = [each for each in model.parameters() if each.requires_grad]
    try:
        for each in trainable:
            each.requires_grad_(False)
        for step in range(steps):
            noise = torch.from_numpy(rng.standard_normal((DRAWS, size), np.float32)).to(model.mu)
            phases = (torch.arange(PHASES).to(model.mu) + float(rng.random())) / PHASES
            motion = model.trajectories(noise @ linear.T + shift, phases)
            stretch = median_stretch(model.skin(motion).means[:, solid], reference, nearest)
            torn = (stretch - FREE).relu().square().mean()
            (WEIGHT * torn + _divergence(linear, shift)).backward()
            torch.nn.utils.clip_grad_norm_([linear, shift], LARGEST_GRADIENT)
            adam.step({"prior": RATES[0] * (RATES[1] / RATES[0]) ** (step / steps)})
    finally:
        for each in trainable:
            each.requires_grad_(True)
    change_coordinates(model, linear.detach(), shift.detach())


def _divergence(linear: Tensor, shift: Tensor) -> Tensor:
    """KL divergence of N(b, L Lᵀ) from N(0, I), a scalar."""
    squares = linear.square().sum() + shift.square().sum() - len(shift)
    return 0.5 * squares - torch.linalg.slogdet(linear).logabsdet


@torch.no_grad()
def change_coordinates(model: DIMO, linear: Tensor, shift: Tensor) -> None:
    """Rewrite a model for latents z' with z = L z' + b, in place: what it decodes from z' is what it decoded from z.

    Variances of the training motions' latents are those along the new axes.

    Args:
        model: the model.
        linear: L, invertible, [Z, Z].
        shift: b, [Z].
    """
    model.decoder.change_coordinates(linear, shift)
    inverse = torch.linalg.inv(linear.double())
    model.mu.copy_((model.mu - shift).double() @ inverse.T)
    model.log_var.copy_((model.log_var.double().exp() @ inverse.square().T).log())
