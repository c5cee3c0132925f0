"""The pyrender back end, for comparison with the renderer that most scripts in this field use.

It renders the same shots with the same cameras, lit by three directional lights. pyrender supports neither environment
lighting nor unlit materials; translucency is approximated by alpha-to-coverage.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import numpy as np

from renderers.cameras import to_opengl
from renderers.gltf import Asset, Material, Pose, Texture
from renderers.meshes import environment
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderError, RenderSettings, Shot
from renderers.meshes.devices import cuda_to_egl_device, load_triton_first


class PyrenderRenderer:
    """pyrender's offscreen renderer, with one OpenGL context per image size."""

    def __init__(self) -> None:
        load_triton_first()
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        device = cuda_to_egl_device()
        if device is not None:
            os.environ.setdefault("EGL_DEVICE_ID", str(device))
        if not hasattr(np, "infty"):  # removed in numpy 2, used by pyrender 0.1.45
            np.infty = np.inf  # type: ignore[attr-defined]
        try:
            import pyrender
        except Exception as error:  # PyOpenGL raises exceptions of its platform plug-ins, of any type
            raise RenderError(
                f"pyrender: cannot be imported ({error}); install it with `pip install 'menagerie4d[render]'` and the "
                f"system packages libegl1 libegl-mesa0 libgl1-mesa-dri"
            ) from error
        self._pyrender = pyrender
        self._renderers: dict[tuple[int, int], Any] = {}

    @property
    def name(self) -> str:
        """Back end, version of its images, version of the library."""
        return f"pyrender {PICTURE_VERSIONS['pyrender']} (pyrender {version('pyrender')})"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`. Anti-aliasing always uses 4 samples."""
        if settings.normals or settings.flow or settings.tracks:
            raise RenderError(
                "pyrender: normals, flow and tracks are not supported; use the opengl renderer for them"
            )
        pyrender = self._pyrender
        views, frames = len(shot.cameras), len(shot.timestamps)
        height, width = shot.cameras.height, shot.cameras.width
        colour = np.empty((views, frames, height, width, 4), np.uint8)
        depth = np.empty((views, frames, height, width), np.float32) if settings.depth else None
        offscreen = self._offscreen(width, height)
        materials = [_material(pyrender, material) for material in asset.materials]
        shot = shot.centred(asset)
        cameras = self._cameras(shot, asset)
        for t, time in enumerate(shot.timestamps):
            scene = pyrender.Scene(bg_color=np.zeros(4), ambient_light=np.asarray(environment.AMBIENT) * 0.9)
            for light in environment.LIGHTS:
                strength = float(np.mean(light.colour)) * light.integral
                lamp = pyrender.DirectionalLight(np.asarray(light.colour) / np.max(light.colour), strength)
                scene.add(lamp, pose=_look_along(-light.axis))
            pose = shot.pose(asset, time)
            meshes = [_primitive(pyrender, asset, pose, p, materials) for p in range(len(asset.primitives))]
            scene.add(pyrender.Mesh(meshes), pose=shot.asset_to_world)
            for v, (camera, camera_to_world) in enumerate(cameras):
                node = scene.add(camera, pose=camera_to_world)
                scene.main_camera_node = node
                image, distance = offscreen.render(scene, flags=pyrender.RenderFlags.RGBA)
                scene.remove_node(node)
                colour[v, t] = _unpremultiply(image)
                if depth is not None:
                    depth[v, t] = distance
            scene.clear()
        return RenderedClip(colour, shot.cameras, np.asarray(shot.timestamps), self.name, depth)

    def _offscreen(self, width: int, height: int) -> Any:
        """Return the `pyrender.OffscreenRenderer` for an image size, created on first use."""
        if (width, height) not in self._renderers:
            try:
                offscreen = self._pyrender.OffscreenRenderer(width, height)
                _enable_alpha_to_coverage(offscreen)
                self._renderers[width, height] = offscreen
            except Exception as error:
                raise RenderError(
                    f"pyrender: cannot create a headless OpenGL context ({error}); install the system packages libegl1 "
                    f"libegl-mesa0 libgl1-mesa-dri"
                ) from error
        return self._renderers[width, height]

    def _cameras(self, shot: Shot, asset: Asset) -> list[tuple[Any, np.ndarray]]:
        """Return pyrender's camera and its camera-to-world matrix [4, 4] (OpenGL axes) for every view."""
        poses = np.linalg.inv(to_opengl(shot.cameras.world_to_camera))
        positions = shot.pose(asset, shot.timestamps[0]).positions[asset.visible]
        world = positions @ shot.asset_to_world[:3, :3].T + shot.asset_to_world[:3, 3]
        # Leaves room for the whole motion: framing keeps every frame inside the view frustum.
        radius = 4.0 * float(np.linalg.norm(world, axis=1).max())
        result = []
        for K, pose in zip(shot.cameras.K, poses, strict=True):
            distance = float(np.linalg.norm(pose[:3, 3]))
            camera = self._pyrender.IntrinsicsCamera(
                fx=K[0, 0], fy=K[1, 1], cx=K[0, 2], cy=K[1, 2], znear=0.05 * distance, zfar=distance + radius
            )
            result.append((camera, pose))
        return result


def _enable_alpha_to_coverage(offscreen: Any) -> None:
    """Convert the alpha of a fragment to the number of samples that it covers.

    pyrender neither sorts blended surfaces nor supports alpha cutoffs, so transparent parts of feathers would hide what
    is behind them. Alpha-to-coverage is independent of order. It requires alpha 1 for opaque materials.
    """
    from OpenGL import GL

    offscreen._platform.make_current()
    GL.glEnable(GL.GL_SAMPLE_ALPHA_TO_COVERAGE)
    GL.glEnable(GL.GL_SAMPLE_ALPHA_TO_ONE)
    offscreen._platform.make_uncurrent()


def _material(pyrender: Any, material: Material) -> Any:
    """Convert to a `pyrender.MetallicRoughnessMaterial`."""

    def texture(
        source: Texture | None,
        channels: tuple[int, int, int] = (0, 1, 2),
        alpha: np.ndarray | None = None,
    ) -> Any:
        if source is None:
            return None
        image = np.full((*source.image.shape[:2], 4), 255, np.uint8)
        image[..., :3] = source.image[..., channels]
        if alpha is not None:
            image[..., 3] = alpha
        # Any alpha above 0 covers a sample, and mipmaps would spread small alphas over large areas.
        sampler = pyrender.Sampler(
            magFilter=9728 if source.nearest else 9729,
            minFilter=9987 if alpha is None else 9729,
            wrapS=_WRAP[source.wrap_s],
            wrapT=_WRAP[source.wrap_t],
        )
        return pyrender.Texture(source=image, source_channels="RGBA", sampler=sampler)

    base, base_texture = np.array(material.base_color, np.float32), material.base_color_texture
    alpha = None
    if base_texture is not None and material.alpha_mode != "OPAQUE":
        alpha = base_texture.image[..., 3]
    if material.alpha_mode == "MASK" and alpha is not None:
        alpha = np.where(alpha * (base[3] / 255.0) >= material.alpha_cutoff, 255, 0)
    if material.alpha_mode != "BLEND":
        base[3] = 1.0
    elif alpha is not None:
        alpha = np.where(alpha < 16, 0, alpha)  # nearly transparent texels would cover a quarter of a pixel
    return pyrender.MetallicRoughnessMaterial(
        baseColorFactor=base,
        baseColorTexture=texture(base_texture, alpha=alpha),
        metallicFactor=float(material.metallic),
        roughnessFactor=float(material.roughness),
        # pyrender reads roughness from red and metallic from green; glTF stores them in green and blue.
        metallicRoughnessTexture=texture(material.metallic_roughness_texture, (1, 2, 2)),
        # pyrender multiplies by this factor twice.
        emissiveFactor=np.sqrt(np.clip(material.emissive, 0.0, 1.0)).astype(np.float32),
        emissiveTexture=texture(material.emissive_texture),
        doubleSided=material.double_sided,
    )


_WRAP = {"repeat": 10497, "mirror": 33648, "clamp": 33071}


def _primitive(pyrender: Any, asset: Asset, pose: Pose, index: int, materials: list[Any]) -> Any:
    """Convert a posed primitive to a `pyrender.Primitive`."""
    primitive = asset.primitives[index]
    vertices = primitive.vertices
    triangles = primitive.triangles[:, ::-1] if pose.mirrored[index] else primitive.triangles
    material = asset.materials[primitive.material]
    # pyrender supports one set of texture coordinates: use that of the base colour, else of the first other texture.
    textures = (material.base_color_texture, material.metallic_roughness_texture, material.emissive_texture)
    texture = next((texture for texture in textures if texture is not None), None)
    texcoords = None
    if texture is not None:
        uv = asset.texcoords[vertices, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
        u, v = (uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]).T
        texcoords = np.stack([u, 1.0 - v], axis=1).astype(np.float32)  # pyrender flips images vertically
    colors = asset.colors[vertices]
    if material.alpha_mode == "OPAQUE":
        colors = np.concatenate([colors[:, :3], np.ones_like(colors[:, 3:])], axis=1)
    return pyrender.Primitive(
        positions=pose.positions[vertices],
        normals=pose.normals[vertices],
        texcoord_0=texcoords,
        color_0=None if np.all(colors == 1.0) else colors,
        indices=triangles - np.uint32(vertices.start),
        material=materials[primitive.material],
        mode=4,
    )


def _unpremultiply(image: np.ndarray) -> np.ndarray:
    """Convert pyrender's image, premultiplied by coverage, to straight alpha, uint8 [H, W, 4]."""
    alpha = image[..., 3:].astype(np.uint16)
    rgb = np.minimum((image[..., :3] * np.uint16(255) + alpha // 2) // np.maximum(alpha, 1), 255)
    return np.concatenate([np.where(alpha > 0, rgb, 0), alpha], axis=-1).astype(np.uint8)


def _look_along(direction: np.ndarray) -> np.ndarray:
    """Return a pose [4, 4] whose -z axis, the direction in which pyrender's lights shine, is a unit vector."""
    back = -direction
    helper = np.array([0.0, 1.0, 0.0]) if abs(back[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = np.cross(helper, back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    return pose
