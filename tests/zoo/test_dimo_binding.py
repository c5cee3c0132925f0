"""Key points are chosen by how the surface moves: a forearm that hangs beside a thigh does not go with it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_motions import tiny_config, tiny_videos, tracked_videos

from zoo.dimo.binding import bind, settle_stretching
from zoo.dimo.blending import blended_places, rbf_weights
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import write_motion
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.points import spacing
from zoo.dimo.surface import make_skin
from zoo.dimo.training import train


def two_parts(J: int = 1) -> tuple[DIMO, KeyPointMotion]:
    """A thigh's key point in the origin, which stays, and an arm's 10 cm beside it, which is raised by 20 cm."""
    config = tiny_config(key_points=2, neighbours=J, graph=2)
    model = DIMO(config, 1, 3, 2)
    with torch.no_grad():
        model.key_points.copy_(torch.tensor([[0.0, 0, 0], [0.1, 0, 0]]))
        model.means.copy_(torch.tensor([[0.04, 0, 0], [0.06, 0, 0], [-0.02, 0, 0]]))
        model.log_radii.fill_(np.log(0.05))
    positions = model.key_points.detach().expand(1, 2, 2, 3).clone()
    positions[0, 1, 1, 1] = 0.2
    model.connect(positions)
    return model, KeyPointMotion(positions, torch.tensor([1.0, 0, 0, 0]).expand(1, 2, 2, 4))


def test_a_forearm_beside_a_thigh_goes_with_the_arm():
    """Two points are the arm's, one of them nearer to the thigh's key point: 0.2 m off if it is driven by that."""
    model, motion = two_parts()
    paths = model.means.detach().expand(1, 2, 3, 3).clone()
    paths[0, 1, :2, 1] = 0.2
    model.assign()
    assert model.neighbours[:, 0].tolist() == [0, 1, 0]
    assert bind(model, motion, paths).tolist() == pytest.approx([0], abs=1e-6)
    assert model.neighbours[:, 0].tolist() == [1, 1, 0]


def test_a_key_point_further_away_has_to_be_twice_as_good():
    """In a part that moves rigidly all are nearly as good, and neighbours should have the same."""
    model, motion = two_parts()
    motion.positions[0, 1, :, 1] = torch.tensor([0.199, 0.2])
    paths = model.means.detach().expand(1, 2, 3, 3).clone()
    for height, chosen in ((0.1994, 1), (0.1991, 0)):  # off by 0.4 and 0.6 mm, by 0.1 and 0.9
        paths[0, 1, :, 1] = torch.tensor([0.199, height, 0.199])
        model.assign()
        assert model.neighbours[:, 0].tolist() == [0, 1, 0]
        bind(model, motion, paths)
        assert model.neighbours[:, 0].tolist() == [0, chosen, 0]


@pytest.mark.parametrize(("tolerance", "chosen"), [(0.0, 1), (0.13, 1), (0.15, 0)])
def test_a_tolerable_distance_from_its_path_does_not_count(tolerance, chosen):
    """Driven by the nearer key point, the middle one is off by 0.2 m in one of two frames: 0.14 m rms."""
    model, motion = two_parts()
    paths = model.means.detach().expand(1, 2, 3, 3).clone()
    paths[0, 1, :2, 1] = 0.2
    model.assign()
    bind(model, motion, paths, tolerance)
    assert model.neighbours[0, 0].item() == chosen


def test_radii_are_fitted_to_how_the_surface_moves():
    """Between the two, the surface rises by 20 cm times the arm's weight, which another radius gives it."""
    model, motion = two_parts(J=2)
    squared = (model.means.detach()[:, None] - model.key_points.detach()).square().sum(-1)
    true = rbf_weights(squared, torch.tensor([0.03, 0.05]))
    paths = model.means.detach().expand(1, 2, 3, 3).clone()
    paths[0, 1, :, 1] = 0.2 * true[:, 1]
    before = 0.2 * (rbf_weights(squared, torch.tensor([0.05, 0.05])) - true)[:, 1].abs().mean() / 2**0.5
    assert bind(model, motion, paths) < 0.1 * before


def test_blended_places_by_hand():
    """Half of a shift by (0, 2, 0) and half of a quarter turn about z take (1, 0, 0) to (0.5, 1.5, 0)."""
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    maps = torch.stack([torch.eye(3), quarter])[None], torch.tensor([[[0.0, 2, 0], [0, 0, 0]]])
    places = blended_places(
        torch.tensor([[1.0, 0, 0]]), maps, torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]])
    )
    assert torch.allclose(places, torch.tensor([[[0.5, 1.5, 0]]]))


