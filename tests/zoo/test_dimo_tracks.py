"""Key-point tracks from surface points with known motions, their loss by hand, and an object that turns around."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_motions
import torch
from scipy.spatial.transform import Rotation
from tiny_motions import FRAMES, tiny_config, tiny_videos, tracked_videos

from renderers.cameras import Cameras
from renderers.gaussians.features import rotation_matrices
from zoo.dimo import losses
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos, write_motion
from zoo.dimo.decoder import MotionDecoder
from zoo.dimo.evaluation import evaluate, torn
from zoo.dimo.feed import Feed
from zoo.dimo.model import DIMO
from zoo.dimo.tracks import UNUSED, USED, key_point_tracks
from zoo.dimo.training import train


def _cloud(count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)).astype(np.float32)


def test_rigid_motions_have_their_own_rotations_and_shifts(tmp_path):
    cloud, turns = _cloud(), Rotation.from_rotvec([[0, 0, 0], [0.3, 2.0, -0.4], [0, math.pi, 0]])
    shifts = np.array([[0, 0, 0], [0.1, 0.2, -0.3], [0, 0.5, 0]])
    moving = np.stack([cloud @ turn.as_matrix().T + shift for turn, shift in zip(turns, shifts, strict=True)])
    still = np.broadcast_to(cloud, moving.shape)
    tracks = key_point_tracks(tracked_videos(tmp_path, [still, moving.astype(np.float32)]), (0, 0), 10)
    assert tracks.points.shape == (10, 3)
    assert all((cloud[USED] == point.numpy()).all(1).any() for point in tracks.points)
    matrices = torch.tensor(turns.as_matrix(), dtype=torch.float32)
    for t in range(3):
        expected = tracks.points @ matrices[t].T + torch.tensor(shifts[t], dtype=torch.float32)
        assert torch.allclose(tracks.positions[1, t], expected, atol=1e-5)
        assert torch.allclose(tracks.rotations[1, t], matrices[t].expand(10, 3, 3), atol=1e-4)
    assert torch.allclose(tracks.root_rotations[1], matrices, atol=1e-4)
    assert torch.allclose(tracks.root_shifts[1], torch.tensor(shifts, dtype=torch.float32), atol=1e-4)
    assert torch.equal(tracks.positions[0], tracks.points.expand(3, 10, 3))


def test_what_touches_at_rest_and_separates_does_not_turn_together(tmp_path):
    """Two blocks side by side, of which one turns about an axis far away: every key point has its own block's turn."""
    cloud = _cloud(600)
    right = cloud[:, 0] > 0
    turn = Rotation.from_rotvec([0, 0, 1.2]).as_matrix()
    parted = cloud.copy()
    parted[right] = (parted[right] - [0, -1, 0]) @ turn.T + [1, -1, 0]
    motion = np.stack([cloud, parted]).astype(np.float32)
    tracks = key_point_tracks(tracked_videos(tmp_path, [motion]), (0, 0), 40)
    expected = [torch.tensor(turn if point[0] > 0 else np.eye(3)).float() for point in tracks.points]
    assert torch.allclose(tracks.rotations[0, 1], torch.stack(expected), atol=1e-3)
    near = tracks.points[:, 0].abs() < 0.1
    assert near.sum() >= 3  # some key points have neighbours in space beyond the gap


def test_points_that_are_missing_few_or_not_the_same_are_not_used(tmp_path):
    cloud = np.repeat(_cloud()[None], 3, 0)
    cases = {"none": [cloud, None], "fewer": [cloud, cloud[:, :150]], "shuffled": [cloud, cloud[:, ::-1]]}
    for name, tracked in cases.items():
        (tmp_path / name).mkdir()
        assert key_point_tracks(tracked_videos(tmp_path / name, tracked), (0, 0), 10) is None, name
    (tmp_path / "good").mkdir()
    videos = tracked_videos(tmp_path / "good", [cloud, cloud])
    assert key_point_tracks(videos, (0, 0), 10) is not None
    assert key_point_tracks(videos, (0, 0), 101) is None  # of 200 points, 100 are for training
    used = set(range(200)[USED])
    assert len(used) == 100 and used.isdisjoint(range(200)[UNUSED])


def test_the_error_of_a_track_by_hand():
    """1 cm off, and turned by θ: a point at distance ρ is off by the chord 2ρ sin(θ/2)."""
    place, half = torch.zeros(1, 3), 0.35
    quat = torch.tensor([[math.cos(half), 0.0, math.sin(half), 0.0]])
    same = torch.eye(3)[None]
    expected = 1e-4 + (2 * 0.05 * math.sin(half)) ** 2
    for factor in (1.0, -1.0, 0.1):  # any norm and sign
        error = losses.track_error(place + torch.tensor([0.01, 0, 0]), factor * quat, place, same, 0.05)
        assert error.item() == pytest.approx(expected, rel=1e-4)
    assert losses.track_error(place, quat, place, rotation_matrices(quat), 0.05).item() == pytest.approx(
        0, abs=1e-9
    )


