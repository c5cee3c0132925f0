"""Skinned animations of DIMO motions: key points become joints, and the Gaussians become a coloured mesh.

Linear blend skinning is the model's own deformation (paper eq. 7): key point k moves from
p_k to p_k + Δ_k(t) with the rotation R(q_k(t)), and a point x to Σ_k w_k [R(q_k) (x − p_k) + p_k + Δ_k]
(methods §4.4). The strains of models that stretch (`DIMOConfig.stretching`) are left out: the joints of glTF and of
other programs are rotated and scaled along fixed axes only. A mesh has no gaps, it is only stretched less evenly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderers.gaussians.features import rotation_matrices
from zoo.dimo.blending import rbf_weights
from zoo.dimo.model import DIMO, KeyPointMotion
from zoo.errors import UnsupportedError
from zoo.export.animation import Joints, Mesh, SkinnedAnimation
from zoo.export.surface import gaussian_surface

INFLUENCES = 4  # joints per vertex, the number that every viewer and game engine supports
NEGLIGIBLE = 1e-6  # smaller skin weights are set to 0
DETAIL = 128  # grid cells along the object's longest side


def skinned_animation(
    model: DIMO, trajectories: KeyPointMotion, times: np.ndarray, *, name: str, detail: int = DETAIL
) -> SkinnedAnimation:
    """Convert one motion to a skinned animation.

    Args:
        model: the model; its Gaussians become the mesh.
        trajectories: key-point positions [T, K, 3] and rotations [T, K, 4] of the motion.
        times: seconds from the first frame, float64 [T].
        name: name of the animation.
        detail: grid cells along the object's longest side for the surface extraction.

    Raises:
        UnsupportedError: the model was trained without key points.
    """
    if not model.config.factorised:
        raise UnsupportedError(
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
    """Extract the surface of the canonical Gaussians as a coloured mesh."""
    dtype = model.means.dtype  # the others may be stored in half precision
    return gaussian_surface(
        _numpy(model.means),
        _numpy(rotation_matrices(model.quats.to(dtype))),
        _numpy(model.scales),
        _numpy(model.opacity_logits.to(dtype).sigmoid()),
        _numpy(model.colors).clip(0, 1),
        detail=detail,
    )


@torch.no_grad()
def vertex_weights(model: DIMO, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skin weights of points [P, 3] in canonical space.

    A point uses the key points of its nearest Gaussian, with the weights of paper eq. 1 at its own position.

    Returns:
        Joints int64 [P, 4] and weights float64 [P, 4]; rows of weights sum to 1.
    """
    points = torch.as_tensor(vertices, dtype=model.means.dtype, device=model.means.device)
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
