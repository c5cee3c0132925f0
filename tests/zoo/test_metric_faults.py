"""Each metric notices the fault that it is for, and no other: frames shuffled, mirrored, recoloured, frozen, shifted.

A ball with a smooth pattern rolls over a grey background, before two cameras. Every fault is applied to the later
frames of the truth. `NOTICES` has the metrics that must fall with each fault, `STAYS` a control that must not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from renderers.cameras import orbit_cameras
from zoo import metrics

GREY, SIZE, FRAMES = 127 / 255, 64, 9
CAMERAS = orbit_cameras(
    np.deg2rad([-15.0, 20.0]), np.deg2rad([5.0, -10.0]), 3.0, fov_y=0.75, width=SIZE, height=SIZE
)


def rolling_ball() -> tuple[Tensor, Tensor]:
    """Frames [2, T, 3, H, W] and depth [2, T, H, W] of a ball that moves by 2 pixels per frame and turns."""
    y, x = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="ij")
    frames, depth = torch.full((2, FRAMES, 3, SIZE, SIZE), GREY), torch.zeros(2, FRAMES, SIZE, SIZE)
    for view in range(2):
        world = CAMERAS.camera_to_world[view]
        rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(CAMERAS.K[view]).T @ world[:3, :3].T
        for time in range(FRAMES):
            centre = np.array([0.07 * (time - FRAMES // 2), 0.0, 0.0])
            offset = world[:3, 3] - centre
            a, b, c = (rays**2).sum(-1), rays @ offset, offset @ offset - 0.55**2
            inside = b**2 > a * c
            along = (-b - np.sqrt(np.where(inside, b**2 - a * c, 0))) / a
            points = offset + along[..., None] * rays
            cos, sin = np.cos(0.05 * time), np.sin(0.05 * time)
            points = np.stack([cos * points[..., 0] - sin * points[..., 1], sin * points[..., 0] + cos * points[..., 1],
                               points[..., 2]], -1)  # fmt: skip
            color = np.stack([0.65 + 0.3 * np.sin(7 * points[..., 0]), 0.3 + 0.2 * np.cos(6 * points[..., 1]),
                              0.2 + 0.15 * np.sin(5 * points[..., 2])], -1)  # fmt: skip
            depth[view, time] = torch.from_numpy(np.where(inside, along, 0.0))
            frames[view, time] = torch.from_numpy(np.where(inside[..., None], color, GREY)).movedim(-1, 0)
    return frames, depth


TRUTH, DEPTH = rolling_ball()
MASK = metrics.foreground_mask(TRUTH)


def shuffled(frames: Tensor) -> Tensor:
    return frames[:, [0, 5, 2, 7, 4, 1, 8, 3, 6]]


def mirrored(frames: Tensor) -> Tensor:
    return torch.cat([frames[:, :1], frames[:, 1:].flip(-1)], 1)


def recoloured(frames: Tensor) -> Tensor:
    """Red and green of the object exchanged from the second frame on."""
    later = torch.where(MASK[:, 1:, None], frames[:, 1:].flip(2), frames[:, 1:])
    return torch.cat([frames[:, :1], later], 1)


def frozen(frames: Tensor) -> Tensor:
    return frames[:, :1].expand_as(frames)


def shifted(frames: Tensor) -> Tensor:
    return frames.roll((2, 2), (-2, -1))


FAULTS = {each.__name__: each for each in (shuffled, mirrored, recoloured, frozen, shifted)}


def silhouettes(frames: Tensor) -> float:
    return metrics.iou(*metrics.intersection_and_union(metrics.foreground_mask(frames).float(), MASK.float()))


# Name → score of frames, higher is better.
SCORES: dict[str, Callable[[Tensor], float]] = {
    "psnr": lambda frames: metrics.psnr(frames, TRUTH),
    "ssim": lambda frames: metrics.ssim(frames.movedim(2, -1), TRUTH.movedim(2, -1)).mean().item(),
    "iou": silhouettes,
    "endpoint_error": lambda frames: (
        -metrics.endpoint_error(
            metrics.flow_between_frames(frames), metrics.flow_between_frames(TRUTH), MASK[:, :-1]
        ).item()
    ),
    "color_histogram_overlap": lambda frames: metrics.color_histogram_overlap(frames).item(),
    "view_error": lambda frames: -metrics.view_error(frames, DEPTH, CAMERAS),
    "flow_smoothness": metrics.flow_smoothness,
    "flow_amount": metrics.flow_amount,
}
# Fault → metrics that must fall, each by at least this much.
NOTICES = {
    "shuffled": {
        "psnr": 10.0,
        "iou": 0.05,
        "endpoint_error": 1.0,
        "flow_smoothness": 0.01,
        "view_error": 0.02,
    },
    "mirrored": {"psnr": 10.0, "ssim": 0.05, "endpoint_error": 1.0, "view_error": 0.02},
    "recoloured": {"psnr": 10.0, "color_histogram_overlap": 0.2},
    "frozen": {"psnr": 10.0, "iou": 0.05, "flow_amount": 0.02, "endpoint_error": 1.0},
    "shifted": {"psnr": 10.0, "ssim": 0.02, "iou": 0.05},
}
# Fault → metrics that must not change, up to this much.
STAYS = {
    "shuffled": {"color_histogram_overlap": 1e-6},  # the first frame is in its place
    "mirrored": {"color_histogram_overlap": 1e-6},
    "recoloured": {"iou": 1e-6},
    "frozen": {"flow_smoothness": 0.01},
    "shifted": {"color_histogram_overlap": 1e-6, "flow_amount": 1e-3, "flow_smoothness": 1e-3},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_metric_that_should_notice_falls(fault):
    broken = FAULTS[fault](TRUTH)
    for name, least in NOTICES[fault].items():
        fall = SCORES[name](TRUTH) - SCORES[name](broken)
        assert fall > least, f"{name} of {fault} frames fell by {fall:.4f}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_metric_of_something_else_stays(fault):
    broken = FAULTS[fault](TRUTH)
    for name, most in STAYS[fault].items():
        change = abs(SCORES[name](TRUTH) - SCORES[name](broken))
        assert change <= most, f"{name} of {fault} frames changed by {change:.4f}"


def test_every_metric_of_frames_notices_some_fault():
    assert set(SCORES) == {name for falls in NOTICES.values() for name in falls}


def test_the_truth_is_best():
    assert (
        SCORES["psnr"](TRUTH) == 100
        and SCORES["ssim"](TRUTH) == pytest.approx(1)
        and SCORES["iou"](TRUTH) == 1
    )
    assert SCORES["endpoint_error"](TRUTH) == 0 and SCORES["flow_smoothness"](TRUTH) > 0.98
    assert SCORES["view_error"](TRUTH) > -0.01


class Histories(nn.Module):
    """Stands in for I3D's TorchScript: how the brightness of a coarse grid of cells changes from frame to frame."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        cells = nn.functional.avg_pool3d(x, (1, 56, 56))
        return (cells[:, :, 1:] - cells[:, :, :-1]).flatten(1)


