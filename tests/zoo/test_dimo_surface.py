"""The steps of training that make the Gaussians a skin."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_motions import tiny_config, tiny_videos

from renderers.gaussians.features import rotation_matrices
from zoo.dimo import discs, surface
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.evaluation import evaluate
from zoo.dimo.surface import make_skin, place_discs, speckles
from zoo.dimo.training import train

REPLACED = {"means", "log_scales", "quats", "opacity_logits", "colors", "graph", "neighbours", "log_radii"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TrainingContext:
    """The tiny object after a short training, whose Gaussians are a fog."""
    videos = tiny_videos(tmp_path_factory.mktemp("tiny"))
    config = tiny_config(blending="aligned", discs=True, gaussians=900)
    run = TrainingContext(videos, config, 0, torch.device("cpu"))
    run.model = train(videos, config)
    with torch.no_grad():
        run.model.opacity_logits.fill_(-2.0)
    return run


def copied(run: TrainingContext) -> TrainingContext:
    again = TrainingContext(run.videos, run.config, 0, torch.device("cpu"))
    again.model = copy.deepcopy(run.model)
    return again


def test_a_fog_becomes_a_skin_and_the_motions_stay(trained):
    run = copied(trained)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    place_discs(run)
    placed = evaluate(run.model, run.videos, every=2)
    make_skin(run, 60)
    skin = evaluate(run.model, run.videos, every=2)
    assert skin["psnr"] > placed["psnr"] + 3 and skin["iou"] > placed["iou"] + 0.05
    after = run.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == REPLACED
    assert all(each.grad is None for each in run.model.parameters())
    scales = run.model.log_scales.detach().exp()
    assert run.model.opacity_logits.sigmoid().median() > 0.6  # 0.12 before
    assert (scales[:, 2] / scales[:, :2].mean(1)).median() < 0.5
    again = copied(trained)
    make_skin(again, 60)
    assert torch.equal(again.model.means, run.model.means)


def test_no_steps_change_nothing(trained):
    run = copied(trained)
    make_skin(run, 0)
    before, after = trained.model.state_dict(), run.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_new_discs_lie_in_the_surface(trained, monkeypatch):
    """Of a sphere whose points are off by a tenth of their spacing, as those of a hull are."""
    run, generator = copied(trained), torch.Generator().manual_seed(1)
    rough = torch.nn.functional.normalize(torch.randn(900, 3, generator=generator), dim=-1)
    rough = rough * (0.3 + 0.004 * torch.randn(900, 1, generator=generator))
    monkeypatch.setattr(surface, "hull_points", lambda *_: (rough, torch.rand(900, 3)))
    monkeypatch.setattr(surface, "carry_back", lambda _, points: points)
    place_discs(run)
    means, turns = run.model.means.detach(), rotation_matrices(run.model.quats.detach())
    radii = means.norm(dim=-1)
    assert ((turns[..., 2] * means).sum(-1) / radii).abs().median() > 0.98
    assert radii.std() < 0.7 * rough.norm(dim=-1).std() and abs(radii.mean() - 0.3) < 0.015
    assert torch.allclose(turns.det(), torch.ones(900), atol=1e-5)


def test_speckles_cost_more_than_one_colour(trained):
    near = surface._neighbours(trained.model.means)
    assert near.shape == (900, 8) and (near != torch.arange(900)[:, None]).all()
    assert speckles(torch.rand(900, 3), near) > 10 * speckles(torch.full((900, 3), 0.5), near)


def test_training_ends_with_it_if_the_configuration_says_so(trained, monkeypatch):
    """After the steps on tracks, before strays are removed and draws are looked at.

    Discs are not removed as strays, which would leave holes.
    """
    calls = []
    monkeypatch.setattr("zoo.dimo.training.REPORT_EVERY", 1)
    for name in ("remove_strays", "fit_prior"):
        monkeypatch.setattr(f"zoo.dimo.training.{name}", lambda run, *_, name=name: calls.append(name))

    def report(progress: dict[str, object]) -> None:
        calls.append(progress["stage"])

    values = trained.config
    joint = replace(values.joint, surface_steps=3, prior_steps=5, remove_strays=True)
    train(trained.videos, replace(values, joint=joint), on_step=report)
    stages = ["motion"] * 12 + ["joint"] * 12 + ["skin"] * 3
    assert calls == [*stages, "fit_prior"]
    calls.clear()
    train(trained.videos, replace(values, joint=joint, discs=False), on_step=report)
    assert calls == [*stages, "remove_strays", "fit_prior"]


def test_gaussians_become_discs_in_the_steps_that_make_a_skin(trained, monkeypatch):
    """The stages before are those of a model without discs, and take no longer."""
    calls = []
    monkeypatch.setattr("zoo.dimo.training.REPORT_EVERY", 1)
    carried = discs.tangent_discs
    monkeypatch.setattr("zoo.dimo.model.tangent_discs", lambda *args: calls.append("discs") or carried(*args))
    config = replace(trained.config, joint=replace(trained.config.joint, surface_steps=2))
    model = train(trained.videos, config, on_step=lambda progress: calls.append(progress["stage"]))
    first = calls.index("discs")
    assert "skin" not in calls[:first] and "joint" not in calls[first:] and calls.count("skin") == 2
    assert model.config == config and config.discs
    calls.clear()
    train(trained.videos, trained.config, on_step=lambda progress: calls.append(progress["stage"]))
    assert calls.index("discs") < calls.index("joint"), (
        "without such steps, they are discs from the beginning"
    )


def test_discs_lie_between_tracked_points_and_bridge_no_gap(trained, tmp_path, monkeypatch):
    """Of two plates that lie a tenth of their width apart and move away from each other; the hull fills the gap."""
    rng = np.random.default_rng(0)
    plate = rng.uniform(-0.3, 0.3, (600, 2))
    rest = np.concatenate([np.c_[plate, np.full(600, side)] for side in (-0.03, 0.03)])
    apart = np.stack([rest + [0, 0, 0.2 * t] * np.sign(rest[:, 2:]) for t in range(5)])
    videos = MotionVideos.open(shutil.copytree(trained.videos.folder, tmp_path / "plates"))
    for stem in videos.files:
        np.save(videos.folder / f"{stem}.points.npy", apart.astype(np.float32))
    config = replace(trained.config, losses=replace(trained.config.losses, tracks=1.0))
    run = TrainingContext(videos, config, 0, torch.device("cpu"))
    monkeypatch.setattr(surface, "carry_back", lambda _, points: points)
    place_discs(run)
    off = (run.model.means.detach()[:, 2].abs() - 0.03).abs()
    assert off.max() < 1e-6
