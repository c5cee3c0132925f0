"""The default back end: OpenGL 3.3 on EGL through moderngl, the same on a GPU and on llvmpipe.

How one image is made
    1. The asset is deformed once per frame in numpy and uploaded; all views draw the same vertices.
    2. Each view is drawn at `sqrt(samples)` times the size into a small target that stays in cache, in
       sRGB-encoded premultiplied colour. On llvmpipe this is about twice as fast as multisampling.
    3. A resolve pass averages the samples, divides by alpha, turns the image upright and writes it into its
       place in a tall atlas, which is read once per frame.

Averaging and blending happen in sRGB-encoded values. That is the space in which PNGs and videos are composited
by everybody, so a stored clip put on a background equals a render on it.

What is skipped because it cannot be seen: back faces of closed solid parts, whatever `doubleSided` says, and
triangles whose texture is transparent everywhere.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

import moderngl
import numpy as np

from renderers.cameras import Cameras, opengl_projection, to_opengl
from renderers.gltf import Asset, Material, Pose, Texture
from renderers.meshes import shaders
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderError, RenderSettings, Shot
from renderers.meshes.closed import closed_triangles
from renderers.meshes.devices import cuda_to_egl_device, load_triton_first, nvidia_gpu_present
from renderers.meshes.opacity import MIXED, SOLID, triangle_opacity
from renderers.meshes.tracks import Surface, Tracker

_SOFTWARE = ("llvmpipe", "softpipe", "swrast")
_SRGB8_ALPHA8 = 0x8C43
_SLABS = 8  # of depth, within which blended materials are drawn one after the other
_MAX_TEXTURE = 2048  # px; larger textures are halved: no image here shows more of them


class OpenGLRenderer:
    """One OpenGL context and its compiled shaders; make one per process and render many clips with it."""

    def __init__(self) -> None:
        load_triton_first()
        self.ctx = _create_context()
        info = self.ctx.info
        driver = info["GL_VERSION"].split(" ", 1)[-1].removeprefix("(Core Profile) ")
        self.name = f"opengl {PICTURE_VERSIONS['opengl']} ({info['GL_RENDERER']}, {driver})"
        self._programs: dict[frozenset[str], moderngl.Program] = {}
        self.resolve = self.ctx.program(vertex_shader=shaders.FULL_SCREEN, fragment_shader=shaders.RESOLVE)
        self.full_screen = self.ctx.vertex_array(self.resolve, [])
        self.view_block = self.ctx.buffer(reserve=shaders.VIEW_BLOCK_BYTES, dynamic=True)

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        views, frames = len(shot.cameras), len(shot.timestamps)
        height, width = shot.cameras.height, shot.cameras.width
        colour = np.empty((views, frames, height, width, 4), np.uint8)
        depth = np.empty((views, frames, height, width), np.float32) if settings.depth else None
        normals = np.empty((views, frames, height, width, 3), np.float32) if settings.normals else None
        flow = np.empty((views, frames - 1, height, width, 2), np.float32) if settings.flow else None
        tracker = None
        with self.ctx, contextlib.ExitStack() as stack:  # current: others in this process may draw too
            scene = _Scene(self, asset, shot, stack)
            targets = _Targets(self, shot.cameras, settings, stack)
            poses = (asset.pose(shot.animation, float(time)) for time in shot.timestamps)
            upcoming = next(poses)
            for t in range(frames):
                pose, upcoming = upcoming, next(poses, upcoming)
                scene.deform(pose, shot)
                colour[:, t] = targets.colour(scene, shot)
                if not settings.geometry:
                    continue
                surface = targets.geometry(scene, shot, upcoming)
                if depth is not None:
                    depth[:, t] = surface.depth
                if normals is not None:
                    normals[:, t] = surface.normals
                if flow is not None and t < frames - 1:
                    flow[:, t] = np.where(surface.depth[..., None] > 0.0, surface.flow, np.nan)
                if settings.tracks:
                    tracker = tracker or Tracker(asset, scene.one_sided, shot, settings, pose, surface)
                    tracker.follow(pose, surface)
        tracks = tracker.tracks() if tracker is not None else None
        timestamps = np.asarray(shot.timestamps)
        return RenderedClip(colour, shot.cameras, timestamps, self.name, depth, normals, flow, tracks)

    def program(self, features: frozenset[str]) -> moderngl.Program:
        """The mesh shader compiled for a set of material features."""
        if features not in self._programs:
            program = self.ctx.program(
                vertex_shader=shaders.mesh_vertex(features), fragment_shader=shaders.mesh_fragment(features)
            )
            bindings = {"View": shaders.VIEW_BINDING, "Surface": shaders.MATERIAL_BINDING}
            for name in program:
                member = program[name]
                if isinstance(member, moderngl.UniformBlock):
                    member.binding = bindings[name]
                elif name in shaders.SLOTS:
                    member.value = shaders.SLOTS.index(name)
            self._programs[features] = program
        return self._programs[features]


def _create_context() -> moderngl.Context:
    software_wanted = os.environ.get("LIBGL_ALWAYS_SOFTWARE", "") in ("1", "true")
    options = {}
    device = None if software_wanted else cuda_to_egl_device()
    if device is not None:
        options["device_index"] = device
    try:
        ctx = moderngl.create_context(standalone=True, backend="egl", require=330, **options)
    except Exception as error:
        raise RenderError(
            f"opengl: no headless OpenGL 3.3 context ({error}). On Debian install it with "
            f"`apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri`, or use --renderer pyrender or blender"
        ) from error
    name = ctx.info["GL_RENDERER"]
    if any(word in name for word in _SOFTWARE) and nvidia_gpu_present() and not software_wanted:
        ctx.release()
        raise RenderError(
            f"opengl: this machine has an NVIDIA GPU but EGL gave the software renderer {name!r}. Install the "
            f"driver's EGL library (libnvidia-gl) or, in a container, request the `graphics` capability "
            f"(NVIDIA_DRIVER_CAPABILITIES=all); to render on the CPU on purpose set LIBGL_ALWAYS_SOFTWARE=1"
        )
    return ctx


# --- the asset on the device ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """Triangles that are drawn with one call: same material, same facing."""

    vao: moderngl.VertexArray
    material_block: moderngl.Buffer
    textures: tuple[tuple[moderngl.Texture, int], ...]
    cull: bool
    mirrored: bool


@dataclass(frozen=True)
class _Blended:
    """Triangles [F, 3] with translucent parts: drawn to the depth buffer, then from far to near.

    `order` holds the indices of all views one after another, so that it is written once per frame: a write
    between two views would make the driver wait for the first.
    """

    depth: _Batch
    colour: _Batch
    order: moderngl.Buffer
    triangles: np.ndarray


class _Scene:
    """An asset's buffers, textures and draw calls, and the frame they currently show."""

    def __init__(
        self, renderer: OpenGLRenderer, asset: Asset, shot: Shot, stack: contextlib.ExitStack
    ) -> None:
        self.renderer, self.ctx, self.asset, self._stack = renderer, renderer.ctx, asset, stack
        self._dynamic = self._own(self.ctx.buffer(reserve=asset.num_vertices * 24, dynamic=True))
        self._positions_and_normals = np.empty((asset.num_vertices, 6), np.float32)
        self._next_positions = self._own(self.ctx.buffer(reserve=asset.num_vertices * 12, dynamic=True))
        self._textures: dict[tuple[int, bool], moderngl.Texture] = {}
        moments = shot.timestamps[:: max(1, len(shot.timestamps) // 8)]
        closed = closed_triangles(asset, (asset.pose(shot.animation, float(t)) for t in moments))
        self._opacity = triangle_opacity(asset)
        # For each primitive bool [F]: triangles whose back face is never seen. Back faces are seen through what is
        # not solid, and on open surfaces.
        self.one_sided = [
            closed[p] & (self._opacity[p] == SOLID) | (not asset.materials[primitive.material].double_sided)
            for p, primitive in enumerate(asset.primitives)
        ]
        self._coloured = bool(np.any(asset.colors != 1.0))
        self._batched_for: bytes | None = None
        self._static = self._upload_static()

    def _own(self, thing):
        self._stack.callback(thing.release)
        return thing

    def _upload_static(self) -> moderngl.Buffer:
        """Colour and the texture coordinates of every slot, per vertex, each slot in its own UV set."""
        asset = self.asset
        slots = np.zeros((asset.num_vertices, len(shaders.SLOTS), 2), np.float32)
        for primitive in asset.primitives:
            material = asset.materials[primitive.material]
            for s, (_, texture) in enumerate(_slots(material)):
                if texture is not None:
                    uv = asset.texcoords[
                        primitive.vertices, min(texture.texcoord, asset.texcoords.shape[1] - 1)
                    ]
                    uv = uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]
                    slots[primitive.vertices, s] = uv / _unfolding(texture)
        packed = np.concatenate([asset.colors, slots.reshape(asset.num_vertices, -1)], axis=1)
        return self._own(self.ctx.buffer(np.ascontiguousarray(packed, np.float32).tobytes()))

    def deform(self, pose: Pose, shot: Shot) -> None:
        """Show another frame."""
        self._positions_and_normals[:, :3] = pose.positions
        self._positions_and_normals[:, 3:] = pose.normals
        self._dynamic.write(self._positions_and_normals)
        if self._batched_for != pose.mirrored.tobytes():
            self._batched_for = pose.mirrored.tobytes()
            self._make_batches(pose.mirrored, len(shot.cameras))
        world = pose.positions[self.asset.visible] @ shot.asset_to_world[:3, :3].T.astype(np.float32)
        world += shot.asset_to_world[:3, 3].astype(np.float32)
        self.radius = float(np.sqrt(np.einsum("ni,ni->n", world, world).max()))
        self._sort(pose.positions, shot)

    def _sort(self, positions: np.ndarray, shot: Shot) -> None:
        """Order blended triangles from far to near, for every view; materials take turns, slab by slab of depth.

        Exact unless two materials interleave within a slab, and then only where both are translucent.
        """
        eyes = shot.cameras.camera_to_world[:, :, 3] @ np.linalg.inv(shot.asset_to_world).T
        eyes = eyes[:, :3].astype(np.float32)
        distances = []
        for part in self._blended:
            centres = positions[part.triangles].mean(axis=1)
            # |c - e|^2 without |e|^2, which orders nothing.
            distance = np.einsum("ni,ni->n", centres, centres) - 2.0 * eyes @ centres.T
            order = np.argsort(-distance, axis=1, kind="stable")
            part.order.write(np.ascontiguousarray(part.triangles[order], np.uint32))
            distances.append(np.take_along_axis(distance, order, axis=1))
        self._blended_draws = [_take_turns([d[v] for d in distances]) for v in range(len(eyes))]

    def _make_batches(self, mirrored: np.ndarray, views: int) -> None:
        """Group the triangles into as few draw calls as materials and facing allow."""
        groups: dict[tuple[int, int, bool, bool], list[np.ndarray]] = {}
        for p, primitive in enumerate(self.asset.primitives):
            for opacity in (SOLID, MIXED):
                chosen, one_sided = self._opacity[p] == opacity, self.one_sided[p]
                for cull, triangles in ((True, chosen & one_sided), (False, chosen & ~one_sided)):
                    if triangles.any():
                        key = (primitive.material, opacity, cull, bool(mirrored[p]))
                        groups.setdefault(key, []).append(primitive.triangles[triangles])
        self._solid: list[_Batch] = []
        self._blended: list[_Blended] = []
        self._geometry: list[_Batch] = []
        for (m, opacity, cull, flipped), parts in groups.items():
            triangles = np.concatenate(parts)
            indices = self._own(self.ctx.buffer(np.ascontiguousarray(triangles, np.uint32).tobytes()))
            mode = self.asset.materials[m].alpha_mode if opacity == MIXED else "SOLID"
            if mode == "BLEND":
                depth = self._batch(indices, m, ("BLEND", "DEPTH_ONLY"), cull, flipped)
                order = self._own(self.ctx.buffer(reserve=views * triangles.size * 4, dynamic=True))
                colour = self._batch(order, m, ("BLEND",), cull, flipped)
                self._blended.append(_Blended(depth, colour, order, triangles))
            else:
                features = ("MASK",) if mode == "MASK" else ()
                self._solid.append(self._batch(indices, m, features, cull, flipped))
            self._geometry.append(self._batch(indices, m, _GEOMETRY_FEATURES[mode], cull, flipped))

    def _batch(self, indices: moderngl.Buffer, m: int, extra: tuple[str, ...], cull, mirrored) -> _Batch:
        material = self.asset.materials[m]
        features = _features(material, self._coloured) | set(extra)
        if "GEOMETRY" in features:
            features -= {"METALLIC_ROUGHNESS_MAP", "EMISSIVE_MAP", "OCCLUSION_MAP", "UNLIT"}
        if "DEPTH_ONLY" in features:
            features &= {"BASE_MAP", "VERTEX_COLOUR", "BLEND", "DEPTH_ONLY"}
        program = self.renderer.program(frozenset(features))
        vao = self._own(self._vertex_array(program, indices))
        block = self._own(self.ctx.buffer(_material_block(material)))
        textures = tuple(
            (self._texture(texture, srgb=slot in ("BASE_MAP", "EMISSIVE_MAP")), shaders.SLOTS.index(slot))
            for slot, texture in _slots(material)
            if texture is not None and slot in program
        )
        return _Batch(vao, block, textures, cull, mirrored)

    def _vertex_array(self, program: moderngl.Program, indices: moderngl.Buffer) -> moderngl.VertexArray:
        """Bind only the attributes a program reads; the rest is padding."""
        names = ["colour", *(f"uv_{slot}" for slot in shaders.SLOTS)]
        sizes = [4] + [2] * len(shaders.SLOTS)
        used = [name in program for name in names]
        layout = " ".join(f"{n}f" if u else f"{4 * n}x" for n, u in zip(sizes, used, strict=True))
        content = [(self._dynamic, "3f 3f", "position", "normal")]
        if "normal" not in program:
            content = [(self._dynamic, "3f 12x", "position")]  # unlit
        if "next_position" in program:
            content.append((self._next_positions, "3f", "next_position"))
        if any(used):
            content.append((self._static, layout, *(n for n, u in zip(names, used, strict=True) if u)))
        return self.ctx.vertex_array(program, content, indices)

    def _texture(self, texture: Texture, srgb: bool) -> moderngl.Texture:
        key = (id(texture.image), srgb, texture.wrap_s, texture.wrap_t, texture.nearest)
        if key not in self._textures:
            image = _unfold(_shrink(texture.image), texture)
            options = {"internal_format": _SRGB8_ALPHA8} if srgb else {}
            gpu = self.ctx.texture(image.shape[1::-1], 4, np.ascontiguousarray(image).tobytes(), **options)
            gpu.build_mipmaps()
            gpu.filter = (
                (moderngl.NEAREST_MIPMAP_NEAREST, moderngl.NEAREST)
                if texture.nearest
                else (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
            )
            gpu.repeat_x, gpu.repeat_y = texture.wrap_s != "clamp", texture.wrap_t != "clamp"
            self._textures[key] = self._own(gpu)
        return self._textures[key]

    def move_towards(self, pose: Pose) -> None:
        """Say where the vertices are in the frame after this one."""
        self._next_positions.write(np.ascontiguousarray(pose.positions, np.float32))

    def look(self, world_to_clip: np.ndarray, eye: np.ndarray, shot: Shot) -> None:
        """Place the camera for the draws that follow."""
        self.renderer.view_block.write(shaders.view_block(world_to_clip, shot.asset_to_world, eye))
        self.renderer.view_block.bind_to_uniform_block(shaders.VIEW_BINDING)

    def draw_colour(self, target: moderngl.Framebuffer, view: int) -> None:
        """Solid surfaces first, then what is blended, from far to near."""
        ctx = self.ctx
        ctx.enable_only(moderngl.DEPTH_TEST)
        ctx.depth_func = "<"
        for batch in self._solid:
            self._render(batch)
        if not self._blended:
            return
        # The solid fragments of blended surfaces go to the depth buffer beforehand, so that however their
        # triangles are sorted, they hide what is behind them.
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
        """Normals, depth and motion of whatever is at least half opaque."""
        self.ctx.enable_only(moderngl.DEPTH_TEST)
        self.ctx.depth_func = "<"
        for batch in self._geometry:
            self._render(batch)

    def _render(self, batch: _Batch, first: int = 0, count: int = -1) -> None:
        ctx = self.ctx
        if batch.cull:
            ctx.enable(moderngl.CULL_FACE)
        else:
            ctx.disable(moderngl.CULL_FACE)
        ctx.front_face = "cw" if batch.mirrored else "ccw"
        batch.material_block.bind_to_uniform_block(shaders.MATERIAL_BINDING)
        for texture, unit in batch.textures:
            texture.use(unit)
        batch.vao.render(vertices=count, first=first)


def _take_turns(distances: list[np.ndarray]) -> list[tuple[int, int, int]]:
    """Draws (part, start, stop) from far to near, of parts whose triangles' distances are sorted so."""
    if len(distances) < 2:
        return [(i, 0, len(d)) for i, d in enumerate(distances)]
    far, near = max(d[0] for d in distances), min(d[-1] for d in distances)
    edges = np.linspace(far, near, _SLABS + 1)[1:-1]
    cuts = [[0, *np.searchsorted(-d, -edges), len(d)] for d in distances]
    parts = np.argsort([-d.mean() for d in distances], kind="stable")
    draws = [(int(i), int(cuts[i][s]), int(cuts[i][s + 1])) for s in range(_SLABS) for i in parts]
    return [(i, start, stop) for i, start, stop in draws if start < stop]


_GEOMETRY_FEATURES = {
    "SOLID": ("GEOMETRY",),
    "MASK": ("GEOMETRY", "MASK"),
    "BLEND": ("GEOMETRY", "HALF_MASK"),
}


def _slots(material: Material) -> list[tuple[str, Texture | None]]:
    return list(
        zip(
            shaders.SLOTS,
            (
                material.base_color_texture,
                material.metallic_roughness_texture,
                material.emissive_texture,
                material.normal_texture,
                material.occlusion_texture,
            ),
            strict=True,
        )
    )


def _features(material: Material, coloured: bool) -> set[str]:
    features = {slot for slot, texture in _slots(material) if texture is not None}
    if not np.any(np.asarray(material.emissive) > 0):
        features.discard("EMISSIVE_MAP")
    if material.unlit:
        features = (features & {"BASE_MAP"}) | {"UNLIT"}
    if coloured:
        features.add("VERTEX_COLOUR")
    if material.double_sided:
        features.add("DOUBLE_SIDED")
    return features


def _material_block(material: Material) -> bytes:
    values = [
        *material.base_color,
        *material.emissive,
        material.alpha_cutoff,
        material.metallic,
        material.roughness,
        material.normal_scale,
        material.occlusion_strength,
    ]
    return np.array(values, np.float32).tobytes()


def _unfolding(texture: Texture) -> np.ndarray:
    """How many times longer (u, v) an image becomes when mirrored repeats are written out."""
    return np.array([1 + (texture.wrap_s == "mirror"), 1 + (texture.wrap_t == "mirror")], np.float32)


def _unfold(image: np.ndarray, texture: Texture) -> np.ndarray:
    """Write mirrored repeats out, since moderngl offers repeat and clamp only."""
    if texture.wrap_s == "mirror":
        image = np.concatenate([image, image[:, ::-1]], axis=1)
    if texture.wrap_t == "mirror":
        image = np.concatenate([image, image[::-1]], axis=0)
    return image


def _shrink(image: np.ndarray) -> np.ndarray:
    """Halve an image until its longer side fits; box-filtered like a mipmap."""
    while max(image.shape[:2]) > _MAX_TEXTURE and min(image.shape[:2]) > 1:
        h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
        quads = image[:h, :w].reshape(h // 2, 2, w // 2, 2, 4)
        image = ((quads.sum(axis=(1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return image


# --- where pictures are drawn ----------------------------------------------------------------------


class _Targets:
    """Framebuffers for one image size: a view at sample resolution, and the atlas of resolved views."""

    def __init__(
        self,
        renderer: OpenGLRenderer,
        cameras: Cameras,
        settings: RenderSettings,
        stack: contextlib.ExitStack,
    ) -> None:
        self.renderer, self.ctx, self.cameras = renderer, renderer.ctx, cameras
        self.world_to_opengl = to_opengl(cameras.world_to_camera)
        self.eyes = cameras.camera_to_world[:, :3, 3]
        self.side = int(np.sqrt(settings.samples))
        width, height = cameras.width, cameras.height
        limit = min(self.ctx.info["GL_MAX_TEXTURE_SIZE"], 16384)
        if max(width, height) * self.side > limit:
            raise RenderError(
                f"opengl: {width}x{height} px with {settings.samples} samples needs a {limit}+ px target, which "
                f"this device has not; ask for a smaller resolution or fewer samples"
            )

        def own(thing):
            stack.callback(thing.release)
            return thing

        sample_size = (width * self.side, height * self.side)
        self.samples = own(self.ctx.texture(sample_size, 4))
        depth = own(self.ctx.depth_renderbuffer(sample_size))
        self.view = own(self.ctx.framebuffer([self.samples], depth))
        self.views_per_atlas = max(1, min(len(cameras), limit // height))
        self.atlas = own(
            self.ctx.framebuffer([own(self.ctx.renderbuffer((width, height * self.views_per_atlas), 4))])
        )
        if settings.geometry:
            self._geometry_images = np.empty((2, len(cameras), height, width, 4), np.float32)
            self.float_view = own(
                self.ctx.framebuffer(
                    [own(self.ctx.renderbuffer((width, height), 4, dtype="f4")) for _ in range(2)],
                    own(self.ctx.depth_renderbuffer((width, height))),
                )
            )

    def _projections(self, scene: _Scene) -> np.ndarray:
        """World-to-clip matrices [V, 4, 4] whose depth range hugs what is there: scales run from mm to km."""
        distance = np.linalg.norm(self.eyes, axis=1)
        far = float(distance.max() + scene.radius) * 1.001
        near = max(float(distance.min() - scene.radius) * 0.999, far * 1e-4)
        return opengl_projection(self.cameras, near, far) @ self.world_to_opengl

    def colour(self, scene: _Scene, shot: Shot) -> np.ndarray:
        """The current frame from all views, uint8 [V, H, W, 4], straight alpha, top row first."""
        width, height = self.cameras.width, self.cameras.height
        images = np.empty((len(self.cameras), height, width, 4), np.uint8)
        matrices = self._projections(scene)
        resolve = self.renderer.resolve
        resolve["side"], resolve["height"] = self.side, height
        for first in range(0, len(self.cameras), self.views_per_atlas):
            views = range(first, min(first + self.views_per_atlas, len(self.cameras)))
            for place, v in enumerate(views):
                self.view.use()
                self.view.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
                scene.look(matrices[v], self.eyes[v], shot)
                scene.draw_colour(self.view, v)
                self.atlas.use()
                self.ctx.viewport = (0, place * height, width, height)
                self.ctx.enable_only(moderngl.NOTHING)
                self.samples.use(0)
                resolve["corner"] = (0, place * height)
                self.renderer.full_screen.render(vertices=3)
            size = (width, height * len(views))
            self.atlas.read_into(images[first : first + len(views)], viewport=size, components=4)
        return images

    def geometry(self, scene: _Scene, shot: Shot, upcoming: Pose) -> Surface:
        """What all views see of the current frame, and how far it moves until the next one, `upcoming`.

        The arrays are the same ones at every call.
        """
        width, height = self.cameras.width, self.cameras.height
        images = self._geometry_images
        scene.move_towards(upcoming)
        for v, matrix in enumerate(self._projections(scene)):
            self.float_view.use()
            self.float_view.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
            scene.look(matrix, self.eyes[v], shot)
            scene.draw_geometry()
            for attachment, image in enumerate(images[:, v]):
                self.float_view.read_into(image, components=4, attachment=attachment, dtype="f4")
        surface, motion = images[:, :, ::-1]  # OpenGL's images point up
        motion *= np.float32([width / 2, -height / 2, 1.0, -1.0])
        return Surface(surface[..., 3], surface[..., :3], motion[..., :2], motion[..., 2:])
