"""Validation of the arguments of `render`, degenerate input, missing libraries, and import time."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from splat_scenes import scene

from renderers.gaussians import OUTPUTS, Gaussians, TensorCameras, cuda, get_threads, render, set_threads


def _scene(dtype: torch.dtype) -> tuple[Gaussians, TensorCameras]:
    gaussians, cameras, _ = scene("cloud", 1)
    return gaussians.to(dtype), cameras.to(dtype)


def _with(gaussians: Gaussians, field: str, value: float) -> Gaussians:
    tensor = getattr(gaussians, field).clone()
    tensor.reshape(-1)[4:8] = value
    return replace(gaussians, **{field: tensor})


BACK_ENDS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["cpu", "reference"])
BAD_VALUES = [
    ("means", float("nan"), r"means: expected finite values, got nan at \[0, 1, 1\]"),
    ("means", float("inf"), "means: expected finite values, got inf"),
    ("quats", float("nan"), "quats: expected finite values"),
    ("quats", 0.0, "quats: expected a squared length"),
    ("scales", -0.1, "scales: .* forget exp"),
    ("scales", float("nan"), "scales: .* forget exp"),
    ("opacities", 1.5, "opacities: .* forget the sigmoid"),
    ("opacities", -0.5, "opacities: .* forget the sigmoid"),
    ("colors", float("nan"), "colors: expected finite values"),
]


@BACK_ENDS
@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_invalid_values_are_rejected(dtype: torch.dtype, field: str, value: float, message: str) -> None:
    gaussians, cameras = _scene(dtype)
    with pytest.raises(ValueError, match=message):
        render(_with(gaussians, field, value), cameras)


@BACK_ENDS
def test_invalid_shapes_devices_and_types_are_rejected(dtype: torch.dtype) -> None:
    gaussians, cameras = _scene(dtype)
    cases = [
        (replace(gaussians, means=gaussians.means[0]), cameras, {}, r"means: expected \[S, N, 3\]"),
        (replace(gaussians, quats=gaussians.quats[..., :3]), cameras, {}, r"quats: expected \[S, N, 4\]"),
        (replace(gaussians, scales=gaussians.scales[:, 1:]), cameras, {}, r"scales: expected .*N = "),
        (replace(gaussians, opacities=gaussians.opacities[..., None]), cameras, {}, r"opacities: expected \[S, N\]"),
        (replace(gaussians, colors=None), cameras, {}, "either colors .* or sh .* got neither"),
        (replace(gaussians, sh=gaussians.means[..., None, :]), cameras, {}, "either colors .* or sh .* got both"),
        (replace(gaussians, colors=None, sh=gaussians.means[..., None, :].repeat(1, 1, 5, 1)), cameras, {},
         "K = 1, 4, 9 or 16 coefficients, got 5"),
        (replace(gaussians, means=gaussians.means.repeat(3, 1, 1)), replace(cameras, Ks=cameras.Ks.repeat(2, 1, 1, 1),
         viewmats=cameras.viewmats.repeat(2, 1, 1, 1)), {}, "expected .* with S = "),
        (gaussians, replace(cameras, viewmats=cameras.viewmats[..., :3, :]), {}, r"viewmats: expected \[S, C, 4, 4\]"),
        (gaussians, replace(cameras, Ks=-cameras.Ks), {}, "Ks: expected focal lengths > 0"),
        (gaussians, replace(cameras, Ks=cameras.Ks + 0.1), {}, "Ks: expected no skew"),
        (gaussians, replace(cameras, width=0), {}, "width: expected an integer from 1 to"),
        (gaussians, cameras, {"want": ("rgb", "flow")}, "want expects a selection"),
        (gaussians, cameras, {"want": ()}, "want expects a selection"),
        (gaussians, cameras, {"eps2d": -1.0}, "eps2d expects"),
        (gaussians, cameras, {"eps2d": float("nan")}, "eps2d expects"),
        (gaussians, cameras, {"sh_degree": 1}, "sh_degree requires Gaussians with sh"),
        (gaussians, cameras, {"background": torch.ones(7, dtype=dtype)}, "background expects a shape"),
        (gaussians, cameras, {"background": torch.tensor([float("nan")], dtype=dtype)}, "background: expected finite"),
        (gaussians.to(torch.float16), cameras.to(torch.float16), {}, "expected float32"),
        (gaussians.to("meta"), cameras.to("meta"), {}, "no back end for meta tensors"),
        (gaussians.to(device="meta"), cameras, {}, "viewmats is .* on cpu, means is .* on meta"),
        (replace(gaussians, means=gaussians.means.half()), cameras, {}, "quats is .* means is torch.float16"),
    ]  # fmt: skip
    for bad_gaussians, bad_cameras, options, message in cases:
        with pytest.raises(ValueError, match=message):
            render(bad_gaussians, bad_cameras, **options)
    with pytest.raises(TypeError, match="means: expected a torch tensor"):
        render(replace(gaussians, means=gaussians.means.numpy()), cameras)


def test_sh_degree_is_validated() -> None:
    gaussians, cameras, _ = scene("cloud", 3)
    assert gaussians.sh.shape[2] == 16
    with pytest.raises(ValueError, match=r"sh_degree expects 0\.\.3 with K = 16 coefficients, got 4"):
        render(gaussians, cameras, sh_degree=4)
    flat = replace(gaussians, sh=gaussians.sh[:, :, :4].contiguous())
    assert torch.equal(render(gaussians, cameras, sh_degree=1).rgb, render(flat, cameras).rgb)


@BACK_ENDS
@pytest.mark.parametrize("empty", ["N", "S", "C"])
def test_empty_scenes_show_the_background(dtype: torch.dtype, empty: str) -> None:
    gaussians, cameras = _scene(dtype)
    if empty == "N":
        gaussians = Gaussians(**{k: v[:, :0].clone() for k, v in vars(gaussians).items() if v is not None})
    elif empty == "S":
        gaussians = Gaussians(**{k: v[:0].clone() for k, v in vars(gaussians).items() if v is not None})
        cameras = replace(cameras, viewmats=cameras.viewmats[:0], Ks=cameras.Ks[:0])
    else:
        cameras = replace(cameras, viewmats=cameras.viewmats[:, :0], Ks=cameras.Ks[:, :0])
    gaussians.means.requires_grad_()
    channels = gaussians.colors.shape[-1]
    background = torch.linspace(0.2, 1.0, channels, dtype=dtype)
    picture = render(gaussians, cameras, background=background, want=OUTPUTS)
    S, C = cameras.viewmats.shape[:2]
    assert picture.rgb.shape == (S, C, cameras.height, cameras.width, channels)
    assert torch.equal(picture.rgb, background.expand_as(picture.rgb))
    assert not picture.alpha.any() and not picture.depth.any() and not picture.normal.any()
    if picture.rgb.numel() or dtype == torch.float32:
        picture.rgb.sum().backward()
        assert gaussians.means.grad.shape == gaussians.means.shape and not gaussians.means.grad.any()


@BACK_ENDS
@pytest.mark.parametrize(
    "change",
    [
        {"scales": 0.0}, {"scales": 1e6}, {"scales": 1e18}, {"means": 1e18}, {"means": 0.0}, {"quats": 1e6},
        {"quats": 1e-6}, {"opacities": 0.0}, {"opacities": 1.0}, {"scales": 0.0, "eps2d": 0.0}, {"scales": 1e-20},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("antialiased", [False, True])
def test_extreme_values_give_finite_images_and_gradients(
    dtype: torch.dtype, change: dict[str, float], antialiased: bool
) -> None:
    gaussians, cameras = _scene(dtype)
    change = dict(change)
    eps2d = change.pop("eps2d", 0.3)
    for field, value in change.items():
        gaussians = replace(gaussians, **{field: torch.full_like(getattr(gaussians, field), value)})
    leaves = [v.requires_grad_() for v in vars(gaussians).values() if v is not None]
    picture = render(gaussians, cameras, antialiased=antialiased, eps2d=eps2d, want=OUTPUTS)
    outputs = [getattr(picture, k) for k in OUTPUTS]
    assert all(torch.isfinite(v).all() for v in outputs)
    gradients = torch.autograd.grad(sum(v.sum() for v in outputs), leaves)
    # The reference is differentiated by autograd, which may overflow at such points; the kernels must not.
    if dtype == torch.float32:
        assert all(torch.isfinite(v).all() for v in gradients)


def test_quaternions_are_normalised() -> None:
    gaussians, cameras = _scene(torch.float32)
    longer = replace(gaussians, quats=gaussians.quats * 8.0)
    torch.testing.assert_close(render(longer, cameras).rgb, render(gaussians, cameras).rgb, rtol=0, atol=1e-6)


def test_thread_count_is_validated() -> None:
    for count in (0, -1):
        with pytest.raises(ValueError, match="set_threads: count: expected an integer from 1 to 1024"):
            set_threads(count)
    set_threads(3)
    assert get_threads() == 3
    set_threads(None)
    assert get_threads() == torch.get_num_threads()


def _python(code: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True
    )


def test_importing_loads_neither_torch_nor_a_back_end() -> None:
    heavy = "[m for m in ('torch', 'numba', 'gsplat') if m in sys.modules]"
    done = _python(f"import sys, renderers, renderers.gaussians; print({heavy})")
    assert done.stdout.strip() == "[]", done.stderr


def test_without_numba_an_error_names_the_package_and_float64_still_works() -> None:
    code = """
