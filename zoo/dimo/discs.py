"""Discs that a deformation carries along as tangents of a surface (`DIMOConfig.discs`; not in the paper).

The two first axes of a Gaussian, each as long as its scale, are mapped by the gradient of the deformation, and span
the new disc; its thickness, along the normal, stays. Neighbouring discs then move as one surface. Blended rotations
do not ensure that: they lack the gradient's second sum, which is as large as the first where key points move apart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Limits of the factors of a disc's smaller and larger radius, as in zoo/export/html/splats.js.
STRETCHES = 0.4, 2.5


def tangent_discs(gradient: Tensor, rotations: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The discs that a map x ↦ y makes of discs of three radii, the third of which is the thickness and stays.

    Args:
        gradient: ∂y/∂x at the centres, [S, N, 3, 3].
        rotations: [N, 3, 3], whose columns are the axes.
        scales: [N, 3].

    Returns:
        Quaternions wxyz [S, N, 4], not normalised, and radii [S, N, 3].
    """
    axes = gradient @ (rotations[..., :2] * scales[:, None, :2])  # [S, N, 3, 2]
    with torch.no_grad():
        # The turn within the disc that makes its axes orthogonal, as they are for an ellipse.
        squares = axes.mT @ axes
        half = torch.atan2(2 * squares[..., 0, 1], squares[..., 0, 0] - squares[..., 1, 1]) / 2
        turn = torch.stack([half.cos(), -half.sin(), half.sin(), half.cos()], -1).unflatten(-1, (2, 2))
        low = STRETCHES[0] * scales[:, :2].amin(-1, keepdim=True)
        high = STRETCHES[1] * scales[:, :2].amax(-1, keepdim=True)
    first, second = (axes @ turn).unbind(-1)
    u = F.normalize(first, dim=-1)
    second = second - (second * u).sum(-1, keepdim=True) * u
    v = F.normalize(second, dim=-1)
    radii = torch.stack([first.norm(dim=-1), second.norm(dim=-1)], -1).maximum(low).minimum(high)
    quats = matrix_quaternions(torch.stack([u, v, torch.linalg.cross(u, v)], -1))
    return quats, torch.cat([radii, scales[:, 2:].expand(len(radii), -1, -1)], -1)


def matrix_quaternions(matrices: Tensor) -> Tensor:
    """Quaternions wxyz [..., 4], not normalised, of rotation matrices [..., 3, 3]; differentiable everywhere.

    4 q qᵀ is linear in the matrix; its row with the largest diagonal entry is the quaternion times that entry's root.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrices.unbind(-2))
    w, x, y, z = 1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz
    rows = (
        (w, zy - yz, xz - zx, yx - xy),
        (zy - yz, x, xy + yx, xz + zx),
        (xz - zx, xy + yx, y, yz + zy),
        (yx - xy, xz + zx, yz + zy, z),
    )
    table = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = torch.stack([w, x, y, z], -1).argmax(-1)
    return table.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)


def multiply_quaternions(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a ⊗ b of [..., 4] quaternions (w, x, y, z): the rotation b followed by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )
