"""A motion as an animated glTF: key points as joints, and a coloured surface of the splats that they carry.

glTF's skinning is the model's: with joint k bound at the canonical key point p_k and moved to p_k + Δ_k(t) with the
rotation q_k(t), a vertex x goes to Σ w_k [R(q_k) (x − p_k) + p_k + Δ_k] (DIMO's linear blend, methods §4.4).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from renderers.gltf.writing import UINT16, UINT32, GlbBuffer
from zoo.export.surface import surface

if TYPE_CHECKING:
    from zoo.dimo.motion import Motion

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
INFLUENCES = 4  # joints a vertex: what every viewer and game engine takes


def write_glb(
    path: str | os.PathLike[str], motion: Motion, *, frames: int | None = None, detail: int = 128
) -> None:
    """Write one motion as a .glb that appears complete or not at all; the same motion gives the same bytes.

    Args:
        frames: key frames, evenly spaced; None = the motion's own.
        detail: cells along the object's longest side that its surface is found on.
    Raises:
        ValueError: the model has no key points (trained without motion factorisation).
    """
    path = Path(path)
    model = motion.model
    if not model.config.factorised:
        raise ValueError(
            f"{path}: {motion.name} was trained without key points, so it has no joints; save .ply or .npz"
        )
    if frames is not None:
        motion = motion.resampled(frames)
    mesh = canonical_surface(model, detail)
    joints, weights = vertex_weights(model, mesh.vertices)
    data = _document(motion, mesh, joints, weights)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@torch.no_grad()
def canonical_surface(model, detail: int):
    """The surface of a DIMO's canonical Gaussians."""
    from renderers.gaussians.features import rotation_matrices

    scales, opacities = model.log_scales.exp(), model.opacity_logits.sigmoid()
    tensors = (model.means, rotation_matrices(model.quats), scales, opacities, model.colors)
    means, rotations, scales, opacities, colors = (tensor.double().cpu().numpy() for tensor in tensors)
    return surface(means, rotations, scales, opacities, colors.clip(0, 1), detail=detail)


@torch.no_grad()
def vertex_weights(model, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints int64 [P, 4] and weights float64 [P, 4], rows summing to 1, of points in canonical space.

    A point is moved by the key points that move the Gaussian nearest to it, with shares of its own (methods §4.2).
    """
    from zoo.dimo.model import rbf_weights

    points = torch.as_tensor(vertices, dtype=torch.float32, device=model.key_points.device)
    nearest = torch.cat([torch.cdist(some, model.means).argmin(1) for some in points.split(1024)])
    joints = model.neighbours[nearest]
    squared = (points[:, None] - model.key_points[joints]).square().sum(-1)
    weights = rbf_weights(squared, model.log_radii.exp()[joints]).double()
    order = weights.argsort(dim=1, descending=True, stable=True)[:, :INFLUENCES]
    joints, weights = joints.gather(1, order), weights.gather(1, order)
    pad = INFLUENCES - joints.shape[1]
    joints, weights = (torch.nn.functional.pad(x, (0, pad)).cpu().numpy() for x in (joints, weights))
    weights = np.where(weights < 1e-6, 0.0, weights)
    return np.where(weights > 0, joints, 0), weights / weights.sum(1, keepdims=True)


def _document(motion: Motion, mesh, joints: np.ndarray, weights: np.ndarray) -> bytes:
    model = motion.model
    rest = model.key_points.detach().double().cpu().numpy()
    positions = motion.trajectories.positions.double().cpu().numpy()
    rotations = _continuous(motion.trajectories.rotations.double().cpu().numpy())
    times = (motion.phases - motion.phases[0]).double().cpu().numpy() * motion.seconds
    K = len(rest)
    buffer = GlbBuffer()
    colors = np.ones((len(mesh.colors), 4))
    colors[:, :3] = _linear(mesh.colors)
    attributes = {
        "POSITION": buffer.add(mesh.vertices, "VEC3", target=ARRAY_BUFFER, bounds=True),
        "NORMAL": buffer.add(mesh.normals, "VEC3", target=ARRAY_BUFFER),
        "COLOR_0": buffer.add(np.rint(colors * 65535), "VEC4", UINT16, ARRAY_BUFFER, normalized=True),
        "JOINTS_0": buffer.add(joints, "VEC4", UINT16, ARRAY_BUFFER),
        "WEIGHTS_0": buffer.add(weights, "VEC4", target=ARRAY_BUFFER),
    }
    indices = buffer.add(mesh.triangles.reshape(-1), "SCALAR", UINT32, ELEMENT_ARRAY_BUFFER)
    inverse_bind = np.tile(np.eye(4), (K, 1, 1))
    inverse_bind[:, 3, :3] = -rest  # column-major
    time = buffer.add(times, "SCALAR", bounds=True)
    samplers, channels = [], []
    for joint in range(K):
        for what, kind, values in (
            ("translation", "VEC3", positions[:, joint]),
            ("rotation", "VEC4", rotations[:, joint][:, [1, 2, 3, 0]]),  # glTF writes xyzw
        ):
            samplers.append({"input": time, "interpolation": "LINEAR", "output": buffer.add(values, kind)})
            channels.append({"sampler": len(samplers) - 1, "target": {"node": 2 + joint, "path": what}})
    material = {
        # The splats' colours have the light of their videos in them; a viewer must not light them again.
        "name": "splats", "extensions": {"KHR_materials_unlit": {}},
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }  # fmt: skip
    document = {
        "asset": {"version": "2.0", "generator": "menagerie4d"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"name": motion.name, "nodes": [0, 1]}],
        "nodes": [
            {"name": "key points", "children": list(range(2, 2 + K))},
            {"name": "surface", "mesh": 0, "skin": 0},
            *(
                {"name": f"key point {k}", "translation": [float(x) for x in np.float32(rest[k])]}
                for k in range(K)
            ),
        ],
        "meshes": [
            {"name": "surface", "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}
        ],
        "skins": [
            {
                "inverseBindMatrices": buffer.add(inverse_bind.reshape(K, 16), "MAT4"),
                "skeleton": 0,
                "joints": list(range(2, 2 + K)),
            }
        ],
        "materials": [material],
        "animations": [
            {
                "name": motion.name,
                "channels": channels,
                "samplers": samplers,
                "extras": {"description": motion.name},
            }
        ],
    }
    return buffer.glb(document)


def _continuous(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions [T, K, 4], each on the side of the one before, so that players turn the short way."""
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    flips = np.where((quats[1:] * quats[:-1]).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    return quats * np.concatenate([np.ones_like(quats[:1, :, :1]), np.cumprod(flips, axis=0)])


def _linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB-encoded 0..1 to linear light: what glTF's vertex colours are."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
