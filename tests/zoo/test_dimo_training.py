"""End-to-end training on a tiny object: convergence, bit-identical resumption, metrics, unseen motions."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_motions import tiny_config, tiny_videos

from zoo.dimo import losses
from zoo.dimo.config import LossWeights, Pretraining
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import over
from zoo.dimo.evaluation import arap_energy, evaluate
from zoo.dimo.feed import Feed
from zoo.dimo.fitting import picture_errors
from zoo.dimo.pretraining import KeyPointStage
from zoo.dimo.training import excess_between, fit_latent, train


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return tiny_videos(tmp_path_factory.mktemp("caterpillar"))


@pytest.fixture(scope="module")
def trained(videos):
    """A model trained on the two training motions for a few seconds."""
    config = tiny_config()
    longer = replace(
        config,
        pretraining=replace(config.pretraining, steps=80),
        joint=replace(config.joint, steps=200, resolutions=((0, 16), (100, 32))),
    )
    return train(videos.select("train"), longer)


class _Killed(Exception):
    pass


def _train_killed(videos, config, path, at: int):
    def on_step(progress):
        if progress["step"] >= at:
            raise _Killed

    with pytest.raises(_Killed):
        train(videos, config, checkpoint=path, on_step=on_step, save_every=4)


def test_it_learns_and_is_measured_on_views_it_never_saw(videos, trained):
    report = evaluate(trained, videos.select("train"))
    assert report["views"] == [4, 5] and len(report["motions"]) == 2
    assert report["psnr"] > 22 and report["iou"] > 0.8 and report["worst_psnr"] <= report["psnr"]
    assert report["motion_error"] < 0.05
    untrained = train(
        videos.select("train"), replace(tiny_config(), pretraining=Pretraining(steps=0, initial="hull"))
    )
    assert evaluate(untrained, videos.select("train"))["psnr"] < report["psnr"] - 2  # the control


@pytest.mark.parametrize("at", [9, 12, 18])
def test_a_killed_run_resumes_to_the_same_bits(videos, tmp_path, monkeypatch, at):
    """Training resumes after a kill in stage 1, at its end, and in stage 2 after pruning."""
    monkeypatch.setattr("zoo.dimo.training.REPORT_EVERY", 1)
    config, both = tiny_config(), videos.select("train")
    undisturbed = train(both, config).state_dict()
    path = tmp_path / "run.safetensors"
    _train_killed(both, config, path, at)
    torch.rand(3)  # whatever else draws random numbers in between
    resumed = train(both, config, checkpoint=path).state_dict()
    assert undisturbed.keys() == resumed.keys()
    for name, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[name]), name
    finished = train(
        both, config, checkpoint=path, on_step=lambda p: pytest.fail("there is nothing left to do")
    )
    assert torch.equal(finished.means, resumed["means"])
    other = train(both, config, seed=1).state_dict()
    assert not torch.equal(other["decoder.trunk.0.weight"], resumed["decoder.trunk.0.weight"])


def test_a_checkpoint_of_another_run_is_refused(videos, tmp_path):
    path = tmp_path / "run.safetensors"
    train(videos, tiny_config(), checkpoint=path)
    with pytest.raises(ValueError, match="another training"):
        train(videos, tiny_config(), checkpoint=path, seed=1)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="not a checkpoint"):
        train(videos, tiny_config(), checkpoint=path)


def test_stage_one_as_published_densifies_prunes_and_anneals(videos):
    """Training from a ball, in colour, with all losses except LPIPS, ends with the configured number of key points."""
    published = replace(
        Pretraining(),
        steps=30, batch=(2, 2, 2), resolutions=((0, 16),), densify_every=5, densify_until=25, densify_pause=2,
        densify_gradient=1e-6, anneal_at=(12, 30), arap_from=5, smooth_from=5,
    )  # fmt: skip
    config = tiny_config(
        losses=LossWeights(lpips=0.0),
        arap="rotations",
        pretraining=published,
        latent_spread=0.0,
        latent_log_var=0.0,
    )
    seen = []
    model = train(videos.select("train"), config, on_step=seen.append)
    assert len(model.key_points) <= config.key_points
    assert 0 < len(model.means) <= config.gaussians
    assert seen[0]["stage"] == "motion" and seen[-1]["stage"] == "joint"
    assert seen[-1]["step"] == seen[-1]["steps"] == 42


def _watched(videos, threshold: float) -> KeyPointStage:
    """A stage that saw two steps of 2 motions in 4 renders each, with gradients by hand."""
    plan = replace(
        Pretraining(), densify_every=4, densify_pause=0, anneal_at=(), clone_scale=1.0, densify_gradient=threshold
    )  # fmt: skip
    run = TrainingContext(videos.select("train"), tiny_config(pretraining=plan), 0, torch.device("cpu"))
    stage = KeyPointStage(run)
    N = len(stage.points)
    camera = SimpleNamespace(width=8, height=8)
    batch = SimpleNamespace(
        cameras=camera, share=0.25, motions=torch.arange(2)
    )  # of an image of 16 × 16 pixels
    for _ in range(2):
        gradient, radii = torch.zeros(2, 2, N, 2), torch.zeros(2, 2, N, 2, dtype=torch.int32)
        gradient[0, 0, 3], radii[0, 0, 3] = torch.tensor([3e-4, 4e-4]), 1  # visible in one render
        gradient[0, :, 5], radii[:, :, 5] = torch.tensor([3e-4, 4e-4]), 1  # visible in all, pulled in two
        stage._watch(SimpleNamespace(means2d=SimpleNamespace(grad=gradient), radii=radii), batch)
    return stage


def test_densification_compares_the_mean_gradient_of_the_renders_that_show_a_key_point(videos):
    """5e−4 per pixel, 8 pixels per unit of normalised coordinates, and a sum over two motions: 8e−3."""
    stage = _watched(videos, 1.0)
    expected = torch.zeros(len(stage.points))
    expected[3], expected[5] = 8e-3, 4e-3
    assert torch.allclose(stage.moved / stage.seen.clamp(min=1), expected, rtol=1e-5)
    for threshold, added in ((7e-3, [3]), (3e-3, [3, 5]), (9e-3, [])):
        stage = _watched(videos, threshold)
        before = stage.points.detach().clone()
        stage._grow(3)
        assert torch.equal(stage.points[len(before) :], before[added])
        assert not stage.moved.any() and not stage.seen.any()  # counted anew


@pytest.mark.parametrize(
    "changes",
    [{"factorised": False}, {"latent_space": False}, {"latent_distribution": False}],
    ids=["without motion factorisation", "without latent space", "plain latents"],
)
def test_the_ablations_train(videos, changes):
    """After 120 steps: 5 dB above white pictures, and better with a motion's own latent than with the other's."""
    both, config = videos.select("train"), tiny_config(**changes)
    longer = replace(
        config,
        pretraining=replace(config.pretraining, steps=60),
        joint=replace(config.joint, steps=60, resolutions=((0, 16), (30, 32))),
    )
    model = train(both, longer)
    shown, _ = over(both.read(range(2), both.heldout_views, range(0, both.frames, 2)))
    white = -10 * (1 - shown).square().mean((1, 2, 3, 4, 5)).log10().mean().item()
    psnr = evaluate(model, both, every=2)["psnr"]
    assert psnr > white + 5 > 20
    assert psnr > evaluate(model, both, every=2, latents=model.mu.flip(0))["psnr"] + 0.1
    if not model.config.latent_space:
        assert model.mu[:, 0].tolist() == [-1.0, 1.0] and model.mu[:, 1:].abs().sum() == 0


def test_an_unseen_motion_is_followed_by_its_latent_alone(videos, trained):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    heldout = videos.select("heldout")
    z = fit_latent(trained, heldout, steps=60)
    assert z.shape == (1, trained.config.latent)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad for parameter in trained.parameters())
    found = evaluate(trained, heldout, latents=z)["psnr"]
    assert found >= evaluate(trained, heldout, latents=torch.zeros_like(z))["psnr"]
    with pytest.raises(ValueError, match="1 motions of caterpillar, but 2 latents"):
        evaluate(trained, heldout)


def test_a_fit_goes_on_from_the_start_that_is_best_after_some_steps(videos, trained, monkeypatch):
    """The motion that is fitted is a trained one, whose latent is the second in the order of the starts' pictures."""
    calls, order = [], torch.tensor([3.0, 1.0, 2.0, 4.0, 5.0, 6.0])

    def errors(model, batch, latents):
        calls.append(len(latents))
        return order if len(latents) == len(order) else picture_errors(model, batch, latents)

    monkeypatch.setattr("zoo.dimo.fitting.picture_errors", errors)
    monkeypatch.setattr("zoo.dimo.fitting.TRIAL", 5)
    wrong, own = trained.mu.detach()
    starts = torch.stack([-4 * own, wrong, own, -3 * own, 3 * own, 4 * own])
    seen = []
    z = fit_latent(trained, videos.select([1]), steps=30, starts=starts, on_step=seen.append)
    assert calls == [6, 3]
    assert (z - own).norm() < 0.3 * (wrong - own).norm()
    assert seen[-1]["step"] == 30
    # A fit that is shorter than that, or has one start, has a result, too.
    for steps, some, asked in ((3, starts, [6, 3]), (0, starts, [6, 3]), (8, starts[2:3], [1])):
        calls.clear()
        z = fit_latent(trained, videos.select([1]), steps=steps, starts=some)
        assert calls == asked and (z - own).norm() < 0.3 * (wrong - own).norm()


