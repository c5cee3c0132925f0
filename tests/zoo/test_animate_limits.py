"""What bounds fits to warped videos: `python -m benchmarks.animate_limits --warp`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from zoo.animate3d.graph import make_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The scripts, which are not installed: the clips, the limits, and those of warped videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        names = "animate", "animate_limits", "animate_warp"
        return tuple(importlib.import_module(f"benchmarks.{name}") for name in names)


def test_a_field_moves_what_is_in_the_picture_against_its_direction(bench):
    clips, _, warp = bench
    field = np.zeros((2, 64, 64))
    field[0], field[1] = 2.0, -3.0  # pixels show what is 2 below and 3 to the left
    places = np.array([[20.5, 30.5]])
    assert np.allclose(warp.shifts(field, places), [[3, -2]])
    videos = np.zeros((1, 2, 64, 64, 4), np.uint8)
    videos[0, :, 30, 20] = 255
    shown = clips.warped(videos, field[None])
    assert np.argwhere(shown[0, 1, ..., 3]).tolist() == [[28, 23]]
    assert np.array_equal(shown[0, 0], videos[0, 0]), "the first frame is right"
    field[1] = 0.5 * (np.arange(64) + 0.5)  # p + p / 2 is where it was
    assert np.allclose(warp.shifts(field, places), [[20.5 / 1.5 - 20.5, -2]])


def test_two_orthogonal_views_average_what_both_show(bench):
    """One sees x and y, the other z and y; the third point is seen by the first view only, the last by none."""
    _, _, warp = bench
    slopes = np.array([[[10.0, 0, 0], [0, 10, 0]], [[0, 0, 10], [0, 10, 0]]])[:, None].repeat(4, 1)
    moved = np.array([[[1.0, 2], [0, 2], [1, 2], [1, 2]], [[3, 4], [0, -2], [3, 4], [3, 4]]])
    seen = np.array([[True, True, True, False], [True, True, False, False]])
    expected = [[0.1, 0.3, 0.3], [0, 0, 0], [0.1, 0.2, 0], [0, 0, 0]]
    assert np.allclose(warp.triangulated(slopes, moved, seen), expected)


@pytest.fixture(scope="module")
def case(bench):
    """A drop in three frames: its problem and true points."""
    clips, limits, _ = bench
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "FRAMES", 3)
        (clip,) = clips.clips(None, ["drop"])
    problem = limits.problem_of(clip, 4, 48)
    return problem, limits.true_points(problem.surface, clip.truth)


def test_a_prior_keeps_what_it_does_not_forbid(bench, case):
    """A turn and a shift of the whole are left as they are; turned neighbourhoods become one turn."""
    _, _, warp = bench
    problem, true = case
    points, views = true[1], problem.views
    _, slopes, depths = warp.projected(points, views.extrinsics, views.intrinsics)
    step = 1e-6 * np.cos(np.arange(points.size).reshape(points.shape))
    apart = np.diff(
        [warp.projected(points + s * step, views.extrinsics, views.intrinsics)[0] for s in (-1, 1)], axis=0
    )
    assert np.allclose(np.einsum("vnai,ni->vna", slopes, 2 * step), apart[0], rtol=1e-4, atol=1e-9)
    assert depths.min() > 0
    all_see = np.ones(depths.shape, bool)
    turn = Rotation.from_rotvec([0, 1e-4, 2e-4]).as_matrix() - np.eye(3)
    rigid = points @ turn.T + [1e-3, 0, -2e-3]
    bent = rigid * np.sign(points[:, :1])
    one, many = (make_graph(problem.surface, count) for count in (1, 40))
    for graph, off, kept in ((one, rigid, True), (many, rigid, True), (one, bent, False)):
        moved = np.einsum("vnai,ni->vna", slopes, off)
        found = warp.rigidly(points, graph, slopes, moved, all_see)
        assert np.allclose(found, off, atol=2e-6) == kept
    assert np.linalg.norm(found, axis=1).mean() < 0.7 * np.linalg.norm(bent, axis=1).mean()


def test_without_a_warp_nothing_is_off_and_what_disagrees_is_halved(bench, case, monkeypatch):
    """The first view is moved by a pixel to the right: two opposite views disagree, half of it remains."""
    _, _, warp = bench
    monkeypatch.setattr(warp, "NEIGHBOURHOODS", (12, 1))
    problem, true = case
    fields = np.zeros((4, 2, 48, 48))
    for off in warp.floors(problem, true, fields, [1, 2]).values():
        assert np.nanmax(off) < 1e-9
    fields[0, 1] = -1.0
    found = warp.floors(problem, true, fields, [1, 2])
    alone, _, whole = found.values()
    assert list(found) == ["each point, seen in two views", "12 rigid neighbourhoods", "the whole rigid"]
    assert 0.3 < whole.mean() < 0.8 < np.nanmax(alone) < 1.4
    views, twice = problem.views, np.zeros(len(alone), bool)
    for points in true[1:]:
        places, _, depths = warp.projected(points, views.extrinsics, views.intrinsics)
        seen = warp.visible(problem, points, places, depths)
        front, back = (sign * points[:, 2] > np.quantile(sign * points[:, 2], 0.9) for sign in (1, -1))
        assert seen[0, front].mean() > 0.7 > 0.2 > seen[0, back].mean()
        assert seen[2, back].mean() > 0.7 > 0.2 > seen[2, front].mean()
        twice |= seen.sum(0) > 1
    assert np.array_equal(np.isnan(alone), ~twice) and 0.005 < np.isnan(alone).mean() < 0.5
