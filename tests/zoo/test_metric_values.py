"""Metrics against values computed by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from renderers.cameras import orbit_cameras
from zoo.metrics import images
from zoo.metrics.appearance import color_histogram_overlap
from zoo.metrics.flow import endpoint_error, optical_flow
from zoo.metrics.images import lpips, psnr, psnr_from_mse, reconstruction_psnr, squared_error, ssim
from zoo.metrics.rigidity import torn_share
from zoo.metrics.silhouettes import foreground_mask, intersection_and_union, iou
from zoo.metrics.trajectories import best_rotations, trajectory_error
from zoo.metrics.views import view_error


def test_psnr_by_hand():
    """A difference of 0.1 everywhere is an MSE of 0.01, which is 20 dB; identical images are capped at 100."""
    image = torch.full((4, 5, 3), 0.4)
    assert psnr(image, image + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert psnr_from_mse(0.001) == pytest.approx(30.0) == psnr_from_mse(torch.tensor(0.001).double())
    assert psnr(image, image) == pytest.approx(100.0)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (1, 2, 2)])
def test_metrics_of_pictures_take_one_a_batch_and_views_of_frames(leading, monkeypatch):
    """[H, W, 3], [N, H, W, 3], [T, V, H, W, 3]: the value is that of the pictures one by one."""

    class Network:  # in place of LPIPS: a distance that depends on channels and places
        def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.ndim == 4 and a.shape[1:] == (3, 17, 19)
            weights = torch.arange(3 * 17 * 19.0).reshape(3, 17, 19)
            return ((a - b).abs() * weights).mean((1, 2, 3), keepdim=True)

    class Autoencoder:
        def encode(self, x: torch.Tensor) -> SimpleNamespace:
            assert x.ndim == 4 and x.shape[1:] == (3, 17, 19)
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=x))

        def decode(self, z: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=z * torch.tensor([0.5, 0.9, 1.0]).view(3, 1, 1))

    monkeypatch.setattr(images, "lpips_network", lambda device, folder: Network())
    generator = torch.Generator().manual_seed(1)
    image, target = (torch.rand(*leading, 17, 19, 3, generator=generator) for _ in range(2))
    singles = list(zip(image.reshape(-1, 17, 19, 3), target.reshape(-1, 17, 19, 3), strict=True))

    def mean(function) -> float:
        return sum(float(function(a, b)) for a, b in singles) / len(singles)

    assert float(squared_error(image, target)) == pytest.approx(mean(squared_error), rel=1e-5)
    assert psnr(image, target) == pytest.approx(psnr_from_mse(mean(squared_error)), rel=1e-5)
    assert ssim(image, target).shape == leading
    assert float(ssim(image, target).mean()) == pytest.approx(mean(ssim), rel=1e-5)
    assert lpips(image, target).shape == () and float(lpips(image, target)) == pytest.approx(
        mean(lpips), rel=1e-5
    )
    planes = image.movedim(-1, -3)
    share = (planes - planes * torch.tensor([0.5, 0.9, 1.0]).view(3, 1, 1)).square().mean() / 4
    assert reconstruction_psnr(Autoencoder(), planes) == pytest.approx(psnr_from_mse(share), rel=1e-5)


def test_intersection_over_union_by_hand():
    """Two squares of 4 x 4 pixels that share 2 x 4: 8 of 24."""
    a, b = torch.zeros(10, 10), torch.zeros(10, 10)
    a[2:6, 2:6], b[4:8, 2:6] = 1.0, 0.6
    shared, either = intersection_and_union(a, b)
    assert (int(shared), int(either)) == (8, 24)
    assert iou(shared, either) == pytest.approx(1 / 3)
    b[4:8, 2:6] = 0.4  # covers less than half of each pixel
    assert iou(*intersection_and_union(a, b)) == 0.0


def test_foreground_is_what_differs_from_the_background_in_any_channel():
    frames = torch.full((1, 1, 3, 2, 2), 127 / 255)
    frames[0, 0, 2, 0, 1] += 0.1
    frames[0, 0, :, 1, 1] += 0.05
    assert foreground_mask(frames)[0, 0].tolist() == [[False, True], [False, False]]


def test_best_rotations_are_never_reflections():
    """scipy's rotation, also where a reflection would fit better."""
    rng = np.random.default_rng(0)
    source = rng.normal(size=(6, 3))
    target = source * [-1.0, 1.0, 1.0] + 0.05 * rng.normal(size=(6, 3))
    expected = Rotation.align_vectors(target, source)[0].as_matrix()
    found = best_rotations(torch.tensor(source), torch.tensor(target))
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert torch.linalg.det(found).item() == pytest.approx(1.0)


