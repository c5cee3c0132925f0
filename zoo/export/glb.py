"""Animated glTF: a skinned animation as one .glb file, for Blender, viewers and game engines."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from renderers.arguments import instance
from renderers.files import atomic_path, file_path
from renderers.gltf.writing import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, UINT16, UINT32, GlbBuffer
from zoo.export.animation import SkinnedAnimation
from zoo.export.keys import continuous
from zoo.formats import check_suffix


def write_glb(path: str | os.PathLike[str], animation: SkinnedAnimation) -> None:
    """Write an animation as a .glb, atomically; the same animation gives the same bytes.

    Raises:
        ValueError: the name does not end in .glb.
    """
    path = file_path(path, "write_glb: path")
    instance(animation, SkinnedAnimation, "write_glb: animation")
    check_suffix(path, (".glb",), "animations")
    data = glb_bytes(animation)
    with atomic_path(path) as part:
        part.write_bytes(data)


def glb_bytes(animation: SkinnedAnimation) -> bytes:
    """Return an animation as the bytes of a .glb."""
    buffer = GlbBuffer()
    K = len(animation.joints.names)
    joint_nodes = list(range(2, 2 + K))
    primitive = _primitive(buffer, animation)
    # The space of a joint in the rest pose is a translation, and glTF stores the inverse, column-major.
    inverse_bind = np.tile(np.eye(4), (K, 1, 1))
    inverse_bind[:, 3, :3] = -animation.joints.positions
    samplers, channels = _samplers_and_channels(buffer, animation, joint_nodes)
    material: dict[str, Any] = {
        "name": animation.mesh.material,
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "menagerie4d"}}
    if animation.mesh.unlit:
        material = {"name": animation.mesh.material, "extensions": {"KHR_materials_unlit": {}}} | material
        document["extensionsUsed"] = ["KHR_materials_unlit"]
    document |= {
        "scene": 0,
        "scenes": [{"name": animation.name, "nodes": [0, 1]}],
        "nodes": [
            {"name": animation.joints.name, "children": joint_nodes},
            {"name": animation.mesh.name, "mesh": 0, "skin": 0},
            *(
                {"name": name, "translation": [float(x) for x in position.astype(np.float32)]}
                for name, position in zip(animation.joints.names, animation.joints.positions, strict=True)
            ),
        ],
        "meshes": [{"name": animation.mesh.name, "primitives": [primitive]}],
        "skins": [
            {
                "inverseBindMatrices": buffer.add(inverse_bind.reshape(K, 16), "MAT4"),
                "skeleton": 0,
                "joints": joint_nodes,
            }
        ],
        "materials": [material],
        "animations": [
            {
                "name": animation.name,
                "channels": channels,
                "samplers": samplers,
                "extras": {"description": animation.name},
            }
        ],
    }
    return buffer.glb(document)


def _primitive(buffer: GlbBuffer, animation: SkinnedAnimation) -> dict[str, Any]:
    mesh = animation.mesh
    colors = np.ones((len(mesh.colors), 4))
    colors[:, :3] = _linear(mesh.colors)
    attributes = {
        "POSITION": buffer.add(mesh.vertices, "VEC3", target=ARRAY_BUFFER, bounds=True),
        "NORMAL": buffer.add(mesh.normals, "VEC3", target=ARRAY_BUFFER),
        "COLOR_0": buffer.add(np.rint(colors * 65535), "VEC4", UINT16, ARRAY_BUFFER, normalized=True),
        "JOINTS_0": buffer.add(animation.vertex_joints, "VEC4", UINT16, ARRAY_BUFFER),
        "WEIGHTS_0": buffer.add(animation.vertex_weights, "VEC4", target=ARRAY_BUFFER),
    }
    indices = buffer.add(mesh.triangles.reshape(-1), "SCALAR", UINT32, ELEMENT_ARRAY_BUFFER)
    return {"attributes": attributes, "indices": indices, "material": 0}


def _samplers_and_channels(
    buffer: GlbBuffer, animation: SkinnedAnimation, joint_nodes: list[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Linear key frames: a translation and a rotation per joint."""
    rotations = continuous(animation.rotations)[..., [1, 2, 3, 0]]  # glTF stores xyzw
    time = buffer.add(animation.times, "SCALAR", bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    for joint, node in enumerate(joint_nodes):
        for path, kind, values in (
            ("translation", "VEC3", animation.positions[:, joint]),
            ("rotation", "VEC4", rotations[:, joint]),
        ):
            samplers.append({"input": time, "interpolation": "LINEAR", "output": buffer.add(values, kind)})
            channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})
    return samplers, channels


def _linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB-encoded values in 0..1 to linear light, in which glTF stores vertex colours."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
