"""`zoo.animate3d.rivals`: frames that the videos do not decide."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from renderers.cameras import orbit_cameras
from zoo.animate3d import load_model
from zoo.animate3d.appearance import calibrate
from zoo.animate3d.fit_report import FitReport
from zoo.animate3d.fitting import fit
from zoo.animate3d.graph import GraphPose, make_graph, still_pose
from zoo.animate3d.rivals import contested
from zoo.animate3d.solver import STIFFNESS, Problem
from zoo.animate3d.surface import make_surface
from zoo.animate3d.views import make_views

FRAMES, SIDE, MOVE = 3, 48, np.array([0.2, 0.1, 0.0])


@pytest.fixture(scope="module")
def ball():
    """A grey ball, whose pictures do not tell how it is turned."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    return load_model((np.array(mesh.vertices), np.array(mesh.faces)), name="ball").asset


@pytest.fixture(scope="module")
def cameras():
    return orbit_cameras(
        np.radians([0, 90, 180, 270]), np.radians(15), 3.0, fov_y=np.radians(40), width=SIDE, height=SIDE
    )


@pytest.fixture(scope="module")
def problem(ball, cameras) -> Problem:
    """It moves by `MOVE` (of its diameter) per frame."""
    surface = make_surface(ball, ball.pose(None, 0.0))
    views = make_views(
        np.zeros((4, FRAMES, SIDE, SIDE, 4), np.float32), cameras, surface.centre, surface.scale
    )
    still = Problem(surface, make_graph(surface, 20), views, calibrate(surface, views), STIFFNESS["rendered"])
    level = views.level(1.0, 1)
    frames = np.stack([still.draw(pose, level)[0].image.copy() for pose in moved(still)])
    # No video is followed exactly.
    noise = np.random.default_rng(0).normal(scale=0.1, size=frames.shape).astype(np.float32)
    frames[..., :3] = np.clip(frames[..., :3] + noise[..., :3], 0, frames[..., 3:])
    return replace(still, views=replace(views, frames=frames, _levels={}), _canvases={})


def moved(problem: Problem, turn: float = 0.0, more: float = 1.0) -> list[GraphPose]:
    """The true motion if it is not turned about the centre (degrees per frame), and goes as far."""
    start, poses = still_pose(problem.graph), []
    for frame in range(FRAMES):
        rotation = Rotation.from_euler("y", frame * turn, degrees=True).as_matrix()
        positions = start.positions @ rotation.T + frame * more * MOVE
        poses.append(GraphPose(rotation @ start.rotations, positions))
    return poses


def test_far_motions_are_rivals_only_if_they_show_the_videos_as_well(problem):
    truth = moved(problem)
    assert contested(problem, truth, [truth, moved(problem, turn=60)]).tolist() == [False, True, True]
    assert not contested(problem, truth, [truth, moved(problem, turn=3)]).any()  # near
    assert not contested(problem, truth, [truth, moved(problem, more=0.3)]).any()  # the pictures refute it
    one_frame = [truth[0], moved(problem, turn=60)[1], truth[2]]
    assert contested(problem, truth, [truth, one_frame]).tolist() == [False, True, False]


def test_contested_frames_of_best_are_doubtful_and_reported(problem, ball, cameras, monkeypatch):
    """The methods agree on where the ball is, and not on how it is turned."""
    monkeypatch.setattr("zoo.animate3d.fitting.make_graph", lambda *_: problem.graph)
    monkeypatch.setattr("zoo.animate3d.fitting.polish", lambda _, poses, *progress: poses)
    monkeypatch.setattr("zoo.animate3d.fitting.mend", lambda _, motions, *limits: (motions[0], [0] * FRAMES))
    monkeypatch.setattr("zoo.animate3d.fitting.track", lambda *_: moved(problem))
    videos = problem.views.frames.swapaxes(0, 1)
    for turn, disputed in ((60, [False, True, True]), (0, [False] * 3)):
        monkeypatch.setattr("zoo.animate3d.paper.track_field", lambda *_, turn=turn: moved(problem, turn))
        result = fit(ball, videos, cameras, np.arange(FRAMES), method="best")
        assert result.contested.tolist() == result.doubtful.tolist() == disputed
        about = FitReport(
            videos=SimpleNamespace(times=np.arange(FRAMES)), cameras=None, alignment=None,
            agreement=SimpleNamespace(sentence=str), fit=result, sentence=None, video_model=None,
        )  # fmt: skip
        said = "in 2 of 3 frames, a motion far from this one shows the videos nearly as well"
        assert (said in about.sentences()) == any(disputed)
        assert about.doubtful_frames == np.flatnonzero(disputed).tolist()
