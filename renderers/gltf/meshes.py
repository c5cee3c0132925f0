"""Mesh primitives: vertex attributes, triangles and morph targets, from plain, sparse or compressed storage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from renderers.gltf.compression import DRACO
from renderers.gltf.document import Document

MAX_TEXCOORDS = 8
_MAX_JOINT_SETS = 8


@dataclass
class Geometry:
    """The n vertices and F triangles of a mesh primitive.

    Attributes:
        positions: float32 [n, 3].
        normals: float32 [n, 3]; None for flat shading, where every triangle has three vertices of its own.
        texcoords: list of float32 [n, 2], one per set.
        colors: float32 [n, 3] or [n, 4], linear.
        joints: int64 [n, K], indices into the joints of a skin.
        weights: float32 [n, K], as stored (not normalised).
        triangles: int64 [F, 3].
        position_targets, normal_targets: float32 [targets, 3, n], differences to the base shape.
    """

    positions: np.ndarray
    normals: np.ndarray | None
    texcoords: list[np.ndarray]
    colors: np.ndarray | None
    joints: np.ndarray | None
    weights: np.ndarray | None
    triangles: np.ndarray
    position_targets: np.ndarray
    normal_targets: np.ndarray | None


def read_geometry(document: Document, mesh: int, index: int) -> Geometry:
    """Read primitive `index` of a mesh. Its sizes must have been checked against the limits."""
    geometry = read_stored(document, mesh, index)
    return _flattened(geometry) if geometry.normals is None else geometry


def read_stored(document: Document, mesh: int, index: int) -> Geometry:
    """Read primitive `index` of a mesh with the vertices of the file, whether or not it has normals."""
    where = f"meshes[{mesh}].primitives[{index}]"
    primitive = document.items("meshes")[mesh]["primitives"][index]
    attributes = document.child(primitive, "attributes", where) or {}
    accessors = {
        key: document.index(attributes, key, "accessors", f"{where}.attributes") for key in attributes
    }
    position = accessors["POSITION"]
    assert position is not None, "checked by rig._find_parts"
    count = document.count(position)
    triangles, compressed = read_triangles(document, primitive, count, where)

    def optional(key: str, *types: str) -> np.ndarray | None:
        return None if accessors.get(key) is None else read(key, *types)

    def read(key: str, *types: str, integers: bool = False) -> np.ndarray:
        here, accessor = f"{where}.{key}", accessors[key]
        assert accessor is not None
        if key not in compressed:
            return (document.unsigned if integers else document.floats)(accessor, count, types, here)
        values = compressed[key]
        if values.shape[1] not in {int(kind[-1]) for kind in types}:
            document.fail(
                f"{here}: expected {' or '.join(types)}, got {values.shape[1]} components; export the asset again"
            )
        values = document.as_stored(accessor, values, here)
        if integers:
            return values.astype(np.int64)
        normalised = document.items("accessors")[accessor].get("normalized") is True
        return document.as_floats(accessor, values, normalised, here)

    def sets(stem: str, limit: int) -> list[str]:
        """List the attributes `stem`_0, `stem`_1, … that the primitive has, without gaps."""
        names = [f"{stem}_{number}" for number in range(limit)]
        return list(takewhile(lambda name: accessors.get(name) is not None, names))

    influences = list(zip(sets("JOINTS", _MAX_JOINT_SETS), sets("WEIGHTS", _MAX_JOINT_SETS), strict=False))
    geometry = Geometry(
        positions=read("POSITION", "VEC3"),
        normals=optional("NORMAL", "VEC3"),
        texcoords=[read(key, "VEC2") for key in sets("TEXCOORD", MAX_TEXCOORDS)],
        colors=optional("COLOR_0", "VEC3", "VEC4"),
        joints=None,
        weights=None,
        triangles=triangles,
        position_targets=np.zeros((0, 3, count), np.float32),
        normal_targets=None,
    )
    if influences:
        geometry.joints = np.concatenate([read(joints, "VEC4", integers=True) for joints, _ in influences], 1)
        geometry.weights = np.concatenate([read(weights, "VEC4") for _, weights in influences], 1)
    _read_targets(document, primitive, geometry, where)
    return geometry


def read_triangles(
    document: Document, primitive: dict, vertices: int, where: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read triangles int64 [F, 3], validated against the number of vertices; with Draco also the attributes by name."""
    indices = document.index(primitive, "indices", "accessors", where)
    corners = vertices if indices is None else document.count(indices)
    packed = document.extension(primitive, DRACO, where)
    compressed: dict[str, np.ndarray] = {}
    if packed is not None:
        here = f"{where}.{DRACO}"
        triangles, attribute = document.draco(packed, vertices, corners // 3, here)
        keys = document.child(packed, "attributes", here) or {}
        compressed = {key: attribute(document.integer(keys, key, None, here)) for key in keys}
    else:
        order = np.arange(vertices)
        if indices is not None:
            order = document.unsigned(indices, corners, ("SCALAR",), f"{where}.indices")[:, 0]
        triangles = _triangles(order, document.integer(primitive, "mode", 4, where))
    if not len(triangles) or triangles.max() >= vertices:
        document.fail(
            f"{where}: expected triangles with indices below {vertices}, got larger ones or none; "
            "export the asset again"
        )
    return triangles, compressed


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    """Convert a triangle list (mode 4), strip (5) or fan (6) to int64 [F, 3] of equal winding (glTF §3.7.2.1)."""
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    first = np.arange(max(len(order) - 2, 0))
    if mode == 6:
        return np.stack([order[first + 1], order[first + 2], np.broadcast_to(order[:1], first.shape)], 1)
    odd = first % 2
    return np.stack([order[first], order[first + 1 + odd], order[first + 2 - odd]], 1)


def _read_targets(document: Document, primitive: dict, geometry: Geometry, where: str) -> None:
    """Fill in the morph targets; a target without POSITION or NORMAL has differences of zero."""
    targets = document.items("targets", primitive, f"{where}.")
    if not targets:
        return
    shape = (len(targets), 3, len(geometry.positions))
    geometry.position_targets = np.zeros(shape, np.float32)
    if geometry.normals is not None and any("NORMAL" in target for target in targets):
        geometry.normal_targets = np.zeros(shape, np.float32)
    for number, target in enumerate(targets):
        here = f"{where}.targets[{number}]"
        for key, out in (("POSITION", geometry.position_targets), ("NORMAL", geometry.normal_targets)):
            accessor = document.index(target, key, "accessors", here)
            if accessor is None or out is None:
                continue
            out[number] = document.floats(accessor, shape[2], ("VEC3",), f"{here}.{key}").T


def _flattened(geometry: Geometry) -> Geometry:
    """Give every triangle three vertices of its own, as flat normals require (glTF §3.7.2.1)."""
    corners = geometry.triangles.reshape(-1)

    def take(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[corners]

    return replace(
        geometry,
        positions=geometry.positions[corners],
        texcoords=[values[corners] for values in geometry.texcoords],
        colors=take(geometry.colors),
        joints=take(geometry.joints),
        weights=take(geometry.weights),
        triangles=np.arange(len(corners)).reshape(-1, 3),
        position_targets=geometry.position_targets[:, :, corners],
    )
