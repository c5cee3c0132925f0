"""A DIMO's motions as skinned animations: key points become joints, the Gaussians a coloured surface.

Linear blend skinning is the model's own deformation: with key point k at p_k in canonical space and moved to
p_k + Δ_k(t) with the rotation R(q_k(t)), a point x goes to Σ_k w_k [R(q_k) (x − p_k) + p_k + Δ_k] (methods §4.4).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderers.gaussians.features import rotation_matrices
from zoo.dimo.model import DIMO, KeyPointMotion, rbf_weights
from zoo.export.animation import Joints, Mesh, SkinnedAnimation
from zoo.export.surface import gaussian_surface

INFLUENCES = 4  # joints per vertex, the number that every viewer and game engine supports
NEGLIGIBLE = 1e-6  # smaller skin weights are set to 0
DETAIL = 128  # cells along the object's longest side


def skinned_animation(
    model: DIMO, trajectories: KeyPointMotion, times: np.ndarray, *, name: str, detail: int = DETAIL
) -> SkinnedAnimation:
    """One motion of a model as a skinned animation.

    Args:
        model: whose Gaussians become the surface.
        trajectories: the motion's key points, positions [T, K, 3] and rotations [T, K, 4].
        times: float64 [T], seconds from the beginning.
        name: of the animation.
        detail: grid cells along the object's longest side for the surface extraction.

    Raises:
        ValueError: the model was trained without key points.
    """
    if not model.config.factorised:
        raise ValueError(
            f"{name}: the model was trained without key points, so it has no joints; save as .ply or .npz"
        )
    mesh = canonical_surface(model, detail)
    vertex_joints, weights = vertex_weights(model, mesh.vertices)
    rest = _numpy(model.key_points)
    return SkinnedAnimation(
        name=name,
        mesh=mesh,
        joints=Joints(tuple(f"key point {k}" for k in range(len(rest))), rest, "key points"),
        vertex_joints=vertex_joints,
        vertex_weights=weights,
        times=times,
        positions=_numpy(trajectories.positions),
        rotations=_numpy(trajectories.rotations),
    )


@torch.no_grad()
def canonical_surface(model: DIMO, detail: int = DETAIL) -> Mesh:
    """The surface of a model's canonical Gaussians."""
    return gaussian_surface(
        _numpy(model.means),
        _numpy(rotation_matrices(model.quats)),
        _numpy(model.log_scales.exp()),
        _numpy(model.opacity_logits.sigmoid()),
        _numpy(model.colors).clip(0, 1),
        detail=detail,
    )


@torch.no_grad()
def vertex_weights(model: DIMO, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skin weights of points [P, 3] in canonical space.

    A point is moved by the key points that move its nearest Gaussian, weighted by its own distances from them
    (methods §4.2).

    Returns:
        Joints int64 [P, 4] and weights float64 [P, 4]; rows of weights sum to 1.
    """
    points = torch.as_tensor(vertices, dtype=torch.float32, device=model.key_points.device)
    nearest = torch.cat([torch.cdist(batch, model.means).argmin(1) for batch in points.split(1024)])
    neighbours = model.neighbours[nearest]
    squared = (points[:, None] - model.key_points[neighbours]).square().sum(-1)
    shares = rbf_weights(squared, model.log_radii.exp()[neighbours]).double()
    order = shares.argsort(dim=1, descending=True, stable=True)[:, :INFLUENCES]
    neighbours, shares = neighbours.gather(1, order), shares.gather(1, order)
    pad = INFLUENCES - neighbours.shape[1]
    joints, weights = (torch.nn.functional.pad(x, (0, pad)).cpu().numpy() for x in (neighbours, shares))
    weights = np.where(weights < NEGLIGIBLE, 0.0, weights)
    return np.where(weights > 0, joints, 0), weights / weights.sum(1, keepdims=True)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
