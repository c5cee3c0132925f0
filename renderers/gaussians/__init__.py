"""Differentiable Gaussian splatting: one `render` function with three back ends.

`render` chooses the back end from the tensors: CUDA tensors go to gsplat (`cuda.py`), float32 CPU tensors to the numba
kernels (`cpu.py`), float64 CPU tensors to the plain-torch reference (`reference.py`). All three produce the same images
and gradients, up to rounding. Importing this package imports neither torch nor a back end.

    gaussians = Gaussians(means, quats, scales, opacities, colors=colors)
    cameras = TensorCameras.from_cameras(orbit_cameras(...))
    picture = render(gaussians, cameras, background=torch.ones(3))
    picture.rgb.sub(target).square().mean().backward()

`renderers.gaussians.ply` reads and writes .ply and .spz files.

Shapes are written with these letters: S scenes (motions × frames), C cameras per scene, N Gaussians, D colour channels,
K spherical-harmonics coefficients.
"""

from renderers.gaussians.layout import FAR, NEAR
from renderers.gaussians.rendering import render
from renderers.gaussians.threads import get_threads, set_threads
from renderers.gaussians.types import OUTPUTS, Gaussians, Rendered, TensorCameras

__all__ = [
    "FAR",
    "NEAR",
    "OUTPUTS",
    "Gaussians",
    "Rendered",
    "TensorCameras",
    "get_threads",
    "render",
    "set_threads",
]