import os, sys
os.environ["MENAGERIE_KERNELS"] = "numba"  # machine code from the package does not need it
sys.modules["numba"] = None  # makes `import numba` fail
import torch
from renderers.gaussians import Gaussians, TensorCameras, render
def one(dtype):
    t = lambda *v: torch.tensor(v, dtype=dtype)
    g = Gaussians(t(0, 0, 2).view(1, 1, 3), t(1, 0, 0, 0).view(1, 1, 4), t(.1, .1, .1).view(1, 1, 3), t(.5).view(1, 1),
                  colors=t(1, 1, 1).view(1, 1, 3))
    K = t(9, 0, 4, 0, 9, 4, 0, 0, 1).view(1, 1, 3, 3)
    return render(g, TensorCameras(torch.eye(4, dtype=dtype)[None, None], K, 8, 8))
assert one(torch.float64).alpha.max() > 0.3
try:
    one(torch.float32)
except RuntimeError as error:
    print(error)
"""
    done = _python(code)
    assert "pip install 'menagerie4d[splat]'" in done.stdout, done.stdout + done.stderr


def test_errors_for_unusable_gsplat_installations(tmp_path: Path) -> None:
    """Installed but not importable; too old; and, on a machine without CUDA, without kernels or not installed."""
    ask = "from renderers.gaussians import cuda\ntry:\n    cuda._gsplat()\nexcept RuntimeError as e:\n    print(e)"
    for version, body, message in (
        (
            "1.5.3",
            "raise OSError('libcudart.so.13: cannot open shared object file')",
            "cannot be imported .*libcudart.so.13",
        ),
        ("1.4.0", "", "requires gsplat 1.5.3 or newer, found 1.4.0"),
    ):
        site = tmp_path / version
        (site / "gsplat").mkdir(parents=True)
        (site / "gsplat" / "__init__.py").write_text(body)
        (site / f"gsplat-{version}.dist-info").mkdir()
        (site / f"gsplat-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: gsplat\nVersion: {version}\n"
        )
        done = _python(ask, PYTHONPATH=str(site))
        assert re.search(message, done.stdout), done.stdout + done.stderr
    if not torch.cuda.is_available():
        with pytest.raises(
            RuntimeError, match=r"gsplat .*(not installed|no CUDA compiler|cannot be imported)"
        ):
            cuda._gsplat()
