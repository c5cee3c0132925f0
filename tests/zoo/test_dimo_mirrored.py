"""Mirror images of tracked motions against motions made directly, and a decoder that has learnt them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_motions import tiny_config

from zoo.dimo import polish as polishing
from zoo.dimo.config import DIMOConfig
from zoo.dimo.context import TrainingContext
from zoo.dimo.data import MotionVideos, write_motion
from zoo.dimo.fitting import nearest_latents, starting_latents
from zoo.dimo.polish import polish
from zoo.dimo.tracks import KeyPointTracks, key_point_tracks, mirrored_tracks, symmetric

T = 9


def _body() -> np.ndarray:
    """A trunk and two arms, symmetric about x = 0: 400 points, of which every second one is on the left."""
    rng = np.random.default_rng(0)
    trunk = rng.uniform([0, -0.5, -0.1], [0.1, 0.5, 0.1], (100, 3))
    arm = rng.uniform([0.2, 0.2, -0.1], [0.7, 0.4, 0.1], (100, 3))
    half = np.concatenate([trunk, arm])
    pairs = np.stack([half, half * [-1, 1, 1]], 1)  # [200, 2, 3]
    return np.concatenate([pairs[:, 0], pairs[:, 1]]).repeat(2, 0)  # training takes every second point


def _turned(body: np.ndarray, side: int, vector: list[float]) -> np.ndarray:
    """The arm at the positive (1) or negative (-1) side of x turns about its shoulder, and back: [T, P, 3]."""
    arm, shoulder = side * body[:, 0] > 0.15, np.array([side * 0.2, 0.3, 0.0])
    angles = np.sin(np.pi * np.arange(T) / (T - 1))
    paths = np.repeat(body[None], T, 0)
    for t, turn in enumerate(Rotation.from_rotvec(angles[:, None] * np.array(vector))):
        paths[t, arm] = turn.apply(body[arm] - shoulder) + shoulder
    return paths


def _walked(body: np.ndarray) -> np.ndarray:
    """The whole body turns and moves away, and stays there: [T, P, 3]."""
    part = np.arange(T)[:, None] / (T - 1)
    turns = Rotation.from_rotvec(part * [0, 1.2, 0]).as_matrix()
    return body @ turns.transpose(0, 2, 1) + (part * [0.3, 0.0, 0.5])[:, None]


def _videos(folder, motions: list[np.ndarray], heldout: int = 0) -> MotionVideos:
    """Motions [T, P, 3] as motion videos without anything to see, the last of which are held out."""
    names = [f"motion {m}" for m in range(len(motions))]
    for name, points in zip(names, motions, strict=True):
        write_motion(folder, name, np.zeros((1, T, 8, 8, 4), np.uint8), points.astype(np.float32))
    splits = ["train"] * (len(names) - heldout) + ["heldout"] * heldout
    eyes = np.tile(np.eye(4), (len(names), 1, 1, 1)), np.tile(np.eye(3), (len(names), 1, 1, 1))
    return MotionVideos(folder, "body", names, names, splits, names, T, 8, np.arange(T) / T, *eyes, [0], [])


def test_what_the_left_arm_did_the_right_one_does_in_the_mirror(tmp_path):
    body = _body()
    motions = [_turned(body, 1, [0.3, 0.0, 1.0]), _walked(body)]
    turned_left = _turned(
        body, -1, [0.3, 0.0, -1.0]
    )  # a reflection keeps the axis' x and reverses the others
    walked_left = _walked(body * [-1, 1, 1]) * [-1, 1, 1]
    videos = _videos(tmp_path, [*motions, turned_left, walked_left])
    truth = key_point_tracks(videos, (0, 0), 40)
    mirrored = mirrored_tracks(videos.select([0, 1]), (0, 0), truth.points)
    assert torch.equal(mirrored.points, truth.points)
    for name in ("positions", "rotations", "root_rotations", "root_shifts"):
        assert torch.allclose(getattr(mirrored, name), getattr(truth, name)[2:], atol=1e-4), name
    assert (mirrored.positions - truth.positions[:2]).abs().max() > 0.1  # control: the motions themselves


def test_an_object_without_symmetry_has_no_mirror_images(tmp_path):
    body = _body()
    tilted = body @ Rotation.from_rotvec([0, 0.4, 0.4]).as_matrix().T
    videos = _videos(tmp_path, [_walked(tilted)])
    assert mirrored_tracks(videos, (0, 0), key_point_tracks(videos, (0, 0), 40).points) is None
    rng = np.random.default_rng(1)
    for half_width, expected in ((0.3, True), (0.0, False)):  # points at random on both sides, or on one
        cloud = torch.from_numpy(rng.uniform([-half_width, -0.3, -0.3], [0.3, 0.3, 0.3], (500, 3)))
        assert symmetric(cloud) is expected


def _config() -> DIMOConfig:
    config = tiny_config(blending="aligned", root=True, key_points=20, latent=8, width=64)
    return replace(config, losses=replace(config.losses, tracks=1000.0))


def _polished(videos: MotionVideos, steps: int = 300) -> TrainingContext:
    """A decoder that has seen nothing but the tracks of the motions to train on."""
    run = TrainingContext(videos.select("train"), _config(), 0, torch.device("cpu"))
    run.__dict__["pose"] = (0, 0)  # there are no pictures to choose it by
    with torch.no_grad():
        run.model.key_points.copy_(run.tracks.points)
    polish(run, steps)
    return run


def _error(run: TrainingContext, z: torch.Tensor, tracks: KeyPointTracks) -> float:
    """Mean distance of the key points from tracks of one motion or several."""
    with torch.no_grad():
        paths = run.model.paths(z, torch.tensor(run.videos.phases))
    return float((paths - tracks.positions).norm(dim=-1).mean())


def _waves(body: np.ndarray) -> list[np.ndarray]:
    """Three motions to train on, and the mirror image of the first."""
    first, last = [0.3, 0.0, 1.0], [0.3, 0.0, -1.0]
    return [_turned(body, 1, first), _turned(body, -1, [0, 0, 0.7]), _walked(body), _turned(body, -1, last)]


def test_the_decoder_shows_mirror_images_that_no_training_motion_is(tmp_path, monkeypatch):
    videos = _videos(tmp_path, _waves(_body()), heldout=1)
    truth = key_point_tracks(videos, (0, 0), 20)
    unseen = KeyPointTracks(truth.points, *(field[3:] for field in truth[1:]))

    def nearest(run: TrainingContext) -> torch.Tensor:
        phases = torch.tensor(run.videos.phases)
        return nearest_latents(run.model, phases, unseen.positions, partial(run.rng, 5, 2))

    with_images = _polished(videos)
    assert len(with_images.model.mu) == 3  # the latents of the mirror images are dropped
    found = _error(with_images, nearest(with_images), unseen)
    trained = _error(with_images, with_images.model.mu, with_images.tracks)
    monkeypatch.setattr(polishing, "mirrored_tracks", lambda *_: None)
    without = _polished(videos)
    lost = _error(without, nearest(without), unseen)
    assert found < 0.4 * lost
    assert trained < 0.03 and found < 0.04  # key points move by up to 0.5


def test_a_fit_may_start_from_the_mirror_image_of_a_trained_motion(tmp_path):
    """Nothing but the model is known of it. Wherever its Gaussians are, its key points are symmetric."""
    videos = _videos(tmp_path, _waves(_body()), heldout=1)
    truth = key_point_tracks(videos, (0, 0), 20)
    unseen = KeyPointTracks(truth.points, *(field[3:] for field in truth[1:]))
    run = _polished(videos)
    starts = starting_latents(run.model)
    assert torch.equal(starts[:4], torch.cat([torch.zeros(1, 8), run.model.mu]).detach())
    errors = torch.tensor([_error(run, z[None], unseen) for z in starts])
    assert len(starts) == 7 and errors.argmin() == 4  # the mirror image of the first motion
    assert errors[4] < 0.7 * errors[:4].min()  # with 20 key points, it is known to within 0.04
    run.model.key_points.data += torch.tensor([0.3, 0, 0])
    assert len(starting_latents(run.model)) == 4


def test_symmetry_is_judged_on_the_device_of_the_points():
    """Tensors without data stand for those of a GPU: whether they are symmetric is all that cannot be told of them."""
    with pytest.raises(RuntimeError, match="item"):
        symmetric(torch.zeros(8, 3, device="meta"))


def test_nothing_of_a_held_out_motion_is_used(tmp_path):
    """With its file gone, and with another motion in its place, the model is the same to the bit."""
    motions = _waves(_body())
    models = []
    for number, last in enumerate((motions[3], 2 * motions[3], None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        videos = _videos(folder, [*motions[:3], motions[3] if last is None else last], heldout=1)
        if last is None:
            for file in folder.glob("motion 3*"):
                file.unlink()
        models.append(_polished(videos, 5).model.state_dict())
    for other in models[1:]:
        assert all(torch.equal(models[0][name], other[name]) for name in other)
    seen = _polished(_videos(tmp_path / "0", [*motions[:2], motions[3]]), 5).model.state_dict()
    assert not torch.equal(seen["mu"], models[0]["mu"])  # control: it matters which motions are trained on


@pytest.mark.parametrize("latent_space", [True, False])
def test_without_a_latent_space_there_are_no_mirror_images(tmp_path, monkeypatch, latent_space):
    """The constant that stands for a motion has no place for more of them."""
    videos, asked = _videos(tmp_path, _waves(_body())[:2]), []
    monkeypatch.setattr(polishing, "mirrored_tracks", lambda *_: asked.append(1))
    run = TrainingContext(videos, replace(_config(), latent_space=latent_space), 0, torch.device("cpu"))
    run.__dict__["pose"] = (0, 0)
    polish(run, 1)
    assert bool(asked) is latent_space
