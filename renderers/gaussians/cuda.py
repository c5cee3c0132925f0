"""The CUDA back end: gsplat, called in a way that avoids its bugs with several scenes.

- `packed=False` always: the backward pass of the packed layout (gsplat's default) mixes gradients between scenes.
- With several scenes, N is padded to a multiple of the warp size. The backward pass reduces gradients within a warp
  over threads with equal Gaussian index, without comparing the scene index; a warp that spans two scenes would mix
  their gradients (and those of their cameras).
- gsplat's densification strategies are not used: they misinterpret indices with batch dimensions.
  `Rendered.means2d.grad` and `Rendered.radii` are the inputs for a strategy of your own.
- This back end is chosen from the device of the tensors, whether or not its kernels are available; if gsplat's kernels
  were not built, rendering raises an error that names the cause.
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
from renderers.gaussians.layout import FAR, NEAR
from renderers.gaussians.types import Rendered, Scene

OLDEST = (1, 5, 3)  # the oldest supported version of gsplat
WARP = 32


def draw(scene: Scene) -> Rendered:
    """Render a validated scene; see `renderers.gaussians.render`."""
    if 0 in scene.shape:
        return reference.draw(scene)
    count = scene.shape[2]
    scene = _pad_to_warps(scene)
    S, _, N = scene.shape
    colors, sh_degree, background = scene.colors, None, scene.background
    if "normal" in scene.want:
        # One call of gsplat blends either SH or plain features: SH are evaluated here and concatenated with normals.
        colors, background = blended_features(scene, None)
    elif scene.sh is not None:
        colors, sh_degree = scene.sh, scene.sh_degree
    assert colors is not None
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
        means2d=_without_padding(details["means2d"], count),
    )


def _pad_to_warps(scene: Scene) -> Scene:
    """Append copies of each scene's first Gaussian with opacity 0, so that N is a multiple of the warp size."""
    S, _, N = scene.shape
    extra = -N % WARP
    if S == 1 or not extra:
        return scene

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, values[:, :1].detach().expand(-1, extra, *values.shape[2:])], dim=1)

    return replace(
        scene,
        means=padded(scene.means),
        quats=padded(scene.quats),
        scales=padded(scene.scales),
        opacities=F.pad(scene.opacities, (0, extra)),
        colors=None if scene.colors is None else padded(scene.colors),
        sh=None if scene.sh is None else padded(scene.sh),
    )


def _without_padding(means2d: Tensor, count: int) -> Tensor:
    """Return means2d[:, :, :count] as a leaf whose `grad` is filled when gradients reach `means2d` [S, C, N, 2].

    A plain slice would not be part of the graph from the loss to the Gaussians, so its `grad` would stay None.
    """
    if means2d.shape[2] == count:
        return means2d
    kept = means2d[:, :, :count].detach()
    if means2d.requires_grad:
        kept.requires_grad_()

        def accumulate(gradient: Tensor) -> None:
            gradient = gradient[:, :, :count]
            kept.grad = gradient.clone() if kept.grad is None else kept.grad + gradient

        means2d.register_hook(accumulate)
    return kept


@cache
def _gsplat() -> ModuleType:
    """Import gsplat and verify that its kernels work.

    Raises:
        RuntimeError: gsplat is missing, too old, incompatible with this torch, or without kernels.
    """
    try:
        version = importlib.metadata.version("gsplat")
    except importlib.metadata.PackageNotFoundError:
        raise RuntimeError(
            "Rendering splats on CUDA requires gsplat, which is not installed: pip install 'menagerie4d[cuda]', or "
            "move the tensors to the CPU"
        ) from None
    if tuple(int(part) for part in version.split("+")[0].split(".")[:3]) < OLDEST:
        raise RuntimeError(
            f"Rendering splats on CUDA requires gsplat {'.'.join(map(str, OLDEST))} or newer, found {version}: "
            "pip install --upgrade gsplat"
        )
    # Without a prebuilt wheel gsplat compiles on first import: limit that to this GPU's architecture, and its memory.
    os.environ.setdefault("MAX_JOBS", "4")
    if torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "{}.{}".format(*torch.cuda.get_device_capability()))
    try:
        import gsplat
        from gsplat.cuda import _backend
    except Exception as error:
        raise RuntimeError(
            f"Rendering splats on CUDA: gsplat {version} is installed but cannot be imported with torch "
            f"{torch.__version__} ({type(error).__name__}: {error}); install a build for this torch"
        ) from error
    if _backend._C is None:
        raise RuntimeError(
            f"Rendering splats on CUDA: gsplat {version} is installed without its kernels and cannot build them, "
            "because there is no CUDA compiler (nvcc) on this machine. Install the CUDA toolkit that matches torch "
            f"{torch.__version__} (CUDA {torch.version.cuda}), or a gsplat wheel built for it"
        )
    return gsplat
