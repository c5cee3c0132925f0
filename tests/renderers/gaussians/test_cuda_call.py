"""How gsplat is called, where there is no GPU: a stand-in for its kernels draws by the definition."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from splat_scenes import scene

from renderers.gaussians import Gaussians, checks, cuda, reference
from renderers.gaussians.types import Scene


class StandIn:
    """`gsplat.rasterization` by `reference.draw`; it keeps how many Gaussians it was given."""

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
    stand_in = StandIn(prepared)
    if monkeypatch is not None:
        monkeypatch.setattr(cuda, "_gsplat", lambda: SimpleNamespace(rasterization=stand_in.rasterization))
    picture = draw(prepared)
    picture.means2d.retain_grad()
    sum(getattr(picture, name).square().sum() for name in prepared.want).backward()
    gradients = {name: value.grad for name, value in vars(gaussians).items() if value is not None}
    return picture, {**gradients, "means2d": picture.means2d.grad}, stand_in.counts


@pytest.mark.parametrize(
    ("kind", "seed"), [("edges", 0), ("cover", 5), ("discs", 0), ("cloud", 2), ("cloud", 3)]
)
def test_scenes_have_whole_warps_and_nobody_sees_it(kind, seed, monkeypatch):
    """Of several scenes, whose gradients gsplat's kernels sum over a warp."""
    wanted, gradients, _ = drawn(reference.draw, kind, seed)
    got, found, counts = drawn(cuda.draw, kind, seed, monkeypatch)
    S, N = wanted.radii.shape[0], wanted.radii.shape[2]
    assert counts == [N if S == 1 else -(-N // 32) * 32]
    for name in ("rgb", "alpha", "depth", "radii", "means2d"):
        if getattr(wanted, name) is not None:
            torch.testing.assert_close(getattr(got, name), getattr(wanted, name))
    assert found.keys() == gradients.keys() and gradients["means2d"].any()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, msg=name)
