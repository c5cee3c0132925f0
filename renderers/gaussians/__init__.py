"""Differentiable Gaussian splatting: one `render`, three back ends, chosen by where the tensors live.

CUDA tensors go to gsplat (`cuda.py`), float32 CPU tensors to the numba kernels (`cpu.py`), float64 CPU tensors to
the plain-torch definition (`reference.py`). All three draw the same picture and give the same gradients.
Importing this package imports neither torch nor a back end.

    gaussians = Gaussians(means, quats, scales, opacities, colors=colors)
    cameras = TensorCameras.from_cameras(orbit_cameras(...))
    picture = render(gaussians, cameras, background=torch.ones(3))
    picture.rgb.sub(target).square().mean().backward()

Letters: S scenes (motions × frames), C cameras of a scene, N Gaussians, D colour channels, K SH coefficients.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from renderers.cameras import Cameras

__all__ = ["OUTPUTS", "Gaussians", "Rendered", "TensorCameras", "get_threads", "render", "set_threads"]

OUTPUTS = ("rgb", "alpha", "depth", "normal")
NEAR, FAR = 0.01, 1e10  # metres along the optical axis; what lies outside is not drawn


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians in each of S scenes, all values activated. Exactly one of `colors` and `sh` is given.

    A field whose first dimension is 1 is shared by all scenes (so is one that was `.expand`ed): it is neither
    copied nor differentiated S times.

    Attributes:
        means: [S, N, 3] centres, world.
        quats: [S, N, 4] rotations wxyz; any length but zero, normalised inside.
        scales: [S, N, 3] standard deviations along the rotated axes, >= 0. A zero is a disc, a needle or a point.
        opacities: [S, N] in 0..1.
        colors: [S, N, D] any channels, drawn as they are.
        sh: [S, N, K, 3] spherical harmonics with K = 1, 4, 9 or 16 in the order and sign of 3DGS; the colour is
            max(0, sh · basis(direction) + 0.5).
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | None = None
    sh: Tensor | None = None

    def to(self, *args: object, **kwargs: object) -> Gaussians:
        """The Gaussians after `Tensor.to` on every field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Gaussians(**{k: None if v is None else v.to(*args, **kwargs) for k, v in values.items()})


@dataclass(frozen=True)
class TensorCameras:
    """C pinhole cameras for each of S scenes, in the conventions of `renderers.cameras`.

    Attributes:
        viewmats: [S, C, 4, 4] world to camera, OpenCV axes (x right, y down, z forward). S = 1 serves all scenes.
        Ks: [S, C, 3, 3] intrinsics in pixels, without skew; the centre of the top-left pixel is (0.5, 0.5).
        width, height: image size in pixels.
    """

    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    @staticmethod
    def from_cameras(
        cameras: Cameras | Sequence[Cameras],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> TensorCameras:
        """The house's numpy cameras as tensors; a sequence gives one set per scene (equal in number and size).

        Args:
            cameras: one set, shared by all scenes, or S sets.
            dtype: float32 unless given.
        """
        import numpy as np
        import torch

        sets = list(cameras) if isinstance(cameras, Sequence) else [cameras]
        if len({(len(one), one.width, one.height) for one in sets}) != 1:
            raise ValueError(
                "TensorCameras: expected sets with the same number of cameras and one image size, got "
                + ", ".join(f"{len(one)} × {one.width}×{one.height}" for one in sets)
            )
        like = {"device": device, "dtype": dtype or torch.float32}
        return TensorCameras(
            torch.as_tensor(np.stack([one.world_to_camera for one in sets]), **like),
            torch.as_tensor(np.stack([one.K for one in sets]), **like),
            sets[0].width,
            sets[0].height,
        )

    def to(self, *args: object, **kwargs: object) -> TensorCameras:
        """The cameras after `Tensor.to` on the matrices."""
        return TensorCameras(
            self.viewmats.to(*args, **kwargs), self.Ks.to(*args, **kwargs), self.width, self.height
        )


@dataclass(frozen=True)
class Rendered:
    """Pictures and what densification needs. Outputs that were not wanted are None.

    Attributes:
        rgb: [S, C, H, W, D] (D = 3 with `sh`), composited on the background.
        alpha: [S, C, H, W, 1] coverage, 0..1.
        depth: [S, C, H, W, 1] expected distance along the optical axis, metres: accumulated depth / max(alpha, 1e-10).
        normal: [S, C, H, W, 3] accumulated world-space normals (length up to alpha): each Gaussian's shortest axis,
            turned towards the camera.
        radii: int32 [S, C, N, 2] half extent in x and y of each splat in pixels, rounded up; 0 where it is not drawn.
        means2d: [S, C, N, 2] projected centres in pixels; after `backward()` its `.grad` is the loss per pixel of
            movement, the statistic that densification thresholds (3DGS thresholds assume NDC: multiply by
            width / 2 and height / 2).
    """

    rgb: Tensor | None
    alpha: Tensor | None
    depth: Tensor | None
    normal: Tensor | None
    radii: Tensor
    means2d: Tensor


def render(
    gaussians: Gaussians,
    cameras: TensorCameras,
    *,
    background: Tensor | None = None,
    antialiased: bool = False,
    sh_degree: int | None = None,
    eps2d: float = 0.3,
    want: Collection[str] = ("rgb", "alpha"),
) -> Rendered:
    """Draw every scene from every camera; differentiable in all Gaussian fields, `background` and `viewmats`.

    3D Gaussian splatting (Kerbl et al. 2023) with the semantics of gsplat 1.5: EWA projection with the clamp of the
    tangent, α = min(0.999, o·exp(-σ)), contributions under 1/255 left out, a pixel finished before its transmittance
    reaches 1e-4. Each channel beyond rgb costs time: ask only for what is used.

    Args:
        background: colour behind everything, any shape that broadcasts to [S, C, D]; None is black.
        antialiased: scale opacities so that blur adds no energy (Yu et al. 2023, Mip-Splatting §4.2).
        sh_degree: highest SH degree to use, 0-3; None uses all that `sh` holds.
        eps2d: blur in pixels², added to both diagonal entries of each projected covariance.
        want: which of `OUTPUTS` to draw.
    Raises:
        ValueError: a field has the wrong shape, device or type, or holds values that have no picture (NaN, negative
            scales, zero quaternions, opacities outside 0..1); the message names the field and the first such value.
        RuntimeError: the back end for these tensors cannot run here; the message says why and what to install.
    """
    from renderers.gaussians import checks

    prepared = checks.prepare(gaussians, cameras, background, antialiased, sh_degree, eps2d, want)
    picture = checks.back_end(prepared).draw(prepared)
    if picture.means2d.requires_grad:
        picture.means2d.retain_grad()
    return picture


_threads: int | None = None


def set_threads(count: int | None) -> None:
    """How many threads the CPU back end uses in this process; None follows `torch.get_num_threads()`.

    Pictures and gradients have the same bits for any count.
    """
    global _threads
    if count is not None and count < 1:
        raise ValueError(f"set_threads: expected at least 1 thread or None, got {count}")
    _threads = count


def get_threads() -> int:
    """The number of threads the CPU back end would use now."""
    if _threads is not None:
        return _threads
    import torch

    return torch.get_num_threads()
