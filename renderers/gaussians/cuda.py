"""The CUDA back end: gsplat, called so that its known traps do not bite.

- `packed=False` always: the backward pass of the packed layout (gsplat's default) mixes gradients between scenes.
- Several scenes have their Gaussians in whole warps: the backward pass sums over a warp whatever has the same number,
  of whatever scene, so that the gradients of small scenes, and of the cameras of any, were mixed.
- gsplat's densification strategies are not used: they misread indices with batch dimensions. `Rendered.means2d.grad`
  and `Rendered.radii` are what a strategy of one's own needs.
- This module is chosen by where the tensors live, never by whether a CUDA compiler is at hand; a gsplat whose kernels
  were not built says so in a sentence.
"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import replace
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.gaussians import reference
from renderers.gaussians.features import blended_features
from renderers.gaussians.types import FAR, NEAR, Rendered, Scene

OLDEST = (1, 5, 3)
WARP = 32


def draw(scene: Scene) -> Rendered:
    """`renderers.gaussians.render` for one checked scene."""
    if 0 in scene.shape:
        return reference.draw(scene)
    count = scene.shape[2]
    scene = _in_whole_warps(scene)
    S, _, N = scene.shape
    colors, sh_degree, background = scene.colors, None, scene.background
    if "normal" in scene.want:
        # gsplat blends one kind of feature a call: colours are evaluated here and normals blended beside them.
        colors, background = blended_features(scene, None)
    elif scene.sh is not None:
        colors, sh_degree = scene.sh, scene.sh_degree
    image, alpha, details = _gsplat().rasterization(
        scene.means.expand(S, N, 3),
        scene.quats.expand(S, N, 4),
        scene.scales.expand(S, N, 3),
        scene.opacities.expand(S, N),
        colors.expand(S, *colors.shape[1:]),
        scene.viewmats,
        scene.Ks,
        scene.width,
        scene.height,
        near_plane=NEAR,
        far_plane=FAR,
        eps2d=scene.eps2d,
        sh_degree=sh_degree,
        packed=False,
        backgrounds=None if background is None else background.contiguous(),
        render_mode="RGB+ED" if "depth" in scene.want else "RGB",
        rasterize_mode="antialiased" if scene.antialiased else "classic",
    )
    D = scene.channels
    return Rendered(
        rgb=image[..., :D] if "rgb" in scene.want else None,
        alpha=alpha if "alpha" in scene.want else None,
        depth=image[..., -1:] if "depth" in scene.want else None,
        normal=image[..., D : D + 3] if "normal" in scene.want else None,
        radii=details["radii"][:, :, :count],
        means2d=_first(details["means2d"], count),
    )


def _in_whole_warps(scene: Scene) -> Scene:
    """With copies of each scene's first Gaussian at the end that nobody sees."""
    S, _, N = scene.shape
    more = -N % WARP
    if S == 1 or not more:
        return scene
    filled = {
        name: torch.cat([values, values[:, :1].detach().expand(-1, more, *values.shape[2:])], dim=1)
        for name in ("means", "quats", "scales", "colors", "sh")
        if (values := getattr(scene, name)) is not None
    }
    return replace(scene, **filled, opacities=F.pad(scene.opacities, (0, more)))


def _first(means2d: Tensor, count: int) -> Tensor:
    """The first so many of means2d [S, C, N, 2], whose `grad` is there after a backward pass all the same."""
    if means2d.shape[2] == count:
        return means2d
    some = means2d[:, :, :count].detach()
    if means2d.requires_grad:
        some.requires_grad_()

        def keep(gradient: Tensor) -> None:
            gradient = gradient[:, :, :count]
            some.grad = gradient.clone() if some.grad is None else some.grad + gradient

        means2d.register_hook(keep)
    return some


@cache
def _gsplat() -> ModuleType:
    """gsplat with working kernels, or RuntimeError with the cause."""
    try:
        version = importlib.metadata.version("gsplat")
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError(
            "Splats on CUDA need gsplat, which is not installed: pip install 'menagerie4d[cuda]', or move the "
            "tensors to the CPU"
        ) from None
    if tuple(int(part) for part in version.split("+")[0].split(".")[:3]) < OLDEST:
        raise RuntimeError(
            f"Splats on CUDA need gsplat {'.'.join(map(str, OLDEST))} or newer, here is {version}: "
            "pip install --upgrade gsplat"
        )
    # Without a prebuilt wheel gsplat compiles on first import: for this GPU alone, with bounded memory.
    os.environ.setdefault("MAX_JOBS", "4")
    if torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "{}.{}".format(*torch.cuda.get_device_capability()))
    try:
        import gsplat
        from gsplat.cuda import _backend
    except Exception as error:
        raise RuntimeError(
            f"Splats on CUDA: gsplat {version} is installed but does not load with torch {torch.__version__} "
            f"({type(error).__name__}: {error})"
        ) from error
    if _backend._C is None:
        raise RuntimeError(
            f"Splats on CUDA: gsplat {version} is installed without its kernels and cannot build them, as there is no "
            "CUDA compiler (nvcc) here. Install the CUDA toolkit that fits torch "
            f"{torch.__version__} (CUDA {torch.version.cuda}), or a gsplat wheel that was built for it"
        )
    return gsplat
