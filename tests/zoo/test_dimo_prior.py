"""Coordinates of the latents in which draws of N(0, I) hold together; what is decoded stays the same."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch
from tiny_dimo import tiny_dimo
from tiny_motions import tiny_config, tiny_videos
from torch import nn

from zoo.dimo.config import DIMOConfig
from zoo.dimo.evaluation import torn
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.prior import change_coordinates, fit_prior
from zoo.dimo.training import train
from zoo.metrics.rigidity import median_stretch, nearest_neighbours, torn_share


def some_coordinates(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    return torch.eye(size) + 0.3 * torch.randn(size, size, generator=rng), torch.randn(size, generator=rng)


@pytest.mark.parametrize("root", [False, True])
def test_what_is_decoded_does_not_depend_on_the_coordinates(root):
    """From L z' + b before and z' after, and of every trained motion. The control: the old latents."""
    before = tiny_dimo(root=root)
    if root:
        with torch.no_grad():
            before.decoder.root.output.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    after = copy.deepcopy(before)
    linear, shift = some_coordinates(8)
    change_coordinates(after, linear, shift)
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    phases = before.phases
    with torch.no_grad():
        for old, new in ((z @ linear.T + shift, z), (before.mu, after.mu)):
            expected, decoded = before.trajectories(old, phases), after.trajectories(new, phases)
            assert torch.allclose(decoded.positions, expected.positions, atol=1e-4)
            assert torch.allclose(decoded.rotations, expected.rotations, atol=1e-4)
            wrong = after.trajectories(old, phases)
            assert (wrong.positions - expected.positions).abs().max() > 1e-2


def test_variances_are_those_along_the_new_axes():
    """Of 200 000 latents z = μ + σ ε, written as z'."""
    model = tiny_dimo()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.log_var.uniform_(-4, 1, generator=rng)
    sigma = (0.5 * model.log_var[0].detach()).exp()
    z = model.mu[0].detach() + sigma * torch.randn(200_000, 8, generator=rng)
    linear, shift = some_coordinates(8)
    change_coordinates(model, linear, shift)
    new = torch.linalg.solve(linear, (z - shift).T).T
    assert torch.allclose(new.mean(0), model.mu[0], atol=0.05)
    assert torch.allclose(new.var(0), model.log_var[0].exp(), rtol=0.03)


class Linear(nn.Linear):
    """A decoder whose output is W z + c."""

    @torch.no_grad()
    def change_coordinates(self, linear: torch.Tensor, shift: torch.Tensor) -> None:
        self.bias += self.weight @ shift
        self.weight.copy_(self.weight @ linear)


