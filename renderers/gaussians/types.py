"""Data types of the splat renderer: Gaussians and cameras in, images out. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from renderers.values import by_value

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from renderers.cameras import Cameras

OUTPUTS = ("rgb", "alpha", "depth", "normal")
NEAR, FAR = 0.01, 1e10  # clipping planes: metres along the optical axis


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Gaussians:
    """N Gaussians in each of S scenes, with activated parameters. Set exactly one of `colors` and `sh`.

    A field whose first dimension is 1 (or was created with `.expand`) is shared by all scenes: it is neither copied
    nor differentiated once per scene.

    Attributes:
        means: [S, N, 3] centres in world space, metres.
        quats: [S, N, 4] rotations as quaternions wxyz; normalised by the renderer, so any non-zero length works.
        scales: [S, N, 3] standard deviations along the rotated axes, >= 0. Zeros give a disc, a needle or a point.
        opacities: [S, N] in 0..1.
        colors: [S, N, D] view-independent features of any dimension, blended without activation.
        sh: [S, N, K, 3] spherical-harmonics coefficients with K = 1, 4, 9 or 16 in the order and sign convention of
            3DGS; the colour is max(0, sh · basis(direction) + 0.5).
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | None = None
    sh: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> Gaussians:
        """Return a copy with `Tensor.to(*args, **kwargs)` applied to every field."""
        fields: dict[str, Any] = {
            name: None if value is None else value.to(*args, **kwargs) for name, value in vars(self).items()
        }
        return Gaussians(**fields)


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class TensorCameras:
    """C pinhole cameras for each of S scenes, in the conventions of `renderers.cameras`.

    Attributes:
        viewmats: [S, C, 4, 4] world-to-camera matrices, OpenCV axes (x right, y down, z forward). S = 1 is shared by
            all scenes.
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
        """Convert numpy `Cameras` to tensors.

        Args:
            cameras: one set of cameras, shared by all scenes, or a sequence of S sets, one per scene.
            device: device of the tensors.
            dtype: type of the tensors; None is float32.
        Raises:
            ValueError: the sets differ in image size or in their number of cameras.
        """
        import numpy as np
        import torch

        from renderers.arguments import instance
        from renderers.cameras import Cameras

        sets = list(cameras) if isinstance(cameras, Sequence) else [cameras]
        if not sets:
            raise ValueError("TensorCameras.from_cameras: cameras: expected at least one set, got none")
        for views in sets:
            instance(views, Cameras, "TensorCameras.from_cameras: cameras")
        if len({(len(views), views.width, views.height) for views in sets}) != 1:
            raise ValueError(
                "TensorCameras: expected sets with the same number of cameras and one image size, got "
                + ", ".join(f"{len(views)} × {views.width}×{views.height}" for views in sets)
            )
        dtype = dtype or torch.float32
        return TensorCameras(
            torch.as_tensor(np.stack([views.world_to_camera for views in sets]), device=device, dtype=dtype),
            torch.as_tensor(np.stack([views.K for views in sets]), device=device, dtype=dtype),
            sets[0].width,
            sets[0].height,
        )

    def to(self, *args: Any, **kwargs: Any) -> TensorCameras:
        """Return a copy with `Tensor.to(*args, **kwargs)` applied to both matrices."""
        return TensorCameras(
            self.viewmats.to(*args, **kwargs), self.Ks.to(*args, **kwargs), self.width, self.height
        )


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Rendered:
    """Rendered images and the statistics used for densification. Outputs that were not requested are None.

    Attributes:
        rgb: [S, C, H, W, D] (D = 3 with `sh`), composited over the background.
        alpha: [S, C, H, W, 1] accumulated opacity, 0..1.
        depth: [S, C, H, W, 1] expected distance along the optical axis in metres: accumulated depth /
            max(alpha, 1e-10).
        normal: [S, C, H, W, 3] accumulated world-space normals (length at most alpha): each Gaussian contributes its
            shortest axis, flipped towards the camera.
        radii: int32 [S, C, N, 2] half extent of each splat in x and y, in pixels, rounded up; 0 where it is culled.
        means2d: [S, C, N, 2] projected centres in pixels. After `backward()`, `means2d.grad` is the gradient of the
            loss per pixel of movement, the statistic that densification thresholds. The thresholds of 3DGS are in
            normalised device coordinates: multiply by width / 2 and height / 2.
    """

    rgb: Tensor | None
    alpha: Tensor | None
    depth: Tensor | None
    normal: Tensor | None
    radii: Tensor
    means2d: Tensor

    def output(self, name: str) -> Tensor:
        """An output that the call of `render` asked for: "rgb", "alpha", "depth" or "normal".

        Raises:
            ValueError: it was not asked for.
        """
        if name not in OUTPUTS:
            raise ValueError(f"Rendered.output: name: expected one of {', '.join(OUTPUTS)}, got {name!r}")
        value = getattr(self, name)
        if value is None:
            raise ValueError(
                f"Rendered.output: name: {name!r} was not rendered; call render with want=(…, {name!r})"
            )
        return value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Scene:
    """The validated arguments of one `render` call: the input of every back end.

    Attributes:
        means, quats, scales, opacities, colors, sh: as in `Gaussians`; the first dimension is S, or 1 if shared.
        viewmats: [S, C, 4, 4], expanded where one set of cameras is shared.
        Ks: [S, C, 3, 3], likewise.
        width, height: image size in pixels.
        background: [S, C, D], or None for black.
        antialiased, eps2d: as in `render`.
        sh_degree: 0-3; None without `sh`.
        want: the requested outputs, a selection of `OUTPUTS`.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor | None
    sh: Tensor | None
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    background: Tensor | None
    antialiased: bool
    sh_degree: int | None
    eps2d: float
    want: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of scenes, cameras per scene and Gaussians: S, C, N."""
        return self.viewmats.shape[0], self.viewmats.shape[1], self.means.shape[1]

    @property
    def channels(self) -> int:
        """D, the number of colour channels."""
        return 3 if self.colors is None else self.colors.shape[-1]

    def to(self, dtype: torch.dtype) -> Scene:
        """Return a copy with every tensor converted to another floating-point type."""
        import torch

        values: dict[str, Any] = {
            k: v.to(dtype) for k, v in vars(self).items() if isinstance(v, torch.Tensor)
        }
        return replace(self, **values)
