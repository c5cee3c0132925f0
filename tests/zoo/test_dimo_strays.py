"""Stray Gaussians: those that come off the object are found and removed, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_motions import VIEWS, tiny_config, tiny_videos

from renderers.cameras import orbit_cameras
from renderers.gaussians import TensorCameras, render
from zoo.dimo.config import DIMOConfig
from zoo.dimo.data import MotionVideos, write_motion
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.dimo.strays import remove_strays, stray_gaussians
from zoo.dimo.training import train
from zoo.metrics.rigidity import torn_points

FRAMES, RESOLUTION = 5, 64
BODY, WING = 100, 60  # Gaussians
STRAYS = [11, 44, 87]  # Gaussians of the body that the wing carries away


class _TwoParts(DIMO):
    """A body that stays and a wing that rises by `lift`; each is driven by a key point of its own."""

    lift = 0.6

    def trajectories(self, z: torch.Tensor, phases: torch.Tensor) -> KeyPointMotion:
        positions = self.key_points.expand(len(z), len(phases), 2, 3).clone()
        positions[..., 1, 1] += self.lift * phases[:, None].expand(-1, 1)[:, 0]
        rotations = torch.tensor([1.0, 0, 0, 0]).expand(len(z), len(phases), 2, 4)
        return KeyPointMotion(positions, rotations)


def _model(strays: list[int], lift: float = 0.6) -> _TwoParts:
    config = replace(tiny_config(), key_points=2, gaussians=BODY + WING, neighbours=1, frames=FRAMES)
    model, rng = _TwoParts(config, 1), torch.Generator().manual_seed(0)
    model.lift = lift
    body = (torch.rand(BODY, 3, generator=rng) - 0.5) * 0.3
    wing = (torch.rand(WING, 3, generator=rng) - 0.5) * 0.2 + torch.tensor([0.4, 0.0, 0.0])
    with torch.no_grad():
        model.means.copy_(torch.cat([body, wing]))
        model.key_points.copy_(torch.tensor([[0.0, 0, 0], [0.4, 0, 0]]))
        model.log_scales.fill_(-3.5)
        model.opacity_logits.fill_(3.0)
    model.neighbours[BODY:] = 1
    model.neighbours[strays] = 1
    return model


@pytest.fixture
def videos(tmp_path: Path) -> MotionVideos:
    """What the object does: no Gaussian of the body moves."""
    tiny = tiny_videos(tmp_path, 1 + 1, RESOLUTION).select([0])
    cameras = orbit_cameras(
        torch.linspace(0, 6.28, VIEWS + 1)[:-1].numpy(),
        0.2,
        2.0,
        fov_y=0.59,
        width=RESOLUTION,
        height=RESOLUTION,
    )
    model = _model([])
    with torch.no_grad():
        scenes = model.skin(model.trajectories(model.mu, torch.tensor(tiny.phases)))
        picture = render(scenes, TensorCameras.from_cameras(cameras))
    frames = torch.cat([picture.rgb / picture.alpha.clamp(min=1e-6), picture.alpha], -1).clamp(0, 1)
    write_motion(tmp_path, tiny.files[0], (frames * 255).byte().transpose(0, 1).numpy())
    return replace(tiny, world_to_camera=cameras.world_to_camera[None], K=cameras.K[None])


def test_exactly_those_that_come_off_are_stray(videos):
    stray = stray_gaussians(_model(STRAYS), videos, videos.train_views)
    assert stray.nonzero()[:, 0].tolist() == STRAYS


def test_a_right_model_has_none(videos):
    assert not stray_gaussians(_model([]), videos, videos.train_views).any()


def test_a_limb_in_a_wrong_place_is_no_stray(videos):
    """All of the wing is outside the silhouette, but it holds together."""
    stray = stray_gaussians(_model(STRAYS, lift=-0.6), videos, videos.train_views)
    assert stray.nonzero()[:, 0].tolist() == STRAYS


def test_one_that_floats_is_stray_without_being_torn(videos):
    """It is half a metre below the object, as far as it is from its neighbours, which therefore do not move away."""
    model = _model([])
    with torch.no_grad():
        model.means[0] = torch.tensor([0.2, -0.5, 0.0])
        model.log_scales[0], model.opacity_logits[0] = -2.5, -0.5
        model.neighbours[0] = 1
        scenes = model.skin(model.trajectories(model.mu, torch.tensor(videos.phases)))
    assert not torn_points(scenes.means, model.means)[:, 0].any()
    assert stray_gaussians(model, videos, videos.train_views).nonzero()[:, 0].tolist() == [0]


def test_strays_that_hang_together_are_all_removed(videos):
    """Two stay below the object, and two leave them for its inside: these are alone only when those are gone."""
    model = _model([])
    with torch.no_grad():
        corners = torch.tensor(
            [[-0.02, -0.5, -0.02], [-0.02, -0.5, 0.02], [0.02, -0.5, -0.02], [0.02, -0.5, 0.02]]
        )
        model.means[:4] = corners
        model.log_scales[:4], model.opacity_logits[:4] = -3.0, 0.0
        model.neighbours[2:4] = 1
    assert stray_gaussians(model, videos, videos.train_views).nonzero()[:, 0].tolist() == [0, 1]
    assert remove_strays(model, videos, videos.train_views) == 4
    assert len(model.means) == BODY + WING - 4


def test_torn_inside_the_object_is_no_stray(videos):
    """A slower wing carries Gaussians of the body along, but not far enough to leave it."""
    model = _model([], lift=0.2)
    inner = model.means[:BODY].norm(dim=-1).argsort()[:2]
    model.neighbours[inner] = 1
    with torch.no_grad():
        model.means[inner, 1] -= 0.1
        scenes = model.skin(model.trajectories(model.mu, torch.tensor(videos.phases)))
    assert torn_points(scenes.means, model.means)[:, inner].any()
    assert not stray_gaussians(model, videos, videos.train_views)[inner].any()


def test_they_are_removed_from_all_arrays(videos):
    model = _model(STRAYS)
    colors, kept = model.colors.detach().clone(), [i for i in range(BODY + WING) if i not in STRAYS]
    assert remove_strays(model, videos, videos.train_views) == len(STRAYS)
    for name in ("means", "log_scales", "quats", "opacity_logits", "colors", "neighbours"):
        assert len(getattr(model, name)) == len(kept)
    assert torch.equal(model.colors, colors[kept]) and model.colors.requires_grad
    assert not stray_gaussians(model, videos, videos.train_views).any()


def test_training_ends_with_it_if_the_configuration_says_so(tmp_path, monkeypatch):
    """`bundled()` and `laptop()` say so, `paper()`, as published, does not."""
    assert DIMOConfig.bundled().joint.remove_strays and DIMOConfig.laptop().joint.remove_strays
    assert not DIMOConfig.paper().joint.remove_strays
    calls = []
    monkeypatch.setattr("zoo.dimo.training.remove_strays", lambda *arguments: calls.append(arguments))
    videos, config = tiny_videos(tmp_path).select("train"), tiny_config()
    train(videos, config)
    assert not calls
    model = train(videos, replace(config, joint=replace(config.joint, remove_strays=True)))
    assert [(called is model, views) for called, _, views in calls] == [(True, [0, 1, 2, 3])]
