"""The arguments passed to gsplat, tested without a GPU: the reference back end replaces its kernels."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from splat_scenes import scene

from renderers.gaussians import Gaussians, checks, cuda, reference
from renderers.gaussians.types import Scene


class FakeGsplat:
    """`gsplat.rasterization` implemented with `reference.draw`; records the number of Gaussians of each call."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.counts = scene, []

    def rasterization(
        self, means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, backgrounds, **rest
    ):
        self.counts.append(means.shape[1])
        given = {
            "means": means,
            "quats": quats,
            "scales": scales,
            "opacities": opacities,
            "viewmats": viewmats,
        }
        given |= {
            "Ks": Ks,
            "background": backgrounds,
            "sh" if rest["sh_degree"] is not None else "colors": colors,
        }
        drawn = reference.draw(replace(self.scene, **given))
        image = drawn.rgb if drawn.depth is None else torch.cat([drawn.rgb, drawn.depth], -1)
        return image, drawn.alpha, {"radii": drawn.radii, "means2d": drawn.means2d}


def drawn(draw, kind: str, seed: int, monkeypatch=None):
    gaussians, cameras, options = scene(kind, seed)
    gaussians = Gaussians(
        **{k: v if v is None else v.double().requires_grad_() for k, v in vars(gaussians).items()}
    )
    background = options["background"]
    prepared = checks.prepare(
        gaussians,
        cameras.to(torch.float64),
        **{"sh_degree": None, **options, "background": None if background is None else background.double()},
    )
    fake = FakeGsplat(prepared)
    if monkeypatch is not None:
        monkeypatch.setattr(cuda, "_gsplat", lambda: SimpleNamespace(rasterization=fake.rasterization))
    picture = draw(prepared)
    picture.means2d.retain_grad()
    sum(getattr(picture, name).square().sum() for name in prepared.want).backward()
    gradients = {name: value.grad for name, value in vars(gaussians).items() if value is not None}
    return picture, {**gradients, "means2d": picture.means2d.grad}, fake.counts


@pytest.mark.parametrize(
    ("kind", "seed"), [("edges", 0), ("cover", 5), ("discs", 0), ("cloud", 2), ("cloud", 3)]
)
def test_padding_to_warps_does_not_change_results(kind, seed, monkeypatch):
    """With several scenes N is a multiple of the warp size, as gsplat reduces gradients within warps."""
    expected, gradients, _ = drawn(reference.draw, kind, seed)
    result, result_gradients, counts = drawn(cuda.draw, kind, seed, monkeypatch)
    S, N = expected.radii.shape[0], expected.radii.shape[2]
    assert counts == [N if S == 1 else -(-N // 32) * 32]
    for name in ("rgb", "alpha", "depth", "radii", "means2d"):
        if getattr(expected, name) is not None:
            torch.testing.assert_close(getattr(result, name), getattr(expected, name))
    assert result_gradients.keys() == gradients.keys() and gradients["means2d"].any()
    for name, gradient in gradients.items():
        torch.testing.assert_close(result_gradients[name], gradient, msg=name)
