"""Maths shared by the three back ends: rotations, spherical harmonics, normals, and the features that are blended."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.gaussians.types import Rendered, Scene


def rotation_matrices(quats: Tensor) -> Tensor:
    """Convert quaternions wxyz [..., 4] of any non-zero length to rotation matrices [..., 3, 3]."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def camera_positions(viewmats: Tensor) -> Tensor:
    """Return the world-space camera centres [..., 3] of world-to-camera matrices [..., 4, 4]."""
    return torch.linalg.inv(viewmats)[..., :3, 3]


def sh_basis(degree: int, directions: Tensor) -> Tensor:
    """Evaluate the real spherical-harmonics basis in the order and with the signs of 3DGS (Kerbl et al. 2023).

    Args:
        degree: highest degree l, 0-3. Basis functions are ordered by l, then by m = -l..l.
        directions: [..., 3] unit vectors from the camera to the Gaussians.
    Returns:
        [..., (degree + 1)²] values. The numbers are the normalisation constants of Y_lm, e.g. 1/2·√(1/π) for l = 0
        and √(3/(4π)) for l = 1, with the Condon-Shortley sign (-1)^m.
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        basis += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, -1)


def sh_colors(degree: int, sh: Tensor, means: Tensor, positions: Tensor) -> Tensor:
    """Evaluate view-dependent colours.

    Args:
        degree: highest degree to use; coefficients beyond it are ignored.
        sh: [S, N, K, 3] coefficients.
        means: [S, N, 3] centres of the Gaussians, world.
        positions: [S, C, 3] camera centres, world.
    Returns:
        [S, C, N, 3] colours max(0, Σ_k basis_k(d)·sh_k + 0.5) with d the unit direction from camera to Gaussian.
    """
    directions = F.normalize(means[:, None] - positions[:, :, None], dim=-1)
    basis = sh_basis(degree, directions)
    colors = torch.einsum(
        "scnk,snkd->scnd", basis, sh[:, :, : basis.shape[-1]].expand(len(basis), -1, -1, -1)
    )
    return torch.clamp_min(colors + 0.5, 0.0)


def rotate_harmonics(sh: Tensor, rotations: Tensor) -> Tensor:
    """Turn view-dependent colours with the Gaussians: their colour in direction d is then that of Rᵀ d before.

    Each degree of the basis Y is closed under rotation, so that coefficients c' with Y(d) c' = Y(Rᵀ d) c for as many
    directions d as there are coefficients solve it for all d.

    Args:
        sh: [N, K, 3] coefficients c. rotations: [N, 3, 3], R.
    Returns:
        [N, K, 3].
    """
    degree = math.isqrt(sh.shape[1]) - 1
    # Evenly spread on the sphere, along a spiral of golden angles.
    index = torch.arange(2 * sh.shape[1], dtype=torch.float64) + 0.5
    z = 1 - index / sh.shape[1]
    angle = index * torch.pi * (3 - 5**0.5)
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1).to(sh.device)
    solve = torch.linalg.pinv(sh_basis(degree, directions)).to(sh)  # [K, M]
    return solve @ (sh_basis(degree, directions.to(sh) @ rotations) @ sh)


def facing_normals(quats: Tensor, scales: Tensor, means: Tensor, positions: Tensor) -> Tensor:
    """Return the shortest axis of each Gaussian as its normal, flipped towards the camera.

    Args:
        quats: [S, N, 4]. scales: [S, N, 3]. means: [S, N, 3]. positions: [S, C, 3] camera centres.
    Returns:
        [S, C, N, 3] unit vectors in world space.
    """
    rotations = rotation_matrices(quats)
    scenes = max(len(rotations), len(scales))  # either may be shared by all scenes
    shortest = scales.argmin(-1)[..., None, None].expand(scenes, -1, 3, 1)
    axes = rotations.expand(scenes, -1, 3, 3).gather(-1, shortest)[..., 0][:, None]
    away = (axes * (means[:, None] - positions[:, :, None])).sum(-1, keepdim=True) > 0
    return torch.where(away, -axes, axes)


def blended_features(scene: Scene, depths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Collect the channels that are blended for each Gaussian, and the background of the same channels.

    Args:
        depths: [S, C, N] depths to blend as a last channel, or None.
    Returns:
        features [S, C, N, F] with F = D colours, then 3 normals if requested, then 1 depth if given; background
        [S, C, F] (zero for all channels but the colours), or None.
    """
    shape = scene.shape
    if scene.sh is None:
        assert scene.colors is not None
        channels = [scene.colors[:, None].expand(*shape, -1)]
    elif "rgb" in scene.want:
        assert scene.sh_degree is not None
        channels = [sh_colors(scene.sh_degree, scene.sh, scene.means, camera_positions(scene.viewmats))]
    else:
        channels = [scene.means.new_zeros(*shape, 3)]
    if "normal" in scene.want:
        normals = facing_normals(scene.quats, scene.scales, scene.means, camera_positions(scene.viewmats))
        channels.append(normals.expand(*shape, -1))
    if depths is not None:
        channels.append(depths[..., None])
    blended = torch.cat(channels, -1) if len(channels) > 1 else channels[0]
    if scene.background is None:
        return blended, None
    return blended, F.pad(scene.background, (0, blended.shape[-1] - scene.channels))


def split_outputs(scene: Scene, image: Tensor, alpha: Tensor, radii: Tensor, means2d: Tensor) -> Rendered:
    """Split blended features [S, C, H, W, F] into the requested outputs; the inverse of `blended_features`.

    Args:
        alpha: [S, C, H, W, 1]. radii: int32 [S, C, N, 2]. means2d: [S, C, N, 2].
    """
    sizes = [scene.channels, 3 * int("normal" in scene.want), int("depth" in scene.want)]
    rgb, normal, depth = image.split(sizes, -1)
    return Rendered(
        rgb=rgb if "rgb" in scene.want else None,
        alpha=alpha if "alpha" in scene.want else None,
        depth=depth / alpha.clamp_min(1e-10) if "depth" in scene.want else None,
        normal=normal if "normal" in scene.want else None,
        radii=radii,
        means2d=means2d,
    )