def test_what_is_less_rigid_between_two_motions_than_both_costs_its_share(videos, trained):
    """The excess is zero between a motion and itself, and positive for a decoder that is less rigid between motions."""
    both = videos.select("train")
    batch = Feed(both, both.train_views, (2, 2, 2), ((0, 16),), trained.config.latent, (0, 1)).batch(0)
    points, graph, radii = trained.key_points, trained.graph, trained.log_radii.exp()

    def energy(z):
        return losses.arap_distances(trained.paths(z, batch.phases), points, graph, radii)

    def excess(z, positions):
        return excess_between(trained, points, positions, z, batch, graph, radii)

    twice = trained.mu[:1].repeat(2, 1)
    assert excess(twice, trained.paths(twice, batch.phases)).item() == pytest.approx(0, abs=1e-4)
    # For end motions at a tenth of the displacement, the excess is energy(mixed) / max energy(ends) - 1.
    hushed = points + (trained.paths(trained.mu, batch.phases) - points) / 10
    quiet = losses.arap_distances(hushed, points, graph, radii).max()
    mixed = trained.mu[:1].lerp(trained.mu[1:], batch.blend[:1, None])
    expected = (energy(mixed)[0] / quiet - 1).clamp(min=0)
    got = excess(trained.mu, hushed)
    assert got.shape == (1,) and torch.allclose(got[0], expected, rtol=1e-4) and expected > 0
    got.sum().backward()
    assert trained.mu.grad.abs().sum() > 0 and trained.decoder.trunk[0].weight.grad.abs().sum() > 0
    trained.zero_grad()


def test_rigidity_is_measured_for_any_latent(trained):
    ends = arap_energy(trained, trained.mu)
    between = arap_energy(trained, trained.mu.mean(0, keepdim=True))
    assert ends.shape == (2,) and torch.isfinite(ends).all() and torch.isfinite(between).all()
