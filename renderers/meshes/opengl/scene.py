"""An asset on the GPU: vertex buffers, textures, and draw calls grouped by material."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import moderngl
import numpy as np

from renderers.gltf import Asset, Pose, Texture
from renderers.meshes.clip import Shot
from renderers.meshes.closed import closed_triangles
from renderers.meshes.opacity import MIXED, SOLID, triangle_opacity
from renderers.meshes.opengl import shaders
from renderers.meshes.opengl.context import Gpu, Resource, release_with
from renderers.meshes.opengl.materials import (
    material_block,
    shader_features,
    texture_slots,
    unfolding,
    upload_image,
)

_SRGB8_ALPHA8 = 0x8C43
_SLABS = 8  # slabs of depth within which blended materials are drawn one after the other
# Alpha mode → shader features of the geometry pass (normals, depth, motion).
_GEOMETRY_FEATURES = {
    "SOLID": ("GEOMETRY",),
    "MASK": ("GEOMETRY", "MASK"),
    "BLEND": ("GEOMETRY", "HALF_MASK"),
}


@dataclass(frozen=True)
class _Batch:
    """Triangles drawn by one call: same material, culling and winding."""

    vao: moderngl.VertexArray
    material_block: moderngl.Buffer
    textures: tuple[tuple[moderngl.Texture, int], ...]
    cull: bool
    mirrored: bool


@dataclass(frozen=True)
class _Blended:
    """Triangles [F, 3] with translucent texels: drawn to the depth buffer, then from far to near.

    `order` contains the sorted indices of all views, so that it is written once per frame: a write between two views
    would make the driver wait for the first one.
    """

    depth: _Batch
    colour: _Batch
    order: moderngl.Buffer
    triangles: np.ndarray


class Scene:
    """Buffers, textures and draw calls of an asset, and the frame that they currently contain.

    Attributes:
        one_sided: per primitive bool [F]: triangles whose back face is never visible.
        radius: distance of the farthest visible vertex from the world origin in the current frame, metres.
    """

    def __init__(self, gpu: Gpu, asset: Asset, shot: Shot, stack: contextlib.ExitStack) -> None:
        self._gpu, self._ctx, self._asset, self._stack = gpu, gpu.ctx, asset, stack
        self._dynamic = self._own(self._ctx.buffer(reserve=asset.num_vertices * 24, dynamic=True))
        self._positions_and_normals = np.empty((asset.num_vertices, 6), np.float32)
        self._next_positions = self._own(self._ctx.buffer(reserve=asset.num_vertices * 12, dynamic=True))
        self._textures: dict[tuple[int, bool, str, str, bool], moderngl.Texture] = {}
        times = shot.timestamps[:: max(1, len(shot.timestamps) // 8)]
        closed = closed_triangles(asset, (shot.positions(asset, t) for t in times))
        self._opacity = triangle_opacity(asset)
        # Back faces can be seen on open surfaces and through parts that are not opaque.
        self.one_sided = [
            closed[p] & (self._opacity[p] == SOLID) | (not asset.materials[primitive.material].double_sided)
            for p, primitive in enumerate(asset.primitives)
        ]
        self._coloured = bool(np.any(asset.colors != 1.0))
        self._batched_for: bytes | None = None
        self._static = self._upload_static()

    def _own(self, resource: Resource) -> Resource:
        return release_with(self._stack, resource)

    def _upload_static(self) -> moderngl.Buffer:
        """Upload, per vertex, its colour and the transformed texture coordinates of every slot."""
        asset = self._asset
        slots = np.zeros((asset.num_vertices, len(shaders.SLOTS), 2), np.float32)
        for primitive in asset.primitives:
            material = asset.materials[primitive.material]
            for s, (_, texture) in enumerate(texture_slots(material)):
                if texture is not None:
                    uv = asset.texcoords[
                        primitive.vertices, min(texture.texcoord, asset.texcoords.shape[1] - 1)
                    ]
                    uv = uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]
                    slots[primitive.vertices, s] = uv / unfolding(texture)
        packed = np.concatenate([asset.colors, slots.reshape(asset.num_vertices, -1)], axis=1)
        return self._own(self._ctx.buffer(np.ascontiguousarray(packed, np.float32).tobytes()))

    def deform(self, pose: Pose, shot: Shot) -> None:
        """Upload the pose of another frame."""
        self._positions_and_normals[:, :3] = pose.positions
        self._positions_and_normals[:, 3:] = pose.normals
        self._dynamic.write(self._positions_and_normals)
        if self._batched_for != pose.mirrored.tobytes():
            self._batched_for = pose.mirrored.tobytes()
            self._make_batches(pose.mirrored, len(shot.cameras))
        world = pose.positions[self._asset.visible] @ shot.asset_to_world[:3, :3].T.astype(np.float32)
        world += shot.asset_to_world[:3, 3].astype(np.float32)
        self.radius = float(np.sqrt(np.einsum("ni,ni->n", world, world).max()))
        self._sort(pose.positions, shot)

    def _sort(self, positions: np.ndarray, shot: Shot) -> None:
        """Sort blended triangles from far to near for every view; materials alternate per slab of depth.

        The order is exact unless two translucent materials interleave within one slab.
        """
        eyes = shot.cameras.camera_to_world[:, :, 3] @ np.linalg.inv(shot.asset_to_world).T
        eyes = eyes[:, :3].astype(np.float32)
        distances = []
        for part in self._blended:
            centres = positions[part.triangles].mean(axis=1)
            # |c - e|² without |e|², which is equal for all triangles.
            distance = np.einsum("ni,ni->n", centres, centres) - 2.0 * eyes @ centres.T
            order = np.argsort(-distance, axis=1, kind="stable")
            part.order.write(np.ascontiguousarray(part.triangles[order], np.uint32))
            distances.append(np.take_along_axis(distance, order, axis=1))
        self._blended_draws = [_interleave([d[v] for d in distances]) for v in range(len(eyes))]

    def _make_batches(self, mirrored: np.ndarray, views: int) -> None:
        """Group triangles by material, opacity, culling and winding: one draw call per group."""
        groups: dict[tuple[int, int, bool, bool], list[np.ndarray]] = {}
        for p, primitive in enumerate(self._asset.primitives):
            for opacity in (SOLID, MIXED):
                selected, one_sided = self._opacity[p] == opacity, self.one_sided[p]
                for cull, triangles in ((True, selected & one_sided), (False, selected & ~one_sided)):
                    if triangles.any():
                        key = (primitive.material, opacity, cull, bool(mirrored[p]))
                        groups.setdefault(key, []).append(primitive.triangles[triangles])
        self._solid: list[_Batch] = []
        self._blended: list[_Blended] = []
        self._geometry: list[_Batch] = []
        for (m, opacity, cull, flipped), parts in groups.items():
            triangles = np.concatenate(parts)
            indices = self._own(self._ctx.buffer(np.ascontiguousarray(triangles, np.uint32).tobytes()))
            mode = self._asset.materials[m].alpha_mode if opacity == MIXED else "SOLID"
            if mode == "BLEND":
                depth = self._batch(indices, m, ("BLEND", "DEPTH_ONLY"), cull, flipped)
                order = self._own(self._ctx.buffer(reserve=views * triangles.size * 4, dynamic=True))
                colour = self._batch(order, m, ("BLEND",), cull, flipped)
                self._blended.append(_Blended(depth, colour, order, triangles))
            else:
                self._solid.append(
                    self._batch(indices, m, ("MASK",) if mode == "MASK" else (), cull, flipped)
                )
            self._geometry.append(self._batch(indices, m, _GEOMETRY_FEATURES[mode], cull, flipped))

    def _batch(
        self, indices: moderngl.Buffer, m: int, extra: tuple[str, ...], cull: bool, mirrored: bool
    ) -> _Batch:
        """Create a draw call for material `m` with `extra` shader features."""
        material = self._asset.materials[m]
        features = shader_features(material, self._coloured) | set(extra)
        if "GEOMETRY" in features:
            features -= {"METALLIC_ROUGHNESS_MAP", "EMISSIVE_MAP", "OCCLUSION_MAP", "UNLIT"}
        if "DEPTH_ONLY" in features:
            features &= {"BASE_MAP", "VERTEX_COLOUR", "BLEND", "DEPTH_ONLY"}
        program = self._gpu.program(frozenset(features))
        vao = self._own(self._vertex_array(program, indices))
        block = self._own(self._ctx.buffer(material_block(material)))
        textures = tuple(
            (self._texture(texture, srgb=slot in ("BASE_MAP", "EMISSIVE_MAP")), shaders.SLOTS.index(slot))
            for slot, texture in texture_slots(material)
            if texture is not None and slot in program
        )
        return _Batch(vao, block, textures, cull, mirrored)

    def _vertex_array(self, program: moderngl.Program, indices: moderngl.Buffer) -> moderngl.VertexArray:
        """Bind the attributes that a program reads; the others become padding in the layout."""
        names = ["colour", *(f"uv_{slot}" for slot in shaders.SLOTS)]
        sizes = [4] + [2] * len(shaders.SLOTS)
        used = [name in program for name in names]
        layout = " ".join(f"{n}f" if u else f"{4 * n}x" for n, u in zip(sizes, used, strict=True))
        content: list[Any] = [(self._dynamic, "3f 3f", "position", "normal")]
        if "normal" not in program:
            content = [(self._dynamic, "3f 12x", "position")]  # unlit
        if "next_position" in program:
            content.append((self._next_positions, "3f", "next_position"))
        if any(used):
            content.append((self._static, layout, *(n for n, u in zip(names, used, strict=True) if u)))
        return self._ctx.vertex_array(program, content, indices)

    def _texture(self, texture: Texture, srgb: bool) -> moderngl.Texture:
        """Upload a texture on first use; with `srgb` the sampler decodes its colours to linear."""
        key = (id(texture.image), srgb, texture.wrap_s, texture.wrap_t, texture.nearest)
        if key not in self._textures:
            image = upload_image(texture)
            options: dict[str, Any] = {"internal_format": _SRGB8_ALPHA8} if srgb else {}
            size = (image.shape[1], image.shape[0])
            uploaded = self._ctx.texture(size, 4, image.tobytes(), **options)
            uploaded.build_mipmaps()
            uploaded.filter = (
                (moderngl.NEAREST_MIPMAP_NEAREST, moderngl.NEAREST)
                if texture.nearest
                else (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
            )
            uploaded.repeat_x, uploaded.repeat_y = texture.wrap_s != "clamp", texture.wrap_t != "clamp"
            self._textures[key] = self._own(uploaded)
        return self._textures[key]

    def set_next_pose(self, pose: Pose) -> None:
        """Upload the positions of the next frame, for optical flow."""
        self._next_positions.write(np.ascontiguousarray(pose.positions, np.float32))

    def set_view(self, world_to_clip: np.ndarray, eye: np.ndarray, shot: Shot) -> None:
        """Set the camera of the following draw calls."""
        self._gpu.view_block.write(shaders.view_block(world_to_clip, shot.asset_to_world, eye))
        self._gpu.view_block.bind_to_uniform_block(shaders.VIEW_BINDING)

    def draw_colour(self, target: moderngl.Framebuffer, view: int) -> None:
        """Draw opaque surfaces, then blended ones from far to near."""
        ctx = self._ctx
        ctx.enable_only(moderngl.DEPTH_TEST)
        ctx.depth_func = "<"
        for batch in self._solid:
            self._render(batch)
        if not self._blended:
            return
        # The opaque fragments of blended surfaces are drawn to the depth buffer first, so that they hide what is behind
        # them in whatever order the triangles are sorted.
        target.color_mask = False, False, False, False
        for part in self._blended:
            self._render(part.depth)
        target.color_mask = True, True, True, True
        target.depth_mask = False
        ctx.depth_func = "<="
        ctx.enable(moderngl.BLEND)
        ctx.blend_func = moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA
        for i, start, stop in self._blended_draws[view]:
            part = self._blended[i]
            first = view * part.triangles.size + 3 * start
            self._render(part.colour, first=first, count=3 * (stop - start))
        target.depth_mask = True
        ctx.disable(moderngl.BLEND)

    def draw_geometry(self) -> None:
        """Draw normals, depth and motion of everything that is at least half opaque."""
        self._ctx.enable_only(moderngl.DEPTH_TEST)
        self._ctx.depth_func = "<"
        for batch in self._geometry:
            self._render(batch)

    def _render(self, batch: _Batch, first: int = 0, count: int = -1) -> None:
        ctx = self._ctx
        if batch.cull:
            ctx.enable(moderngl.CULL_FACE)
        else:
            ctx.disable(moderngl.CULL_FACE)
        ctx.front_face = "cw" if batch.mirrored else "ccw"
        batch.material_block.bind_to_uniform_block(shaders.MATERIAL_BINDING)
        for texture, unit in batch.textures:
            texture.use(unit)
        batch.vao.render(vertices=count, first=first)


def _interleave(distances: list[np.ndarray]) -> list[tuple[int, int, int]]:
    """Order the triangles of several parts from far to near, slab by slab of depth.

    Args:
        distances: for each part, distances of its triangles, descending.
    Returns:
        Draw calls (part, first triangle, one past the last).
    """
    if len(distances) < 2:
        return [(i, 0, len(d)) for i, d in enumerate(distances)]
    far, near = max(d[0] for d in distances), min(d[-1] for d in distances)
    edges = np.linspace(far, near, _SLABS + 1)[1:-1]
    cuts = [[0, *np.searchsorted(-d, -edges), len(d)] for d in distances]
    parts = np.argsort([-d.mean() for d in distances], kind="stable")
    draws = [(int(i), int(cuts[i][s]), int(cuts[i][s + 1])) for s in range(_SLABS) for i in parts]
    return [(i, start, stop) for i, start, stop in draws if start < stop]