def bent_bar(frames: int = 5) -> np.ndarray:
    """Points of a bar, half of which turns by 90° about its middle, with a soft joint."""
    rest = np.random.default_rng(0).uniform([-0.3, -0.03, -0.03], [0.3, 0.03, 0.03], (600, 3))
    share = np.clip(rest[:, 0] / 0.08 + 0.5, 0, 1)
    poses = []
    for t in range(frames):
        turn = Rotation.from_rotvec([0, 0, np.pi / 2 * t / (frames - 1)]).as_matrix()
        poses.append(rest + share[:, None] * (rest @ turn.T - rest))
    return np.stack(poses).astype(np.float32)


def swollen_ball(frames: int = 5) -> np.ndarray:
    """Points of a sphere that grows by 60 %, more along x."""
    rest = np.random.default_rng(0).standard_normal((600, 3))
    rest *= 0.2 / np.linalg.norm(rest, axis=1, keepdims=True)
    growth = 1 + np.linspace(0, 1, frames)[:, None, None] * [0.6, 0.3, 0.1]
    return (rest * growth).astype(np.float32)


def longer_bar(frames: int = 5) -> np.ndarray:
    """The bar becomes a little longer, which is the worst motion of a body that also bends."""
    rest = bent_bar()[0]
    growth = 1 + np.linspace(0, 1, frames)[:, None, None] * [0.05, 0.02, 0.02]
    return (rest * growth).astype(np.float32)


@pytest.mark.parametrize(
    ("motions", "stretches"),
    [([bent_bar], False), ([swollen_ball], True), ([*[bent_bar] * 9, longer_bar], True)],
)
def test_stretching_stays_where_it_carries_the_surface_better(tmp_path, monkeypatch, motions, stretches):
    """Where one motion of several needs it, that is the worst without it."""
    videos = tracked_videos(tmp_path, [motion() for motion in motions])
    monkeypatch.setattr(TrainingContext, "pose", (0, 0))
    losses = replace(tiny_config().losses, tracks=1.0)
    config = tiny_config(key_points=24, stretching=True, blending="aligned", graph=8, losses=losses, frames=5)
    run = TrainingContext(videos, config, 0, torch.device("cpu"))
    settle_stretching(run)
    assert run.config.stretching == run.model.config.stretching == stretches
    without = TrainingContext(videos, replace(config, losses=tiny_config().losses), 0, torch.device("cpu"))
    settle_stretching(without)
    assert without.config.stretching


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> TrainingContext:
    """The tiny object after a short training, with tracks of a bar that bends."""
    videos = tiny_videos(tmp_path_factory.mktemp("tracked")).select("train")
    for index, name in enumerate(videos.names):
        frames = videos.read([index], range(6), range(5), 32)[0].numpy()
        write_motion(videos.folder, name, frames, bent_bar())
    losses = replace(tiny_config().losses, tracks=1.0)
    joint = replace(tiny_config().joint, surface_steps=3)
    config = tiny_config(blending="aligned", stretching=True, gaussians=300, losses=losses, joint=joint)
    run = TrainingContext(videos, config, 0, torch.device("cpu"))
    run.model = train(videos, config)
    return run


def test_training_settles_whether_the_object_stretches(tracked):
    assert tracked.config.stretching and not tracked.model.config.stretching


def test_a_skin_keeps_the_key_points_that_were_chosen_by_motion(tracked, monkeypatch):
    run = TrainingContext(tracked.videos, tracked.model.config, 0, torch.device("cpu"))
    run.model = copy.deepcopy(tracked.model)
    chosen = []

    def bound(model, motion, paths, tolerance):
        assert tolerance == pytest.approx(spacing(model.means).mean().item())
        bind(model, motion, paths, tolerance)
        model.neighbours = 11 - model.neighbours  # what no search finds
        chosen.append(model.neighbours.clone())

    monkeypatch.setattr("zoo.dimo.surface.bind", bound)
    make_skin(run, 2)
    assert len(chosen) == 1 and torch.equal(run.model.neighbours, chosen[0])
    run.model.assign()
    assert not torch.equal(run.model.neighbours, chosen[0])