def test_trajectory_error_is_the_mean_distance():
    target = torch.zeros(2, 2, 3)
    predicted = target.clone()
    predicted[0, 0] = torch.tensor([3.0, 4.0, 0.0])
    assert trajectory_error(predicted, target) == pytest.approx(5 / 4)


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, -2.0), (6.0, 4.0)])
def test_flow_is_the_displacement_in_pixels_x_first(shift):
    """Waves that move by a known number of pixels to the right and down."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")

    def waves(dx: float, dy: float) -> torch.Tensor:
        u, v = x - dx, y - dy
        return 0.5 + 0.2 * (u / 5 + v / 9).sin()[None] + 0.2 * (v / 6 - u / 11).cos()[None]

    flow = optical_flow(waves(0, 0), waves(*shift))
    inner = flow[0, :, 16:-16, 16:-16].mean((1, 2))
    assert inner.tolist() == pytest.approx(shift, abs=0.25)


def test_endpoint_error_counts_the_masked_pixels_only():
    flow, target = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    flow[0, 0, :, 0, 0] = torch.tensor([3.0, 4.0])
    flow[0, 0, :, 1, 1] = 100.0
    mask = torch.tensor([[[[True, True], [False, False]]]])
    assert endpoint_error(flow, target, mask).item() == pytest.approx(2.5)


def test_colours_that_go_are_counted():
    """Half of the object's pixels change from red to blue: half of the histogram is shared."""
    frames = torch.full((1, 2, 3, 4, 4), 127 / 255)
    red, blue = torch.tensor([0.95, 0.05, 0.05]), torch.tensor([0.05, 0.05, 0.95])
    frames[0, :, :, 1:3] = red[:, None, None]
    frames[0, 1, :, 2] = blue[:, None]
    assert color_histogram_overlap(frames).item() == pytest.approx(0.5)


def test_views_of_one_plane_agree_where_they_show_the_same_points():
    """A plane through the origin with a smooth pattern, seen by two cameras: no error; shifted colours show."""
    size = 48
    cameras = orbit_cameras(
        np.deg2rad([-15.0, 20.0]), np.deg2rad([5.0, -10.0]), 3.0, fov_y=0.6, width=size, height=size
    )
    y, x = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    frames, depth = torch.zeros(2, 1, 3, size, size), torch.zeros(2, 1, size, size)
    for view in range(2):
        world = cameras.camera_to_world[view]
        rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(cameras.K[view]).T @ world[:3, :3].T
        along = -world[2, 3] / rays[..., 2]  # the plane z = 0
        points = world[:3, 3] + along[..., None] * rays
        inside = (np.abs(points[..., :2]) < 0.6).all(-1)
        pattern = 0.5 + 0.3 * np.stack(
            [np.sin(3 * points[..., 0]), np.cos(3 * points[..., 1]), 0 * along], -1
        )
        depth[view, 0] = torch.from_numpy(np.where(inside, along, 0.0))
        frames[view, 0] = torch.from_numpy(np.where(inside[..., None], pattern, 0.5)).movedim(-1, 0)
    assert view_error(frames, depth, cameras) < 0.005
    frames[1, :, 0] += 0.3
    assert view_error(frames, depth, cameras) == pytest.approx(0.1, abs=0.01)
    assert math.isnan(view_error(frames, torch.zeros_like(depth), cameras))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_a_comparison_would_hide_are_refused(value):
    """NaN is neither above a threshold nor below: without a check it would count as background, or as not torn."""
    spoilt = torch.full((1, 2, 3, 8, 8), 0.5)
    spoilt[0, 1, 0, 0, 0] = value
    depth, points = spoilt[:, :, 0], torch.zeros(2, 8, 3)
    points[1, 0, 0] = value
    cameras = orbit_cameras(np.zeros(1), 0.0, 3.0, fov_y=0.6, width=8, height=8)
    good = torch.zeros_like(depth)
    calls = {
        "frames": [
            lambda: foreground_mask(spoilt),
            lambda: color_histogram_overlap(spoilt),
            lambda: view_error(spoilt, good, cameras),
        ],
        "alpha": [lambda: intersection_and_union(depth, good)],
        "predicted": [lambda: trajectory_error(points, torch.zeros_like(points))],
        "positions": [lambda: torn_share(points, torch.zeros_like(points[0]))],
        "flow": [lambda: endpoint_error(spoilt[:, :, :2], torch.zeros(1, 2, 2, 8, 8), good)],
    }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(ValueError, match=rf"{name}: expected finite values, .* with NaN or infinity"):
                function()


def test_empty_tensors_are_refused():
    with pytest.raises(ValueError, match=r"psnr|squared_error: image: .*got an empty one, \[0, 4, 3\]"):
        psnr(torch.zeros(0, 4, 3), torch.zeros(0, 4, 3))
    with pytest.raises(ValueError, match=r"trajectory_error: predicted: .*empty one, \[2, 0, 3\]"):
        trajectory_error(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3))