class Balloon(DIMO):
    """Its size is 1 + z₀ / 2, and z₁ lifts it: of N(0, I), 16 % of the draws stretch it by more than 1.5."""

    def __init__(self) -> None:
        points, config = 40, replace(tiny_config(), key_points=40, gaussians=40, neighbours=1, latent=2)
        super().__init__(config, 3)
        self.decoder = Linear(2, 2)
        with torch.no_grad():
            self.key_points.copy_(torch.rand(points, 3, generator=torch.Generator().manual_seed(7)) - 0.5)
            self.means.copy_(self.key_points)
            self.neighbours.copy_(torch.arange(points)[:, None])
            self.opacity_logits.fill_(3.0)
            self.decoder.weight.copy_(torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
            self.decoder.bias.copy_(torch.tensor([1.0, 0.0]))
            self.mu.copy_(torch.tensor([[-1.0, 0.0], [0.0, 1.0], [0.5, -1.0]]))

    def trajectories(self, z: torch.Tensor, phases: torch.Tensor) -> KeyPointMotion:
        size, lift = self.decoder(z).unbind(-1)
        positions = self.key_points * size[:, None, None]
        positions = positions + lift[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
        rotations = torch.tensor([1.0, 0, 0, 0]).expand(*positions.shape[:2], 4)
        return KeyPointMotion(
            *(each[:, None].expand(-1, len(phases), -1, -1) for each in (positions, rotations))
        )


def best_normal() -> tuple[float, float]:
    """Standard deviation and mean of z₀ that minimise the objective, by quadrature and Nelder–Mead."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)

    def objective(x: np.ndarray) -> float:
        spread, mean = abs(x[0]), x[1]
        beyond = np.maximum(0, 0.5 * (spread * nodes + mean) - 0.3) ** 2
        divergence = 0.5 * (spread**2 + mean**2 - 1) - np.log(spread)
        return float(2000 * beyond @ weights / weights.sum() + divergence)

    found = scipy.optimize.minimize(objective, [0.5, 0.0], method="Nelder-Mead").x
    return abs(found[0]), found[1]


def test_draws_hold_together_and_trained_motions_stay():
    """The nearest normal distribution is found: narrower where draws tear the object, and no other along z₁."""
    before, after = Balloon(), Balloon()
    fit_prior(after, 200)
    size, lift = after.decoder.weight.detach()
    spread, mean = best_normal()
    assert float(size.norm()) / 0.5 == pytest.approx(spread, rel=0.15)
    assert (float(after.decoder.bias.detach()[0]) - 1) / 0.5 == pytest.approx(mean, abs=0.15)
    assert float(lift.norm()) == pytest.approx(1, abs=0.1)
    z = torch.randn(1000, 2, generator=torch.Generator().manual_seed(11))
    assert (torn(before, z[:200]) > 0.06).float().mean() > 0.1
    assert not torn(after, z[:200]).any()
    with torch.no_grad():
        assert after.decoder(z)[:, 0].max() < 1.5
        expected, decoded = (each.trajectories(each.mu, each.phases) for each in (before, after))
    assert torch.allclose(decoded.positions, expected.positions, atol=1e-5)
    assert all(parameter.requires_grad for parameter in after.parameters())


def test_a_fit_depends_on_the_seed_only():
    models = [Balloon() for _ in range(3)]
    state = torch.random.get_rng_state()
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit_prior(model, 3, seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(models[0].mu, models[1].mu) and not torch.equal(models[0].mu, models[2].mu)


def test_a_model_that_cannot_tear_is_left_as_it_is():
    """No solid Gaussian, or no step."""
    for steps, opacity in ((3, -3.0), (0, 2.5)):
        model = tiny_dimo()
        with torch.no_grad():
            model.opacity_logits.fill_(opacity)
        state = copy.deepcopy(model.state_dict())
        fit_prior(model, steps)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_stretch_is_what_counts_as_torn():
    """Above 1.5 as `torn_share` says, for an even and an odd number of neighbours; gradients where points meet."""
    rng = torch.Generator().manual_seed(4)
    reference = torch.rand(40, 3, generator=rng)
    moved = (reference + 0.2 * torch.randn(3, 40, 3, generator=rng)).requires_grad_()
    for count in (5, 6):
        stretch = median_stretch(moved, reference, nearest_neighbours(reference, count))
        share = torn_share(moved.detach(), reference, neighbours=count)
        assert torch.equal((stretch > 1.5).float().mean(-1), share) and 0 < share.min() < share.max() < 1
    together = torch.zeros(1, 40, 3, requires_grad=True)
    median_stretch(together, reference, nearest_neighbours(reference)).sum().backward()
    assert together.grad.isfinite().all()


def test_training_ends_with_it_if_the_configuration_says_so(tmp_path, monkeypatch):
    """`bundled()` says so; `paper()`, as published, and `laptop()`, to save time, do not; nor has an ablation a fit."""
    assert DIMOConfig.bundled().joint.prior_steps == 300
    assert DIMOConfig.paper().joint.prior_steps == DIMOConfig.laptop().joint.prior_steps == 0
    calls = []
    monkeypatch.setattr("zoo.dimo.training.fit_prior", lambda *arguments: calls.append(arguments))
    videos, config = tiny_videos(tmp_path).select("train"), tiny_config()
    train(videos, config)
    config = replace(config, joint=replace(config.joint, prior_steps=7))
    for ablation in ({"factorised": False}, {"latent_space": False}):
        train(videos, replace(config, **ablation))
    assert not calls
    model = train(videos, config, seed=3)
    assert [(called is model, *rest) for called, *rest in calls] == [(True, 7, 3)]
