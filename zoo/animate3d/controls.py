"""`Controls`: points at which the motion field is evaluated, and which carry all others (SC-GS, Huang et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from renderers.gaussians.features import rotation_matrices
from zoo.animate3d.hexplane import MotionField, Moved, multiply

CARRIERS = 4  # control points per carried point
_WIDTH = 0.6  # σ of the weights in space, in spacings of the control points


@dataclass(frozen=True)
class Binding:
    """Which control points carry N points.

    Attributes:
        nodes: int64 [N, J].
        weights: [N, J], rows sum to 1.
    """

    nodes: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Controls:
    """K control points, and the N Gaussians that they carry.

    A field that moves every Gaussian by itself has to learn that neighbours turn together; pictures then change least
    where surfaces slide along themselves instead of turning. Here its heads give the rotation R_k and the place p_k of
    each control point g_k, and a point x follows Σ_k w_k (R_k (x - g_k) + p_k).

    Attributes:
        centres: g, [K, 3], in the field's space.
        gaussians: of the Gaussians of the still model.
    """

    centres: Tensor
    gaussians: Binding

    def pose(
        self,
        field: MotionField,
        times: Tensor,
        *,
        carried: tuple[Tensor, Tensor] | None = None,
        growing: bool = False,
    ) -> Moved:
        """The control points at times [F]; `carried` is the motion that the field corrects."""
        unturned = torch.tensor([1.0, 0.0, 0.0, 0.0]).to(self.centres).expand(len(self.centres), -1)
        return field(self.centres, unturned, times, carried=carried, growing=growing)

    def carry(self, pose: Moved, points: Tensor, quats: Tensor, binding: Binding) -> Moved:
        """Points [N, 3] of the still model and their rotations [N, 4], carried by the control points."""
        nodes, weights = binding.nodes, binding.weights[..., None]
        arms = points[:, None] - self.centres[nodes]  # [N, J, 3]
        turned = torch.einsum("fnjab,njb->fnja", rotation_matrices(pose.quats)[:, nodes], arms)
        around = pose.quats[:, nodes]
        # The quaternions of one point on the side of its first, as q and -q are one rotation.
        side = torch.where((around * around[:, :, :1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
        blended = normalize((weights * side * around).sum(2), dim=-1)
        return Moved(
            (weights * (turned + pose.means[:, nodes])).sum(2),
            multiply(blended, quats.expand(len(blended), -1, -1)),
            (weights * pose.growth[:, nodes]).sum(2),
        )


def nearest(centres: Tensor, points: Tensor) -> Binding:
    """The control points [K, 3] nearest in space to points [N, 3], with weights exp(-d² / 2 σ²)."""
    apart = torch.cdist(centres, centres)
    apart.fill_diagonal_(torch.inf)
    width = _WIDTH * float(apart.min(1).values.mean())
    distance, nodes = torch.cdist(points, centres).topk(min(CARRIERS, len(centres)), largest=False)
    # Relative to the nearest, so that the weights of a far point do not underflow.
    weights = torch.exp(-(distance.square() - distance[:, :1].square()) / (2 * width**2))
    return Binding(nodes, weights / weights.sum(1, keepdim=True))
