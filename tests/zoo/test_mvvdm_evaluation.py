"""The video metrics, on scenes whose exact values can be computed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from renderers.cameras import orbit_cameras
from zoo.metrics import color_histogram_overlap, optical_flow, view_error
from zoo.mvvdm.evaluation import TrueClip, compare, comparison_sheet, evaluate

SIZE = 64


def waves(shift: tuple[float, float]) -> torch.Tensor:
    """Waves of long wavelength, translated by exactly `shift` pixels (right, down), [1, SIZE, SIZE]."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randint(-4, 5, (2, 40), generator=generator)
    phases = 2 * math.pi * torch.rand(40, generator=generator)
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    angles = 2 * math.pi * (rows * (y - shift[1])[..., None] + columns * (x - shift[0])[..., None]) / SIZE
    return (0.5 + 1.5 * torch.sin(angles + phases).mean(-1))[None]


@pytest.mark.parametrize("shift", [(0.5, 0.3), (2.3, -1.2), (5.0, 3.5)])
def test_the_flow_of_a_shift_is_the_shift(shift):
    flow = optical_flow(waves((0, 0)), waves(shift))[0]
    wrong = (flow - torch.tensor(shift)[:, None, None]).norm(dim=0)[8:-8, 8:-8].mean()
    assert wrong < 0.2
    backwards = optical_flow(waves(shift), waves((0, 0)))[0]
    assert (backwards - torch.tensor(shift)[:, None, None]).norm(dim=0).mean() > math.hypot(*shift)


def test_where_nothing_is_seen_nothing_moves():
    assert not optical_flow(torch.full((1, 32, 32), 0.5), torch.full((1, 32, 32), 0.5)).any()


def ball(turn: float, views: int = 8) -> TrueClip:
    """Exact images of a unit sphere that rotates by `turn` radians per frame; colour is a function of the point."""
    cameras = orbit_cameras(
        2 * np.pi / views * np.arange(views), 0.2, 3.0, fov_y=np.deg2rad(45), width=SIZE, height=SIZE
    )
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1)
    frames = np.full((views, 3, SIZE, SIZE, 3), 127, np.uint8)
    depth = np.zeros((views, 3, SIZE, SIZE), np.float32)
    for view, (K, matrix) in enumerate(zip(cameras.K, cameras.world_to_camera, strict=True)):
        directions = rays @ np.linalg.inv(K).T
        origin = (np.linalg.inv(matrix) @ [0, 0, 0, 1])[:3]
        directions = directions @ matrix[:3, :3]
        a, b = (directions**2).sum(-1), directions @ origin
        root = b**2 - a * (origin @ origin - 1)
        hit = root > 0
        along = (-b - np.sqrt(np.where(hit, root, 0))) / a
        points = origin + along[..., None] * directions
        for frame in range(3):
            angle = turn * frame
            sine, cosine = np.sin(angle), np.cos(angle)
            turned = points @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
            colours = 0.5 + 0.45 * np.sin(3 * turned + [0, 1, 2])
            frames[view, frame][hit] = np.rint(255 * colours[hit])
            depth[view, frame][hit] = along[hit]
    return TrueClip("ball", "a ball turns", frames, cameras, depth)


@pytest.fixture(scope="module")
def turning() -> TrueClip:
    return ball(0.15)


def test_the_true_video_is_perfect_and_a_still_one_is_not(turning):
    found = compare(turning.frames, turning)
    assert found["psnr"] == 100 and found["flow_error"] == 0
    assert found["identity"] == found["identity_truth"] and found["view_error"] == found["view_error_truth"]
    assert found["flow_error_still"] > 0.5 and found["psnr_still"] < 30
    still = np.repeat(turning.frames[:, :1], 3, axis=1)
    found = compare(still, turning)
    assert found["psnr"] == pytest.approx(found["psnr_still"])
    assert found["flow_error"] == pytest.approx(found["flow_error_still"], rel=1e-3)
    assert found["identity"] == pytest.approx(1)


def test_views_that_agree_are_told_from_views_that_do_not(turning):
    frames = torch.from_numpy(turning.frames).movedim(-1, 2).float() / 255
    depth = torch.from_numpy(turning.depth)
    true = view_error(frames, depth, turning.cameras)
    assert true < 0.03
    swapped = frames[[1, 0, 3, 2, 5, 4, 7, 6]]
    assert view_error(swapped, depth, turning.cameras) > 5 * true
    assert view_error(frames, depth.roll(1, 0), turning.cameras) == pytest.approx(
        true, abs=0.02
    )  # a sphere: all equal
    assert math.isnan(view_error(frames, torch.zeros_like(depth), turning.cameras))


def test_views_that_share_no_point_are_not_compared(turning):
    """JSON has no nan: the model of an hour's training could not be published."""
    apart = replace(turning, depth=np.zeros_like(turning.depth))
    result = evaluate(lambda clip: clip.frames, [turning, apart])
    assert "view_error" in result["clips"][0] and "view_error" not in {*result["clips"][1], *result["mean"]}
    json.dumps(result, allow_nan=False)


def test_another_object_is_another_identity(turning):
    frames = torch.from_numpy(turning.frames).movedim(-1, 2).float() / 255
    assert color_histogram_overlap(frames) > 0.6
    changed = frames.clone()
    changed[:, 1:] = changed[:, 1:].flip(2) ** 2
    assert color_histogram_overlap(changed) < color_histogram_overlap(frames) - 0.2


def test_figures_are_means_over_clips_and_sheets_show_both(turning):
    found = evaluate(lambda clip: clip.frames, [turning, turning])
    assert found["mean"]["psnr"] == 100 and len(found["clips"]) == 2 and "psnr_still" in found["protocol"]
    assert comparison_sheet(turning.frames, turning.frames).shape == (2 * 8 * SIZE, 3 * SIZE, 3)
    with pytest.raises(ValueError, match="evaluate: clips: expected at least one clip, got none"):
        evaluate(lambda clip: clip.frames, [])
    with pytest.raises(ValueError, match="ball: expected a video uint8"):
        compare(turning.frames[:, :2], turning)
