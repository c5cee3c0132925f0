"""The reference back end, compared with closed-form results and with gsplat's plain-torch functions."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from splat_scenes import KINDS, scene

from renderers.cameras import Cameras, orbit_cameras
from renderers.gaussians import OUTPUTS, Gaussians, TensorCameras, checks, features, reference, render
from renderers.gaussians.types import Scene


@pytest.fixture(scope="module")
def gsplat() -> ModuleType:
    """gsplat's plain-torch functions, without importing gsplat itself (which looks for a CUDA compiler)."""
    package = importlib.util.find_spec("gsplat")
    if package is None:
        pytest.skip("gsplat is not installed")
    path = Path(package.origin).parent / "cuda" / "_torch_impl.py"
    spec = importlib.util.spec_from_file_location("gsplat_torch_functions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checked(kind: str, seed: int, **changes: object) -> Scene:
    gaussians, cameras, options = scene(kind, seed)
    options = {**options, "background": None, "sh_degree": None, **changes}
    return checks.prepare(gaussians.to(torch.float64), cameras.to(torch.float64), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_projection_matches_gsplat(gsplat: ModuleType, kind: str) -> None:
    for seed in range(5):
        checked = _checked(kind, seed, antialiased=True)
        leaves = [
            v.clone().requires_grad_()
            for v in (checked.means, checked.quats, checked.scales, checked.viewmats)
        ]
        covariances, _ = gsplat._quat_scale_to_covar_preci(*leaves[1:3], compute_preci=False)
        _, means2d, depths, conics, compensations = gsplat._fully_fused_projection(
            leaves[0],
            covariances,
            leaves[3],
            checked.Ks,
            checked.width,
            checked.height,
            checked.eps2d,
            calc_compensations=True,
        )
        copied = Scene(
            **{**vars(checked), **dict(zip(("means", "quats", "scales", "viewmats"), leaves, strict=True))}
        )
        got = reference.project(copied)
        drawn = (got[4] > 0).all(-1)
        opacities = checked.opacities[:, None] * compensations
        gradients = []
        for outputs in ((means2d, conics, depths, opacities), got[:4]):
            visible = [v[drawn] for v in outputs]
            gradients.append(
                torch.autograd.grad(sum((v.sin()).sum() for v in visible), leaves, allow_unused=True)
            )
        # gsplat computes det as xx·yy - xy², which loses digits for thin ellipses.
        for a, b in zip((means2d, conics, depths, opacities), got[:4], strict=True):
            torch.testing.assert_close(a[drawn], b[drawn], rtol=1e-6, atol=1e-7)
        # For degenerate Gaussians gsplat's gradient of the square root at 0 is not finite.
        if kind not in ("needles", "discs", "points"):
            for a, b in zip(*gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * max(1.0, a.abs().max().item()))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_match_gsplat(gsplat: ModuleType, degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    directions = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    sh = torch.randn(500, 16, 3, generator=generator, dtype=torch.float64)
    expected = gsplat._spherical_harmonics(degree, directions, sh)
    basis = features.sh_basis(degree, torch.nn.functional.normalize(directions, dim=-1))
    got = (basis[..., None] * sh[:, : (degree + 1) ** 2]).sum(1)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_one_splat_in_closed_form() -> None:
    """A ball on the optical axis is a 2D Gaussian of variance (scale·focal/depth)² + 0.3 at the principal point."""
    scale, focal, depth, opacity = 0.05, 40.0, 2.0, 0.8

    def exact(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    ball = Gaussians(
        exact([[[0, 0, depth]]]), exact([[[2, 0, 0, 0]]]), exact([[[scale] * 3]]), exact([[opacity]]),
        colors=exact([[[0.2, 0.5, 1.0]]]),
    )  # fmt: skip
    K = exact([[[[focal, 0, 8.5], [0, focal, 6.5], [0, 0, 1]]]])
    cameras = TensorCameras(torch.eye(4, dtype=torch.float64)[None, None], K, 17, 13)
    background = exact([1.0, 0.0, 0.25])
    picture = render(ball, cameras, background=background, want=OUTPUTS)
    variance = (scale * focal / depth) ** 2 + 0.3
    for y, x in ((6, 8), (6, 10), (4, 9), (0, 0)):
        alpha = opacity * math.exp(-((x - 8) ** 2 + (y - 6) ** 2) / (2 * variance))
        alpha = alpha if alpha >= 1 / 255 else 0.0
        assert picture.alpha[0, 0, y, x, 0].item() == pytest.approx(alpha, abs=1e-12)
        for c, color in enumerate((0.2, 0.5, 1.0)):
            expected = alpha * color + (1 - alpha) * background[c].item()
            assert picture.rgb[0, 0, y, x, c].item() == pytest.approx(expected, abs=1e-12)
        assert picture.depth[0, 0, y, x, 0].item() == pytest.approx(depth if alpha else 0.0, abs=1e-9)
    # Of three equal axes the first counts as the shortest; it is flipped towards the camera unless perpendicular to it.
    assert picture.normal[0, 0, 6, 8].norm().item() == pytest.approx(opacity, abs=1e-9)
    reach = math.ceil(math.sqrt(2 * math.log(255 * opacity) * variance))
    assert picture.radii[0, 0, 0].tolist() == [reach, reach]


def test_compositing_order_and_termination() -> None:
    """Red at 1 m over green at 2 m over blue: weights 0.9, 0.1·0.9, 0.01·0.9, until T would fall to 1e-4."""
    means = torch.tensor([[[0.0, 0.0, z] for z in (2.0, 1.0, 3.0, 4.0, 5.0)]], dtype=torch.float64)
    red, green, blue = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]
    stack = Gaussians(
        means, torch.eye(4, dtype=torch.float64)[:1].expand(1, 5, 4), torch.zeros_like(means),
        torch.full((1, 5), 0.9, dtype=torch.float64) - 1e-9,
        colors=torch.tensor([[green, red, blue, blue, [9.0, 9.0, 9.0]]], dtype=torch.float64),
    )  # fmt: skip
    K = torch.tensor([[[[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]]], dtype=torch.float64)
    picture = render(stack, TensorCameras(torch.eye(4, dtype=torch.float64)[None, None], K, 1, 1))
    # The fourth leaves T = 1.0000004e-4 > 1e-4 and is composited; the fifth would leave 1e-5 and is not.
    assert picture.rgb[0, 0, 0, 0].tolist() == pytest.approx([0.9, 0.09, 0.0099], abs=1e-7)
    assert picture.alpha.item() == pytest.approx(0.9999, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normals_follow_rotations_per_scene(dtype) -> None:
    """Rotations differ per scene, all else is shared: the normal is the disc's axis, flipped towards the camera."""
    angles = torch.tensor([0.0, 0.6, -0.9], dtype=dtype)
    zero = torch.zeros_like(angles)
    quats = torch.stack([torch.cos(angles / 2), torch.sin(angles / 2), zero, zero], -1)[:, None]
    disc = Gaussians(
        torch.tensor([[[0.0, 0.0, 2.0]]], dtype=dtype), quats, torch.tensor([[[0.3, 0.3, 0.01]]], dtype=dtype),
        torch.tensor([[0.99]], dtype=dtype), colors=torch.ones(1, 1, 3, dtype=dtype),
    )  # fmt: skip
    K = torch.tensor([[[[16.0, 0, 8.5], [0, 16.0, 8.5], [0, 0, 1]]]], dtype=dtype)
    cameras = TensorCameras(torch.eye(4, dtype=dtype)[None, None], K, 17, 17)
    normals = render(disc, cameras, want=("normal",)).normal[:, 0, 8, 8] / 0.99
    expected = torch.stack([zero, torch.sin(angles), -torch.cos(angles)], -1)
    torch.testing.assert_close(normals, expected, atol=1e-5, rtol=0)


def test_gradients_match_finite_differences() -> None:
    """Autograd through the reference, compared with finite differences away from its discontinuities."""
    gaussians, cameras, _ = scene("cloud", 3)
    few = {k: v[:1, :3].double() for k, v in vars(gaussians).items() if v is not None}
    few["sh"] = few["sh"][:, :, :4]
    views = TensorCameras(
        cameras.viewmats[:1, :1].double(), cameras.Ks[:1, :1].double(), cameras.width, cameras.height
    )
    small = TensorCameras(views.viewmats, views.Ks * torch.tensor([4.0, 3.0, 1.0]).view(3, 1) / 40, 4, 3)
    few["opacities"] = few["opacities"] * 0.5

    def draw(*values: torch.Tensor) -> torch.Tensor:
        picture = render(
            Gaussians(**dict(zip(few, values, strict=True))), small, antialiased=True, want=OUTPUTS
        )
        return torch.cat([picture.rgb, picture.alpha, picture.normal], -1)

    torch.autograd.gradcheck(draw, [v.clone().requires_grad_() for v in few.values()], eps=1e-7, atol=1e-4)


def test_numpy_cameras_convert_and_project_to_the_same_pixels() -> None:
    views = orbit_cameras(np.array([0.0, 1.0, 2.5]), 0.3, 3.0, fov_y=0.7, width=40, height=30)
    cameras = TensorCameras.from_cameras(views, dtype=torch.float64)
    assert cameras.viewmats.shape == (1, 3, 4, 4) and (cameras.width, cameras.height) == (40, 30)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    splats = Gaussians(
        torch.from_numpy(points)[None], torch.eye(4, dtype=torch.float64)[:1].expand(1, 20, 4),
        torch.full((1, 20, 3), 0.01, dtype=torch.float64), torch.full((1, 20), 0.9, dtype=torch.float64),
        colors=torch.ones(1, 20, 3, dtype=torch.float64),
    )  # fmt: skip
    pixels, depth = views.project(points)
    picture = render(splats, cameras, want=("alpha", "depth"))
    np.testing.assert_allclose(picture.means2d[0].numpy(), pixels, atol=1e-9)
    assert picture.depth[picture.alpha > 0.5].min() >= depth.min() - 1e-6
    two = TensorCameras.from_cameras([views, views])
    assert two.viewmats.shape == (2, 3, 4, 4) and two.viewmats.dtype == torch.float32
    with pytest.raises(ValueError, match="same number of cameras"):
        TensorCameras.from_cameras([views, Cameras(views.world_to_camera, views.K, 41, 30)])
