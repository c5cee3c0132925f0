"""`render`: validate the arguments, choose a back end from the tensors, draw."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from renderers.gaussians.types import Gaussians, Rendered, Scene, TensorCameras

if TYPE_CHECKING:
    from renderers.background import Background


def render(
    gaussians: Gaussians,
    cameras: TensorCameras,
    *,
    background: Background | None = None,
    antialiased: bool = False,
    sh_degree: int | None = None,
    eps2d: float = 0.3,
    want: Collection[str] = ("rgb", "alpha"),
) -> Rendered:
    """Render every scene from each of its cameras.

    3D Gaussian splatting (Kerbl et al. 2023) with the semantics of gsplat 1.5: EWA projection (Zwicker et al. 2001)
    with a clamped linearisation point, α = min(0.999, o·exp(-σ)), contributions below α = 1/255 skipped, and
    compositing of a pixel stopped before its transmittance falls to 1e-4. Differentiable with respect to all fields
    of `gaussians`, `background` and `cameras.viewmats`.

    Args:
        gaussians: S scenes of N Gaussians.
        cameras: C cameras for each scene.
        background: background colour; None is black. A grey or RGB, floats in 0..1 or integers in 0..255
            (`renderers.background`), or a tensor of any shape that broadcasts to [S, C, D]. A tensor that requires
            gradients, or whose D is not 3, may have any finite floats.
        antialiased: scale opacities so that the blur `eps2d` does not add energy: the 2D Mip filter of Mip-Splatting
            (Yu et al. 2023).
        sh_degree: highest degree of spherical harmonics to evaluate, 0-3; None uses all coefficients in `sh`.
        eps2d: blur in pixels², added to both diagonal entries of each projected covariance.
        want: the outputs to render, a selection of `OUTPUTS`. Every output other than alpha adds channels and costs
            time.
    Returns:
        The requested outputs; the others are None.
    Raises:
        TypeError: a field is not a tensor.
        ValueError: a field has the wrong shape, device or type, or contains invalid values (NaN, negative scales, zero
            quaternions, opacities outside 0..1); the message names the field and its first invalid value.
        RuntimeError: the back end for these tensors is not available; the message gives the reason and what to install.
    """
    from renderers.gaussians.checks import prepare

    scene = prepare(gaussians, cameras, background, antialiased, sh_degree, eps2d, want)
    picture = backend_for(scene)(scene)
    if picture.means2d.requires_grad:
        picture.means2d.retain_grad()
    return picture


def backend_for(scene: Scene) -> Callable[[Scene], Rendered]:
    """Return the function that draws tensors of this device and type: gsplat, the numba kernels or plain torch."""
    import torch

    if scene.means.device.type == "cuda":
        from renderers.gaussians import cuda

        return cuda.draw
    if scene.means.dtype == torch.float64:
        from renderers.gaussians import reference

        return reference.draw
    from renderers.gaussians import cpu

    return cpu.draw