def test_the_root_moves_all_key_points_rigidly():
    config = tiny_config(root=True)
    torch.manual_seed(0)
    decoder, points = MotionDecoder(config), torch.randn(9, 3)
    phases, z = torch.tensor([0.0, 0.4]), torch.randn(3, config.latent)
    offsets, rotations = decoder(points, phases, z)
    assert offsets.abs().max() == 0 and torch.equal(
        rotations[..., 0], torch.ones(3, 2, 9)
    )  # the identity at first
    with torch.no_grad():
        decoder.root.output.weight.normal_(0, 0.3)
        shift, turn = decoder.root(phases, z)
        offsets, rotations = decoder(points, phases, z)
        matrices = rotation_matrices(turn)
        expected = torch.einsum("btij,kj->btki", matrices, points) + shift[:, :, None]
        assert torch.allclose(points + offsets, expected, atol=1e-5)
        assert torch.allclose(
            rotation_matrices(rotations), matrices[:, :, None].expand(3, 2, 9, 3, 3), atol=1e-5
        )
        # With motions of their own: the root applied to what the decoder without it returns.
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        with_root = decoder(points, phases, z)[0]
        shift, turn = decoder.root(phases, z)
        decoder.root = None
        own = points + decoder(points, phases, z)[0]
        moved = torch.einsum("btij,btkj->btki", rotation_matrices(turn), own) + shift[:, :, None]
        assert torch.allclose(points + with_root, moved, atol=1e-5)


def test_a_model_without_a_root_has_the_tensors_of_before():
    assert not [name for name in DIMO(tiny_config(), 2).state_dict() if "root" in name]
    assert [name for name in DIMO(tiny_config(root=True), 2).state_dict() if "root" in name]


def test_tracks_need_no_pictures(tmp_path):
    """The frames are drawn from all of a motion, half as many as there would be images."""
    videos = tiny_videos(tmp_path)
    feed = Feed(videos, videos.train_views, (2, 3, 2), ((0, 16),), 4, (0, 1), pictures=False)
    batches = [feed.batch(step) for step in range(20)]
    assert all(len(b.motions) == 2 and len(b.frames) == 3 and b.targets.numel() == 0 for b in batches)
    assert {int(frame) for b in batches for frame in b.frames} == set(range(FRAMES))


def _turning(folder) -> MotionVideos:
    """Two motions of a body made of balls: it turns around in one, and shrugs in the other."""
    videos = tiny_videos(folder, motions=2)
    body = np.random.default_rng(0).uniform(-1, 1, (60, 3)) * [0.3, 0.15, 0.08]
    body = body[body[:, 0].argsort()]  # the balls are coloured in this order
    for index, stem in enumerate(videos.files):
        turns = Rotation.from_rotvec([[0, (1 - index) * math.pi * t / FRAMES, 0] for t in range(FRAMES)])
        points = np.stack(
            [body @ turn.as_matrix().T + [0, 0.02 * t * index, 0] for t, turn in enumerate(turns)]
        )
        cameras = Cameras(videos.world_to_camera[0], videos.K[0], videos.resolution, videos.resolution)
        write_motion(folder, stem, tiny_motions._draw(points.astype(np.float32), cameras), points)
    return videos


def test_with_tracks_the_key_points_stay_where_they_are_tracked(tmp_path):
    """So the canonical pose is one of the object's own. Control: without tracks, they are trained."""
    config = tiny_config(blending="aligned", root=True)
    config = replace(config, key_points=6, losses=replace(config.losses, tracks=1000.0))
    context = TrainingContext(_turning(tmp_path), config, 0, torch.device("cpu"))
    model = train(context.videos, config)
    assert torch.equal(model.key_points, context.tracks.points)
    assert (model.means - context.tracks.points[0]).abs().max() > 0 and model.log_radii.std() > 0  # these are
    free = replace(config, losses=replace(config.losses, tracks=0.0))
    guide = train(context.videos, replace(free, joint=replace(free.joint, steps=1))).key_points
    assert not torch.equal(train(context.videos, free).key_points, guide)


@pytest.mark.slow
def test_an_object_that_turns_around_is_turned_and_not_reshaped(tmp_path):
    """A flat body, blue at one end and red at the other, turns by 144°; its silhouettes do not show which way round."""
    config = tiny_config(blending="aligned", root=True)
    config = replace(
        config,
        key_points=6,
        losses=replace(config.losses, tracks=1000.0),
        pretraining=replace(config.pretraining, steps=250, decoder=(3e-3, 1e-3)),
        joint=replace(config.joint, steps=60, resolutions=((0, 16),)),
    )
    videos = _turning(tmp_path)
    turned = train(videos, config)
    report = evaluate(turned, videos)
    still = replace(config, losses=replace(config.losses, tracks=0.0), root=False, blending="linear")
    reshaped = evaluate(train(videos, still), videos)
    assert report["motion_error"] < 0.03 < 0.1 < reshaped["motion_error"]
    assert report["torn"] == max(0.0, float(torn(turned, turned.mu, torch.tensor(videos.phases)).mean()))
    assert report["torn_truth"] == 0
