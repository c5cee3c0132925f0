"""The last steps of training, on tracks alone."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_motions import tiny_config, tiny_videos

from zoo.dimo.config import DIMOConfig
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos
from zoo.dimo.initial import add_key_points
from zoo.dimo.optimizer import Muon, orthogonalised
from zoo.dimo.polish import polish
from zoo.dimo.tracks import key_point_tracks
from zoo.dimo.training import train


def tracked(folder) -> MotionVideos:
    """The tiny videos with four times as many tracked points."""
    videos = tiny_videos(folder)
    for stem in videos.files:
        points = np.load(folder / f"{stem}.points.npy")
        between = [points[:, :-1] + part * np.diff(points, axis=1) for part in (0.0, 0.25, 0.5, 0.75)]
        np.save(folder / f"{stem}.points.npy", np.concatenate(between, 1))
    return videos


def config(**joint: object) -> DIMOConfig:
    values = tiny_config(blending="aligned", root=True, key_points=6)
    losses = replace(values.losses, tracks=1000.0)
    return replace(values, losses=losses, joint=replace(values.joint, **joint))


def error(run: TrainingContext) -> float:
    """Mean distance of key points from their tracks."""
    with torch.no_grad():
        paths = run.model.paths(run.model.mu, torch.tensor(run.videos.phases))
    return float((paths - run.tracks.positions).norm(dim=-1).mean())


def test_key_points_come_nearer_to_their_tracks_and_nothing_else_changes(tmp_path):
    videos = tracked(tmp_path)
    run = TrainingContext(videos, config(), 0, torch.device("cpu"))
    run.model = train(videos, config())
    before, apart = copy.deepcopy(run.model.state_dict()), error(run)
    polish(run, 150)
    assert error(run) < 0.5 * apart
    changed = {name for name, old in before.items() if not torch.equal(old, run.model.state_dict()[name])}
    assert changed == {name for name in before if name.startswith("decoder.")} | {"mu"}
    assert all(each.grad is None for each in run.model.parameters())
    again = TrainingContext(videos, config(), 0, torch.device("cpu"))
    again.model.load_state_dict(before)
    polish(again, 150)
    assert torch.equal(again.model.mu, run.model.mu)


def test_without_tracks_or_steps_the_model_stays(tmp_path):
    videos = tracked(tmp_path)
    run = TrainingContext(videos, config(), 0, torch.device("cpu"))
    untracked = replace(config(), losses=replace(config().losses, tracks=0.0))
    for each, steps in ((run, 0), (TrainingContext(videos, untracked, 0, torch.device("cpu")), 3)):
        before = copy.deepcopy(each.model.state_dict())
        polish(each, steps)
        assert all(torch.equal(old, each.model.state_dict()[name]) for name, old in before.items())


def test_the_constant_of_a_model_without_latent_space_stays(tmp_path):
    """Its latents are the motions' numbers, which its ablation keeps."""
    run = TrainingContext(tracked(tmp_path), replace(config(), latent_space=False), 0, torch.device("cpu"))
    before = run.model.mu.detach().clone()
    polish(run, 3)
    assert torch.equal(run.model.mu, before)


