"""How the vertices of an asset's rest pose come from those in its file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers import fixed
from renderers.gltf.asset import Asset
from renderers.gltf.document import Document
from renderers.gltf.meshes import Geometry, read_stored, read_triangles
from renderers.gltf.rig import Part, Skin
from renderers.values import by_value


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class RestPart:
    """One primitive at one node, as in `Asset.primitives`.

    Attributes:
        node, mesh, index: of the node, its mesh, and the primitive in that mesh.
        vertices: its range in the asset-wide arrays.
        count: number of vertices of the primitive in the file.
        stored: int64 [n], for each of its n vertices in the asset the vertex in the file. Primitives without normals
            have three vertices per triangle in the asset.
        triangles: int64 [F, 3], of vertices in the file.
        transforms: float64 [n, 4, 4], from mesh space to the world of the file in the rest pose, per vertex of the
            asset; [1, 4, 4] if it is the same for all.
        skinned: whether a skin of the file moves it.
        instanced: whether it is repeated by EXT_mesh_gpu_instancing; `stored` and `transforms` are empty then.
    """

    node: int
    mesh: int
    index: int
    vertices: slice
    count: int
    stored: np.ndarray
    triangles: np.ndarray
    transforms: np.ndarray
    skinned: bool
    instanced: bool


def rest_parts(asset: Asset, document: Document) -> list[RestPart]:
    """Describe all primitives of an asset in the rest pose, in the order of `asset.primitives`.

    Args:
        asset: the loaded file.
        document: the same file.
    """
    rig = asset._rig
    world = rig.nodes.world(rig.nodes.local)
    flat = set(rig.flat)
    of_vertices: dict[int, np.ndarray] = {}
    for skin in rig.skins:
        of_vertices |= _skin_transforms(skin, world)
    parts = []
    for number, (part, vertices) in enumerate(zip(rig.parts, rig.ranges, strict=True)):
        count, triangles = _file_triangles(document, part)
        if part.instances is not None:
            stored, transforms = np.zeros(0, np.int64), np.zeros((0, 4, 4))
        else:
            stored = triangles.reshape(-1) if number in flat else np.arange(count)
            transforms = world[part.node][None]
            if part.skin is not None:
                # A block may span several parts: cut the part out of the blocks that it overlaps.
                transforms = np.concatenate(
                    [
                        matrices[max(vertices.start - start, 0) : vertices.stop - start]
                        for start, matrices in sorted(of_vertices.items())
                        if start < vertices.stop and start + len(matrices) > vertices.start
                    ]
                )
        parts.append(
            RestPart(
                part.node, part.mesh, part.index, vertices, count, stored, triangles, transforms,
                part.skin is not None, part.instances is not None,
            )
        )  # fmt: skip
    return parts


def _skin_transforms(skin: Skin, world: np.ndarray) -> dict[int, np.ndarray]:
    """First vertex of each block → blended matrices of its vertices, float64 [n, 4, 4]."""
    joints = fixed.product(world[skin.joints], skin.inverse_bind).reshape(-1, 16)
    blended = {}
    for block in skin.blocks:
        blended[block.vertices.start] = block.blend_exactly(joints).reshape(-1, 4, 4)
    return blended


def _file_triangles(document: Document, part: Part) -> tuple[int, np.ndarray]:
    """Return the number of vertices in the file and the triangles int64 [F, 3] of a primitive."""
    where = f"meshes[{part.mesh}].primitives[{part.index}]"
    primitive = document.items("meshes")[part.mesh]["primitives"][part.index]
    count = document.count(primitive["attributes"]["POSITION"])
    return count, read_triangles(document, primitive, count, where)[0]


def stored_geometry(document: Document, part: RestPart) -> Geometry:
    """Read the vertices and triangles of a part as the file stores them, without splitting them for flat shading."""
    return read_stored(document, part.mesh, part.index)
