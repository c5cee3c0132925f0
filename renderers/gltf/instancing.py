"""EXT_mesh_gpu_instancing: the copies of a mesh at one node.

The copies become one part: each is transformed in the space of the mesh, and all follow the node. A vertex v of the
instance with the matrix I = T·R·S is at W·I·v, where W is the node's world matrix.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from renderers import fixed
from renderers.gltf.document import Document
from renderers.gltf.meshes import Geometry
from renderers.gltf.nodes import compose, unit_quaternions

INSTANCING = "EXT_mesh_gpu_instancing"
_TYPES = {"TRANSLATION": "VEC3", "ROTATION": "VEC4", "SCALE": "VEC3"}


def count_instances(document: Document, node: int) -> int | None:
    """Return the number of copies of the mesh at a node, from the JSON alone; None if it is not instanced."""
    accessors = _accessors(document, node)
    if not accessors:
        return None
    counts = {name: document.count(index) for name, index in accessors.items()}
    if len(set(counts.values())) > 1:
        document.fail(
            f"nodes[{node}].{INSTANCING}: expected accessors of equal counts, got {counts}; export the asset again"
        )
    return next(iter(counts.values()))


def read_instances(document: Document, node: int, count: int) -> np.ndarray:
    """Read the transforms of the copies, float64 [count, 4, 4]. `count` must have been checked against the limits."""
    accessors = _accessors(document, node)

    def read(name: str, default: tuple[float, ...]) -> np.ndarray:
        if name not in accessors:
            return np.tile(np.array(default), (count, 1))
        here = f"nodes[{node}].{INSTANCING}.{name}"
        return document.floats(accessors[name], count, (_TYPES[name],), here).astype(np.float64)

    rotation = unit_quaternions(read("ROTATION", (0.0, 0.0, 0.0, 1.0)))
    return compose(read("TRANSLATION", (0.0, 0.0, 0.0)), rotation, read("SCALE", (1.0, 1.0, 1.0)))


def repeat_geometry(geometry: Geometry, matrices: np.ndarray) -> Geometry:
    """Return one geometry with a copy for each matrix [c, 4, 4]: all vertices of the first, then of the second, …

    The winding of mirrored copies is reversed, so that the whole part has one winding.
    """
    copies, count = len(matrices), len(geometry.positions)
    linear = matrices[:, :3, :3]
    determinants = fixed.determinant(linear)
    positions = _products(linear, geometry.positions.T).swapaxes(1, 2) + matrices[:, None, :3, 3]
    # Cofactors: the inverse transpose times the determinant, defined for singular matrices, too.
    cofactors = np.stack([np.cross(linear[:, (i + 1) % 3], linear[:, (i + 2) % 3]) for i in range(3)], axis=1)
    cofactors[determinants < 0] *= -1
    mirrored = np.repeat(determinants < 0, len(geometry.triangles))

    def directions(vectors: np.ndarray) -> np.ndarray:
        """Normals [n, 3] of all copies, [c n, 3]. Their lengths do not matter: they are normalised when posed."""
        return _products(cofactors, vectors.T).swapaxes(1, 2).reshape(-1, 3).astype(np.float32)

    def targets(vectors: np.ndarray, transforms: np.ndarray) -> np.ndarray:
        """Differences [t, 3, n] of all copies, [t, 3, c n]."""
        out = _products(transforms, vectors[:, :, None]).swapaxes(1, 2)
        return out.reshape(len(vectors), 3, copies * count).astype(np.float32)

    triangles = (geometry.triangles[None] + np.arange(copies)[:, None, None] * count).reshape(-1, 3)
    result = replace(
        geometry,
        positions=positions.reshape(-1, 3),  # float64: the caller may have to centre them first
        normals=None if geometry.normals is None else directions(geometry.normals),
        texcoords=[np.tile(values, (copies, 1)) for values in geometry.texcoords],
        colors=None if geometry.colors is None else np.tile(geometry.colors, (copies, 1)),
        joints=None,
        weights=None,
        triangles=triangles,
        position_targets=targets(geometry.position_targets, linear),
        normal_targets=None
        if geometry.normal_targets is None
        else targets(geometry.normal_targets, cofactors),
    )
    if geometry.normals is not None:
        triangles[mirrored] = triangles[mirrored][:, ::-1]
        return result
    # Without normals, each triangle has three consecutive vertices of its own: exchange those instead.
    triangles[mirrored] = triangles[mirrored][:, ::-1]
    order = triangles.reshape(-1)
    return replace(
        result,
        positions=result.positions[order],
        texcoords=[values[order] for values in result.texcoords],
        colors=None if result.colors is None else result.colors[order],
        triangles=np.arange(len(order)).reshape(-1, 3),
        position_targets=result.position_targets[:, :, order],
    )


def _products(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply vectors in columns by all matrices [c, 3, 3], terms added in order.

    Args:
        vectors: [3, n], which gives [c, 3, n]; or [t, 3, 1, n], which gives [t, c, 3, n].
    """
    if vectors.ndim == 4:
        x, y, z = (vectors[:, k, :, None] for k in range(3))  # each [t, 1, 1, n]
    else:
        x, y, z = vectors
    m = matrices[..., None]
    return m[:, :, 0] * x + m[:, :, 1] * y + m[:, :, 2] * z


def _accessors(document: Document, node: int) -> dict[str, int]:
    """The accessors of the instance transforms by name; empty if the node is not instanced.

    Custom attributes, such as _ID, do not move the copies: a node that has only those is drawn once.
    """
    where = f"nodes[{node}].{INSTANCING}"
    extension = document.extension(document.items("nodes")[node], INSTANCING, f"nodes[{node}]")
    attributes = document.child(extension or {}, "attributes", where) or {}
    indices = {name: document.index(attributes, name, "accessors", where) for name in _TYPES}
    return {name: index for name, index in indices.items() if index is not None}