def test_training_ends_with_it_if_the_configuration_says_so(tmp_path):
    """After stage 2, and before Gaussians are removed and draws are looked at, which depend on it."""
    assert DIMOConfig.bundled().joint.polish_steps == 3000
    assert DIMOConfig.laptop().joint.polish_steps == 300  # its motions are learnt in nothing else
    assert DIMOConfig.paper().joint.polish_steps == 0
    videos, calls = tracked(tmp_path), []

    def report(progress: dict[str, object]) -> None:
        calls.append(progress["stage"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.dimo.training.REPORT_EVERY", 1)
        patch.setattr("zoo.dimo.training.remove_strays", lambda *_: calls.append("strays"))
        patch.setattr("zoo.dimo.training.fit_prior", lambda *arguments: calls.append(("prior", arguments[1])))
        train(videos, config(), on_step=report)
        assert calls == ["motion"] * 12 + ["joint"] * 12
        calls.clear()
        train(videos, config(polish_steps=7, prior_steps=5, remove_strays=True), on_step=report)
    assert calls == ["motion"] * 12 + ["joint"] * 12 + ["tracks"] * 7 + ["strays", ("prior", 5)]


def test_every_step_is_counted_and_only_pictures_have_a_psnr(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.dimo.training.REPORT_EVERY", 1)
    seen = []
    train(tracked(tmp_path), config(steps=3, polish_steps=4, surface_steps=5), on_step=seen.append)
    assert [each["step"] for each in seen] == list(range(1, 25)) and {each["steps"] for each in seen} == {24}
    with_psnr = {each["stage"] for each in seen if each["psnr"] is not None}
    assert with_psnr == {"joint", "skin"} == {each["stage"] for each in seen} - {"motion", "tracks"}


def test_a_training_killed_in_its_last_stages_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Within the steps on tracks (16 to 20), at their end, within those of the skin, and after the last one."""
    monkeypatch.setattr("zoo.dimo.training.REPORT_EVERY", 1)
    monkeypatch.setattr("zoo.dimo.surface.REFRESH", 3)
    # As if the object were symmetric, and every motion its own mirror image.
    monkeypatch.setattr("zoo.dimo.polish.mirrored_tracks", lambda *where: key_point_tracks(*where[:2], 6))
    plan = replace(config(steps=3, polish_steps=5, surface_steps=5, prior_steps=2), discs=True)
    videos = tracked(tmp_path)
    undisturbed = train(videos, plan).state_dict()

    class Killed(Exception):
        pass

    for step in (17, 20, 22, 25):
        path, seen = tmp_path / f"{step}.safetensors", []

        def kill(progress: dict[str, object], step: int = step) -> bool:
            if progress["step"] > step:
                raise Killed
            return progress["step"] == step

        with pytest.raises(Killed) if step < 25 else nullcontext():
            train(videos, plan, checkpoint=path, on_step=kill)
        if step <= 20:
            assert load_file(path)["stage.reflected"].shape == (3, 4)
        resumed = train(videos, plan, checkpoint=path, on_step=seen.append).state_dict()
        assert [each["step"] for each in seen] == list(range(step + 1, 26))
        for name, tensor in undisturbed.items():
            assert torch.equal(tensor, resumed[name]), (step, name)


def test_both_stages_are_longer_where_videos_have_no_tracks(tmp_path):
    """What the steps on tracks would teach is learnt from pictures then; the model says how many steps it had."""
    videos, plan = tracked(tmp_path), config(steps=1, untracked_steps=4)
    plan = replace(plan, pretraining=replace(plan.pretraining, steps=0, untracked_steps=3))
    seen = []
    assert train(videos, plan, on_step=seen.append).config == plan and seen[-1]["steps"] == 1
    without = replace(plan, losses=replace(plan.losses, tracks=0.0))
    model = train(videos, without, checkpoint=tmp_path / "run.safetensors", on_step=seen.append)
    assert seen[-1]["steps"] == 8 and model.config == without.untracked()
    assert (model.config.pretraining.steps, model.config.joint.steps) == (3, 5)
    again = train(videos, without, checkpoint=tmp_path / "run.safetensors")
    assert torch.equal(again.means, model.means)
    laptop = DIMOConfig.laptop().untracked()
    assert (laptop.pretraining.steps, laptop.joint.steps) == (500, 700)
    assert (laptop.joint.arap_until, laptop.joint.surface_steps) == (700, 0)
    bundled = DIMOConfig.bundled().untracked()
    assert (bundled.joint.steps, bundled.joint.surface_steps, bundled.discs) == (6100, 0, False)


def test_key_points_are_added_between_those_of_a_trained_model(tmp_path):
    """The old ones and the Gaussians stay; steps on tracks bring the new ones to their places."""
    videos = tracked(tmp_path)
    old = train(videos, config())
    run = TrainingContext(videos, replace(config(), key_points=14), 0, torch.device("cpu"))
    run.model = old
    run.model = more = add_key_points(run)
    assert torch.equal(more.key_points[:6], old.key_points) and torch.equal(
        more.key_points, run.tracks.points
    )
    assert torch.equal(more.means, old.means) and torch.equal(more.mu, old.mu) and more.config == run.config
    paths, before = more.paths(more.mu, more.phases)[:, :, :6], old.paths(old.mu, old.phases)
    assert torch.allclose(paths, before, atol=1e-6)  # products of larger matrices are rounded differently
    assert more.log_radii.max() < old.log_radii.min()  # twice as many
    assert more.graph.max() == 13 and torch.equal(more.graph[:, 0], torch.arange(14))
    apart = error(run)
    polish(run, 150)
    assert error(run) < 0.5 * apart


def test_key_points_are_only_added_to_those_of_the_same_tracks(tmp_path):
    videos, problem = tracked(tmp_path), "the 6 key points of the model are not the first of"
    old = train(videos, config())
    untracked = replace(config(), key_points=14, losses=replace(config().losses, tracks=0.0))
    for values in (untracked, replace(config(), key_points=5), config()):
        run = TrainingContext(videos, values, 0, torch.device("cpu"))
        run.model = old
        with pytest.raises(ValueError, match=problem):
            add_key_points(run)
    run = TrainingContext(videos, replace(config(), key_points=14), 0, torch.device("cpu"))
    run.model = copy.deepcopy(old)
    with torch.no_grad():
        run.model.key_points += 0.01
    with pytest.raises(ValueError, match=problem):
        add_key_points(run)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_muon_takes_the_steps_of_torchs(shape):
    """Up to the rounding of bfloat16, in which torch multiplies."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(6, *shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    muon = Muon([ours])
    other = torch.optim.Muon([theirs], lr=0.03, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step(0.03)
        other.step()
        assert ours.grad is None
    assert (ours - theirs).norm() < 0.02 * theirs.norm()
    values = torch.linalg.svdvals(orthogonalised(gradients[0]))
    assert values.min() > 0.6 and values.max() < 1.25  # of the gradient: 2 to 11
    resumed = Muon([ours])
    resumed.load(muon.state())
    assert torch.equal(resumed.state()["0"], muon.state()["0"]) and muon.state()["0"].abs().max() > 0


def test_muon_multiplies_in_float32_on_the_cpu(monkeypatch):
    """Few processors have instructions for bfloat16."""
    seen = set()
    multiply = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: seen.add(a.dtype) or multiply(a, b))
    orthogonalised(torch.eye(8))
    assert seen == {torch.float32}
