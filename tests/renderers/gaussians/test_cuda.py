"""The CUDA back end: agreement with the reference, and overhead relative to plain gsplat."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from splat_scenes import on_threshold, scene
from torch import Tensor

from renderers.gaussians import OUTPUTS, Gaussians, TensorCameras, checks, render

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

# gsplat is compiled with fast math and sums gradients in no fixed order: wider tolerances than on the CPU.
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE, ROUNDING = 1e-3, 2e-2, 2e-3
MAX_OVERHEAD = 0.03


def _copied(gaussians: Gaussians, **where: object) -> Gaussians:
    values = {k: None if v is None else v.detach().to(**where, copy=True) for k, v in vars(gaussians).items()}
    return Gaussians(**{k: None if v is None else v.requires_grad_() for k, v in values.items()})


def _draw(
    gaussians: Gaussians, cameras: TensorCameras, options: dict, weights: dict[str, Tensor], **where: object
):
    gaussians = _copied(gaussians, **where)
    background = options["background"]
    options = {**options, "background": None if background is None else background.to(**where)}
    picture = render(gaussians, cameras.to(**where), **options)
    sum((getattr(picture, k) * weights[k].to(**where)).sum() for k in options["want"]).backward()
    gradients = {k: v.grad.cpu().double() for k, v in vars(gaussians).items() if v is not None}
    gradients["means2d"] = picture.means2d.grad.cpu().double()
    return {k: getattr(picture, k).detach().cpu().double() for k in options["want"]}, gradients


@pytest.mark.parametrize("kind", ["cloud", "opaque", "faint", "edges", "wide", "cover", "discs"])
def test_images_and_gradients_match_the_reference(kind: str) -> None:
    for seed in range(6):
        gaussians, cameras, options = scene(kind, seed)
        background = options["background"]
        checked = checks.prepare(
            gaussians.to(torch.float64),
            cameras.to(torch.float64),
            **{
                **options,
                "sh_degree": None,
                "background": None if background is None else background.double(),
            },
        )
        keep = ~on_threshold(checked, ROUNDING)[..., None]
        generator = torch.Generator().manual_seed(seed)
        channels = {"rgb": checked.channels, "alpha": 1, "depth": 1, "normal": 3}
        weights = {
            k: keep * torch.randn(*keep.shape[:-1], channels[k], generator=generator) for k in options["want"]
        }
        expected, expected_gradients = _draw(
            gaussians, cameras, options, weights, dtype=torch.float64, device="cpu"
        )
        got, gradients = _draw(gaussians, cameras, options, weights, dtype=torch.float32, device="cuda")
        for name, value in expected.items():
            scale = max(1.0, value.abs().max().item()) if name == "depth" else 1.0
            assert ((value - got[name]) * keep).abs().max() <= OUTPUT_TOLERANCE * scale, (seed, name)
        for name, value in expected_gradients.items():
            assert (value - gradients[name]).norm() <= GRADIENT_TOLERANCE * value.norm() + 1e-6, (seed, name)


def test_scenes_have_independent_gradients() -> None:
    """A loss on one scene gives the other scenes no gradient (with gsplat's packed layout it does)."""
    gaussians, cameras, _ = scene("cloud", 8)
    three = Gaussians(
        **{k: None if v is None else v[:1].repeat(3, *[1] * (v.ndim - 1)) for k, v in vars(gaussians).items()}
    )
    three = _copied(three, device="cuda")
    views = replace(cameras, viewmats=cameras.viewmats[:1].cuda(), Ks=cameras.Ks[:1].cuda())
    render(three, views).rgb[1].square().sum().backward()
    assert not three.means.grad[0].any() and not three.means.grad[2].any() and three.means.grad[1].any()


def test_invalid_values_and_empty_scenes_on_the_gpu() -> None:
    gaussians, cameras, _ = scene("cloud", 1)
    gaussians, cameras = gaussians.to("cuda"), cameras.to("cuda")
    means = gaussians.means.clone()
    means[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="means: expected finite values"):
        render(replace(gaussians, means=means), cameras)
    with pytest.raises(ValueError, match="on cpu"):
        render(replace(gaussians, quats=gaussians.quats.cpu()), cameras)
    none = Gaussians(**{k: v[:, :0] for k, v in vars(gaussians).items() if v is not None})
    picture = render(none, cameras, want=OUTPUTS)
    assert picture.rgb.is_cuda and not picture.rgb.any()


def _milliseconds(run: Callable[[], None]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def test_overhead_relative_to_plain_gsplat() -> None:
    """Forward and backward of 100 000 Gaussians in four views of 512²: at most 3 % above `gsplat.rasterization`."""
    from gsplat import rasterization

    generator = torch.Generator().manual_seed(0)
    N, C, size = 100_000, 4, 512
    gaussians = _copied(
        Gaussians(
            0.5 * torch.randn(1, N, 3, generator=generator),
            torch.randn(1, N, 4, generator=generator),
            0.01 * torch.exp(0.5 * torch.randn(1, N, 3, generator=generator)),
            torch.rand(1, N, generator=generator),
            colors=torch.rand(1, N, 3, generator=generator),
        ),
        device="cuda",
    )
    viewmats = torch.eye(4).repeat(1, C, 1, 1)
    viewmats[..., 2, 3] = torch.linspace(2.5, 4.0, C)
    Ks = torch.tensor([[600.0, 0, size / 2], [0, 600.0, size / 2], [0, 0, 1]]).repeat(1, C, 1, 1)
    cameras = TensorCameras(viewmats.cuda(), Ks.cuda(), size, size)
    leaves = [v for v in vars(gaussians).values() if v is not None]

    def ours() -> None:
        torch.autograd.grad(render(gaussians, cameras).rgb.square().sum(), leaves)

    def plain() -> None:
        image, _, _ = rasterization(*leaves, cameras.viewmats, cameras.Ks, size, size, packed=False)
        torch.autograd.grad(image.square().sum(), leaves)

    for run in (ours, plain) * 5:
        run()
    times = {run: [] for run in (ours, plain)}
    for _ in range(40):
        for run in times:
            times[run].append(_milliseconds(run))
    overhead = statistics.median(times[ours]) / statistics.median(times[plain]) - 1
    print(f"gsplat {statistics.median(times[plain]):.3f} ms, `render` {100 * overhead:.2f} % more")
    assert overhead <= MAX_OVERHEAD
