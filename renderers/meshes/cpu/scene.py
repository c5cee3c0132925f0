"""An asset as the kernels read it: triangles, materials and textures once per clip, vertices once per frame."""

from __future__ import annotations

import copy
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from renderers.gltf import Asset, Material, Pose, Texture
from renderers.meshes.buffers import aligned_zeros
from renderers.meshes.clip import Shot
from renderers.meshes.closed import closed_triangles
from renderers.meshes.cpu import layout
from renderers.meshes.cpu.kernel_code import load_kernels
from renderers.meshes.cpu.layout import Materials, Mesh
from renderers.meshes.cpu.textures import TextureStore
from renderers.meshes.opacity import INVISIBLE, SOLID, triangle_opacity

kernels = load_kernels()


class Scene:
    """The arrays of an asset, and the frame that they currently contain.

    Args:
        pool: packs the textures meanwhile, if given.
    Attributes:
        mesh, materials: see `layout`.
        one_sided: per primitive bool [F]: triangles whose back face is never visible.
        orders: how many numbers fragments are sorted by (`layout.ORDER`).
        first_blended: the first triangle of `mesh` that is blended; those after it are, too.
        radius: distance of the farthest visible vertex from the world origin in the current frame, metres.
    """

    def __init__(self, asset: Asset, shot: Shot, pool: Executor | None = None) -> None:
        self._asset = asset
        texcoords = _texcoords(asset)
        packing = pool.submit(_pack_materials, asset, texcoords) if pool else None
        times = shot.timestamps[:: max(1, len(shot.timestamps) // 8)]
        closed = closed_triangles(asset, (shot.positions(asset, t) for t in times))
        opacity = triangle_opacity(asset)
        # Back faces can be seen on open surfaces and through parts that are not opaque.
        self.one_sided = [
            closed[p] & (opacity[p] == SOLID) | (not asset.materials[primitive.material].double_sided)
            for p, primitive in enumerate(asset.primitives)
        ]
        selected = _select_triangles(asset, opacity, self.one_sided)
        self._primitives = selected.primitives
        self.first_blended = int(np.searchsorted(selected.kinds, layout.BLEND))
        self.mesh = Mesh(
            corners=selected.corners,
            materials=selected.materials,
            kinds=selected.kinds,
            culled=selected.culled,
            winding=np.ones(len(selected.corners), np.int8),
            colors=_vertex_colors(asset),
            texcoords=texcoords,
            positions=np.zeros((asset.num_vertices, 3), np.float32),
            normals=np.zeros((asset.num_vertices, 3), np.float32),
            vertices=aligned_zeros((asset.num_vertices, 8), np.float32),
            lanes=_lanes(selected.corners),
            culled_winding=np.zeros(len(_lanes(selected.corners)) // 3, np.float32),
        )
        self.materials = packing.result() if packing else _pack_materials(asset, texcoords)
        self.orders = int(_orders(self.materials.flags).sum())
        self.radius = 0.0
        self._visible = np.ascontiguousarray(asset.visible, np.int64)

    def twin(self) -> Scene:
        """Return the same scene with a frame of its own, to be posed while this one is drawn."""
        other = copy.copy(self)
        moving = ("winding", "positions", "normals", "vertices", "culled_winding")
        other.mesh = self.mesh._replace(**{name: getattr(self.mesh, name).copy() for name in moving})
        return other

    def deform(self, pose: Pose, shot: Shot) -> None:
        """Set the pose of another frame."""
        self.mesh.winding[:] = np.where(pose.mirrored, -1, 1)[self._primitives]
        self.mesh.culled_winding[: len(self._primitives)] = self.mesh.winding * self.mesh.culled
        place(pose.positions, shot.asset_to_world, self.mesh.positions)
        directions = np.array(shot.asset_to_world)
        directions[:3, 3] = 0.0
        place(pose.normals, directions, self.mesh.normals)
        mesh = self.mesh
        kernels.pack_vertices(mesh.positions, mesh.normals, mesh.texcoords, mesh.vertices)
        self.radius = float(np.sqrt(kernels.farthest(self.mesh.positions, self._visible)))


def place(points: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """Transform points [N, 3] with a matrix [4, 4] to `out`, float32 [N, 3]."""
    kernels.place_vertices(
        np.ascontiguousarray(points, np.float32), np.ascontiguousarray(matrix[:3], np.float64), out
    )


@dataclass(frozen=True)
class _Triangles:
    """The visible triangles of an asset in the order of drawing; see `layout.Mesh`. `primitives`: int64 [F]."""

    corners: np.ndarray
    materials: np.ndarray
    kinds: np.ndarray
    culled: np.ndarray
    primitives: np.ndarray


def _select_triangles(asset: Asset, opacity: list[np.ndarray], one_sided: list[np.ndarray]) -> _Triangles:
    """Return the triangles that can be visible: solid, then masked, then blended ones."""
    kinds = []
    for p, primitive in enumerate(asset.primitives):
        mixed = layout.MASK if asset.materials[primitive.material].alpha_mode == "MASK" else layout.BLEND
        kinds.append(np.where(opacity[p] == SOLID, layout.SOLID, mixed).astype(np.uint8))
    kind = np.concatenate(kinds)
    primitives = np.repeat(np.arange(len(opacity)), [len(part) for part in opacity])
    order = np.argsort(kind, kind="stable")
    order = order[np.concatenate(opacity)[order] != INVISIBLE]
    corners = np.concatenate([primitive.triangles for primitive in asset.primitives])
    used = np.array([primitive.material for primitive in asset.primitives])[primitives[order]]
    return _Triangles(
        corners=np.column_stack([corners[order], used]).astype(np.uint32),
        materials=used.astype(np.uint32),
        kinds=kind[order],
        culled=np.concatenate(one_sided)[order],
        primitives=primitives[order],
    )


def _lanes(corners: np.ndarray) -> np.ndarray:
    """Return `layout.Mesh.lanes` of corners [F, 4]; the padding repeats vertex 0."""
    result = np.zeros((3, -(-len(corners) // 16) * 16), np.uint32)
    result[:, : len(corners)] = corners[:, :3].T
    return result.ravel()


def _vertex_colors(asset: Asset) -> np.ndarray:
    """Return the vertex colours, or an empty array if all are white and opaque."""
    if not np.any(asset.colors != 1.0):
        return np.zeros((0, 4), np.float32)
    return np.ascontiguousarray(asset.colors, np.float32)


def _textures(material: Material) -> list[tuple[int, Texture | None]]:
    """Pair the slots with the textures of a material that are visible."""
    emissive = material.emissive_texture if np.any(np.asarray(material.emissive) > 0) else None
    slots = [(layout.BASE_MAP, material.base_color_texture)]
    if not material.unlit:
        slots += [
            (layout.METALLIC_ROUGHNESS_MAP, material.metallic_roughness_texture),
            (layout.EMISSIVE_MAP, emissive),
            (layout.OCCLUSION_MAP, material.occlusion_texture),
        ]
    return [*slots, (layout.NORMAL_MAP, material.normal_texture)]


def _texcoords(asset: Asset) -> np.ndarray:
    """Return float32 [N, SLOTS, 2]: the transformed texture coordinates of every slot."""
    result = np.zeros((asset.num_vertices, layout.SLOTS, 2), np.float32)
    for primitive in asset.primitives:
        for slot, texture in _textures(asset.materials[primitive.material]):
            if texture is not None:
                uv = asset.texcoords[primitive.vertices, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
                u, v = uv.T.astype(np.float64)
                for axis in range(2):
                    row = texture.transform[axis]
                    result[primitive.vertices, slot, axis] = row[0] * u + row[1] * v + row[2]
    return result


def _pack_materials(asset: Asset, texcoords: np.ndarray) -> Materials:
    """Return the materials and textures of an asset as arrays."""
    count = len(asset.materials)
    factors = np.zeros((count, layout.FACTORS), np.float32)
    flags = np.zeros((count, layout.FLAGS), np.int32)
    numbers = np.full((count, layout.SLOTS), -1, np.int32)
    store = TextureStore()
    for m, material in enumerate(asset.materials):
        factors[m] = (
            *material.base_color,
            *material.emissive,
            material.alpha_cutoff,
            material.metallic,
            material.roughness,
            material.normal_scale,
            material.occlusion_strength,
        )
        weighted = material.alpha_mode != "OPAQUE"
        for slot, texture in _textures(material):
            if texture is not None:
                numbers[m, slot] = store.add(
                    texture, bool(weighted) and slot in (layout.BASE_MAP, layout.EMISSIVE_MAP)
                )
        present = numbers[m] >= 0
        detailed = present[[layout.METALLIC_ROUGHNESS_MAP, layout.NORMAL_MAP, layout.OCCLUSION_MAP]].any()
        used = [primitive.vertices for primitive in asset.primitives if primitive.material == m]
        alike = all(
            np.array_equal(texcoords[part, layout.BASE_MAP], texcoords[part, layout.EMISSIVE_MAP])
            for part in used
        )
        flags[m, : layout.ORDER] = (
            material.double_sided, material.unlit, present.any(), detailed, weighted, alike,
        )  # fmt: skip
    flags[1:, layout.ORDER] = np.cumsum(_orders(flags))[:-1]
    return Materials(factors, flags, numbers, *store.pack())


def _orders(flags: np.ndarray) -> np.ndarray:
    """Return how many numbers the fragments of each material are sorted by (`layout.ORDER`)."""
    return np.where(flags[:, layout.WEIGHTED], layout.SAMPLE_MASKS, 1)