@pytest.mark.parametrize("fault", ["shuffled", "frozen", "mirrored"])
def test_fvd_notices_motion(fault, monkeypatch):
    """With a network whose features see motion, as I3D's do; the table of hashes is not asked."""
    monkeypatch.setattr("zoo.metrics.frechet.load_script", lambda *_: Histories())
    videos = torch.cat([TRUTH, TRUTH.flip(-2)])
    videos = torch.cat([videos, videos[:, -1:]], 1)  # ten frames
    broken = torch.cat([FAULTS[fault](videos[:, :FRAMES]), videos[:, -1:]], 1)
    assert metrics.fvd(videos, videos) == pytest.approx(0.0, abs=1e-9)
    assert metrics.fvd(broken, videos) > 0.01


@pytest.mark.parametrize("fault", ["shuffled", "late", "scaled", "still", "torn"])
def test_metrics_of_points_notice(fault):
    """Points on a wheel that turns."""
    angles = torch.linspace(0, 6.28, 40)[None] + 0.15 * torch.arange(6)[:, None]
    truth = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], -1)
    torn = truth.clone()
    torn[3:, 10] += torch.tensor([0.0, 0.0, 2.0])
    broken = {
        "shuffled": truth[[0, 3, 1, 5, 2, 4]],
        "late": truth[[0, 0, 1, 2, 3, 4]],
        "scaled": 1.2 * truth,
        "still": truth[:1].expand_as(truth),
        "torn": torn,
    }[fault]
    same = metrics.Alignment(torch.ones(3), torch.eye(3), torch.zeros(3), 0.0)
    scores = {
        "displacement_error": lambda x: metrics.displacement_error(x, truth),
        "trajectory_error": lambda x: metrics.trajectory_error(x, truth),
        "chamfer_4d": lambda x: metrics.chamfer_4d(x, truth, same),
        "motion_chamfer": lambda x: metrics.motion_chamfer(x, truth, same),
        "torn_share": lambda x: float(metrics.torn_share(x, truth[0]).mean()),
    }
    rises = {name: score(broken) - score(truth) for name, score in scores.items()}
    assert rises["displacement_error"] > 0.02 and rises["motion_chamfer"] > 0.02
    assert (rises["torn_share"] > 0) == (fault == "torn")  # the others keep every neighbourhood
    assert scores["displacement_error"](truth) == 0 == scores["motion_chamfer"](truth)
    if fault == "still":
        assert rises["displacement_error"] == 1
