"""Write binary glTF 2.0 (GLB) from meshes, a skeleton and animations. The same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from factory.sources.creatures.body import Mesh
from factory.sources.creatures.motion import TIMES
from factory.sources.creatures.pose import Pose
from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed
from renderers.gltf.writing import FLOAT, UINT8, UINT16, GlbBuffer

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963


@dataclass(frozen=True)
class Clip:
    """An animation: its name, sentence (description), split, and the pose at each keyframe."""

    name: str
    sentence: str
    split: str
    pose: Pose


class _Buffer(GlbBuffer):
    """A buffer with floats rounded to multiples of 2^-20, so that platform rounding differences do not change bytes.

    Adding 0.0 turns -0.0 into 0.0.
    """

    def add(self, array: np.ndarray, kind: str, component: int = FLOAT, *rest: Any, **options: Any) -> int:
        if component == FLOAT:
            array = np.round(np.asarray(array, float) * 2**20) / 2**20 + 0.0
        return super().add(array, kind, component, *rest, **options)


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """Convert rotations [T, ..., 3, 3] to unit quaternions xyzw [T, ..., 4].

    Signs are chosen so that consecutive quaternions have a non-negative dot product (shortest-path interpolation).
    """
    m = np.moveaxis(rotations, (-2, -1), (0, 1))
    trace, one = m[0, 0] + m[1, 1] + m[2, 2], np.ones_like(m[0, 0])
    # products = 4 q qᵀ. Each row is proportional to q; the row with the largest diagonal entry is the most accurate.
    products = np.empty((4, 4, *one.shape))
    for i in range(3):
        products[i, i] = one + 2 * m[i, i] - trace
        j, k = (i + 1) % 3, (i + 2) % 3
        products[i, j] = products[j, i] = m[i, j] + m[j, i]
        products[i, 3] = products[3, i] = m[k, j] - m[j, k]
    products[3, 3] = one + trace
    largest = np.stack([products[i, i] for i in range(4)]).argmax(0)
    q = np.moveaxis(np.take_along_axis(products, largest[None, None], 0)[0], 0, -1)
    q = q / fixed.norm(q)[..., None]
    turns = np.where((q[1:] * q[:-1]).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    signs = np.concatenate([np.where(q[:1, ..., 3:] < 0, -1.0, 1.0), turns])
    return q * np.cumprod(signs, axis=0)


def write(
    name: str, meshes: Sequence[Mesh], skeleton: Skeleton, clips: Sequence[Clip],
    morphs: dict[str, list[tuple[np.ndarray, np.ndarray]]] | None = None, extras: dict | None = None,
) -> bytes:  # fmt: skip
    """Return a GLB with one skinned mesh, its joints, and one animation per clip.

    Args:
        name: name of the scene, the mesh and its node.
        meshes: one mesh per material; each becomes a primitive.
        skeleton: the joints in the rest pose.
        clips: the animations.
        morphs: morph target name → position and normal offsets [N, 3], one pair per mesh.
        extras: application-specific data, stored in `asset.extras`.

    Raises:
        ValueError: a mesh has too many vertices for 16-bit indices.
    """
    morphs = morphs or {}
    buffer = _Buffer()
    primitives = [
        _primitive(buffer, k, mesh, [m[k] for m in morphs.values()]) for k, mesh in enumerate(meshes)
    ]
    mesh: dict[str, Any] = {"name": name, "primitives": primitives}
    if morphs:
        mesh["weights"] = [0.0] * len(morphs)
        mesh["extras"] = {"targetNames": list(morphs)}
    inverse_bind = np.tile(np.eye(4), (len(skeleton.names), 1, 1))
    inverse_bind[:, :3, 3] = -skeleton.positions
    columns = inverse_bind.transpose(0, 2, 1).reshape(-1, 16)
    mesh_node = len(skeleton.names)
    document = {
        "asset": {"version": "2.0", "generator": "menagerie4d creatures", "copyright": "CC0-1.0",
                  "extras": extras or {}},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0, mesh_node]}],
        "nodes": [*_nodes(skeleton), {"name": name, "mesh": 0, "skin": 0}],
        "meshes": [mesh],
        "skins": [{"inverseBindMatrices": buffer.add(columns, "MAT4", FLOAT), "skeleton": 0,
                   "joints": list(range(mesh_node))}],
        "materials": [_material(mesh_) for mesh_ in meshes],
    }  # fmt: skip
    if clips:
        times = buffer.add(TIMES, "SCALAR", FLOAT, bounds=True)
        document["animations"] = [_animation(buffer, times, clip, skeleton, mesh_node) for clip in clips]
    return buffer.glb(document)


def _nodes(skeleton: Skeleton) -> list[dict]:
    nodes = []
    for joint, (name, offset) in enumerate(zip(skeleton.names, skeleton.offsets, strict=True)):
        children = [k for k, parent in enumerate(skeleton.parents) if parent == joint]
        node = {"name": name, "translation": _grid(offset)}
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _grid(values: np.ndarray) -> list[float]:
    return [float(np.float32(round(float(v) * 2**20) / 2**20)) for v in values]


def _material(mesh: Mesh) -> dict:
    material = mesh.material
    pbr = {"metallicFactor": material.metallic, "roughnessFactor": material.roughness}
    glow = {"emissiveFactor": list(material.emissive)} if any(material.emissive) else {}
    return {"name": material.name, "pbrMetallicRoughness": pbr, **glow}


def _primitive(
    buffer: _Buffer, number: int, mesh: Mesh, targets: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict:
    small = len(mesh.positions) < 65535
    if not small:
        raise ValueError(
            f"{mesh.material.name}: {len(mesh.positions)} vertices, expected at most 65 534 "
            f"(16-bit indices); use a larger `cell`"
        )
    attributes = {
        "POSITION": buffer.add(mesh.positions, "VEC3", FLOAT, ARRAY_BUFFER, bounds=True),
        "NORMAL": buffer.add(mesh.normals, "VEC3", FLOAT, ARRAY_BUFFER),
        "COLOR_0": buffer.add(mesh.colours, "VEC3", FLOAT, ARRAY_BUFFER),
        "JOINTS_0": buffer.add(mesh.joints, "VEC4", UINT8, ARRAY_BUFFER),
        "WEIGHTS_0": buffer.add(mesh.weights, "VEC4", FLOAT, ARRAY_BUFFER),
    }
    indices = buffer.add(mesh.triangles.reshape(-1), "SCALAR", UINT16, ELEMENT_ARRAY_BUFFER)
    primitive = {"attributes": attributes, "indices": indices, "material": number}
    if targets:
        primitive["targets"] = [
            {"POSITION": buffer.add(positions, "VEC3", FLOAT, ARRAY_BUFFER, bounds=True),
             "NORMAL": buffer.add(normals, "VEC3", FLOAT, ARRAY_BUFFER)}
            for positions, normals in targets
        ]  # fmt: skip
    return primitive


def _animation(buffer: _Buffer, times: int, clip: Clip, skeleton: Skeleton, mesh_node: int) -> dict:
    samplers, channels = [], []

    def channel(node: int, path: str, values: np.ndarray, kind: str) -> None:
        samplers.append(
            {"input": times, "interpolation": "LINEAR", "output": buffer.add(values, kind, FLOAT)}
        )
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    pose, offsets = clip.pose, skeleton.offsets
    turns = quaternions(pose.rotations)
    for joint in range(len(skeleton.names)):
        if np.abs(pose.translations[:, joint] - offsets[joint]).max() > 1e-6:
            channel(joint, "translation", pose.translations[:, joint], "VEC3")
        if np.abs(pose.rotations[:, joint] - np.eye(3)).max() > 1e-6:
            channel(joint, "rotation", turns[:, joint], "VEC4")
        if np.abs(pose.scales[:, joint] - 1).max() > 1e-6:
            channel(joint, "scale", pose.scales[:, joint], "VEC3")
    if pose.morphs:
        weights = np.stack(list(pose.morphs.values()), 1)
        if np.abs(weights).max() > 1e-6:
            channel(mesh_node, "weights", weights.reshape(-1), "SCALAR")
    extras = {"description": clip.sentence, "split": clip.split}
    return {"name": clip.name, "channels": channels, "samplers": samplers, "extras": extras}
