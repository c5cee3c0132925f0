"""A compatible back end: pyrender, the renderer most scripts of this field use.

Kept for comparison and for machines where its OpenGL path is the one that works. It draws the same shots with the
same cameras under three directional lights; it knows no environment and no UNLIT, and shows what is translucent
by covering some of a pixel's samples.
"""

from __future__ import annotations

import os
from importlib.metadata import version

import numpy as np

from renderers.cameras import to_opengl
from renderers.gltf import Asset, Material, Pose, Texture
from renderers.meshes import environment
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderError, RenderSettings, Shot
from renderers.meshes.devices import cuda_to_egl_device, load_triton_first


class PyrenderRenderer:
    """pyrender's offscreen renderer; one OpenGL context per image size."""

    def __init__(self) -> None:
        load_triton_first()
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
        device = cuda_to_egl_device()
        if device is not None:
            os.environ.setdefault("EGL_DEVICE_ID", str(device))
        if not hasattr(np, "infty"):  # pyrender 0.1.45 was written for numpy 1
            np.infty = np.inf
        try:
            import pyrender
        except Exception as error:  # PyOpenGL raises whatever its platform plug-in raised
            raise RenderError(
                f"pyrender: cannot be loaded ({error}); `pip install menagerie4d[render]` and the system packages "
                f"libegl1 libegl-mesa0 libgl1-mesa-dri"
            ) from error
        self._pyrender = pyrender
        self._renderers: dict[tuple[int, int], object] = {}
        self.name = f"pyrender {PICTURE_VERSIONS['pyrender']} (pyrender {version('pyrender')})"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`. Anti-aliasing is always 4 samples."""
        if settings.normals or settings.flow or settings.tracks:
            raise RenderError(
                "pyrender: it returns no normals, flow or tracks; use the opengl renderer for them"
            )
        pyrender = self._pyrender
        views, frames = len(shot.cameras), len(shot.timestamps)
        height, width = shot.cameras.height, shot.cameras.width
        colour = np.empty((views, frames, height, width, 4), np.uint8)
        depth = np.empty((views, frames, height, width), np.float32) if settings.depth else None
        offscreen = self._offscreen(width, height)
        materials = [_material(pyrender, material) for material in asset.materials]
        cameras = self._cameras(shot, asset)
        for t, time in enumerate(shot.timestamps):
            scene = pyrender.Scene(bg_color=np.zeros(4), ambient_light=np.asarray(environment.AMBIENT) * 0.9)
            for light in environment.LIGHTS:
                strength = float(np.mean(light.colour)) * light.integral
                lamp = pyrender.DirectionalLight(np.asarray(light.colour) / np.max(light.colour), strength)
                scene.add(lamp, pose=_looking_along(-light.axis))
            pose = asset.pose(shot.animation, float(time))
            meshes = [_primitive(pyrender, asset, pose, p, materials) for p in range(len(asset.primitives))]
            scene.add(pyrender.Mesh(meshes), pose=shot.asset_to_world)
            for v, (camera, camera_to_world) in enumerate(cameras):
                node = scene.add(camera, pose=camera_to_world)
                scene.main_camera_node = node
                image, distance = offscreen.render(scene, flags=pyrender.RenderFlags.RGBA)
                scene.remove_node(node)
                colour[v, t] = _straight(image)
                if depth is not None:
                    depth[v, t] = distance
            scene.clear()
        return RenderedClip(colour, shot.cameras, np.asarray(shot.timestamps), self.name, depth)

    def _offscreen(self, width: int, height: int):
        if (width, height) not in self._renderers:
            try:
                offscreen = self._pyrender.OffscreenRenderer(width, height)
                _cover_by_alpha(offscreen)
                self._renderers[width, height] = offscreen
            except Exception as error:
                raise RenderError(f"pyrender: no headless OpenGL context ({error})") from error
        return self._renderers[width, height]

    def _cameras(self, shot: Shot, asset: Asset) -> list[tuple[object, np.ndarray]]:
        poses = np.linalg.inv(to_opengl(shot.cameras.world_to_camera))
        positions = asset.pose(shot.animation, float(shot.timestamps[0])).positions[asset.visible]
        world = positions @ shot.asset_to_world[:3, :3].T + shot.asset_to_world[:3, 3]
        # Room for the whole motion: framing keeps every frame inside the cone of view.
        radius = 4.0 * float(np.linalg.norm(world, axis=1).max())
        result = []
        for K, pose in zip(shot.cameras.K, poses, strict=True):
            distance = float(np.linalg.norm(pose[:3, 3]))
            camera = self._pyrender.IntrinsicsCamera(
                fx=K[0, 0], fy=K[1, 1], cx=K[0, 2], cy=K[1, 2], znear=0.05 * distance, zfar=distance + radius
            )
            result.append((camera, pose))
        return result


def _cover_by_alpha(offscreen) -> None:
    """Let a fragment's alpha decide how many of a pixel's samples it covers.

    pyrender neither sorts what is blended nor cuts at an alpha cutoff: feathers would hide what is behind them
    by their transparent parts. Coverage needs no order. Its opaque materials must then have an alpha of 1.
    """
    from OpenGL import GL

    offscreen._platform.make_current()
    GL.glEnable(GL.GL_SAMPLE_ALPHA_TO_COVERAGE)
    GL.glEnable(GL.GL_SAMPLE_ALPHA_TO_ONE)
    offscreen._platform.make_uncurrent()


def _material(pyrender, material: Material):
    def texture(source: Texture | None, channels: tuple[int, int, int] = (0, 1, 2), alpha=None):
        if source is None:
            return None
        image = np.full((*source.image.shape[:2], 4), 255, np.uint8)
        image[..., :3] = source.image[..., channels]
        if alpha is not None:
            image[..., 3] = alpha
        # Any alpha above 0 covers a sample, and mipmaps would spread a little of it far.
        sampler = pyrender.Sampler(
            magFilter=9728 if source.nearest else 9729,
            minFilter=9987 if alpha is None else 9729,
            wrapS=_WRAP[source.wrap_s],
            wrapT=_WRAP[source.wrap_t],
        )
        return pyrender.Texture(source=image, source_channels="RGBA", sampler=sampler)

    base, picture = np.array(material.base_color, np.float32), material.base_color_texture
    alpha = picture.image[..., 3] if picture is not None and material.alpha_mode != "OPAQUE" else None
    if material.alpha_mode == "MASK" and alpha is not None:
        alpha = np.where(alpha * (base[3] / 255.0) >= material.alpha_cutoff, 255, 0)
    if material.alpha_mode != "BLEND":
        base[3] = 1.0
    elif alpha is not None:
        alpha = np.where(alpha < 16, 0, alpha)  # what is hardly there would cover a quarter of a pixel
    return pyrender.MetallicRoughnessMaterial(
        baseColorFactor=base,
        baseColorTexture=texture(picture, alpha=alpha),
        metallicFactor=float(material.metallic),
        roughnessFactor=float(material.roughness),
        # It reads roughness from red and metallic from green, where glTF has them in green and blue ...
        metallicRoughnessTexture=texture(material.metallic_roughness_texture, (1, 2, 2)),
        # ... and multiplies by this factor twice.
        emissiveFactor=np.sqrt(np.clip(material.emissive, 0.0, 1.0)).astype(np.float32),
        emissiveTexture=texture(material.emissive_texture),
        doubleSided=material.double_sided,
    )


_WRAP = {"repeat": 10497, "mirror": 33648, "clamp": 33071}


def _primitive(pyrender, asset: Asset, pose: Pose, index: int, materials: list):
    primitive = asset.primitives[index]
    where = primitive.vertices
    triangles = primitive.triangles[:, ::-1] if pose.mirrored[index] else primitive.triangles
    material = asset.materials[primitive.material]
    # It knows one set of texture coordinates; that of the base colour is the one to have.
    textures = (material.base_color_texture, material.metallic_roughness_texture, material.emissive_texture)
    texture = next((texture for texture in textures if texture is not None), None)
    texcoords = None
    if texture is not None:
        uv = asset.texcoords[where, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
        u, v = (uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]).T
        texcoords = np.stack([u, 1.0 - v], axis=1).astype(np.float32)  # pyrender turns images upside down
    colors = asset.colors[where]
    if material.alpha_mode == "OPAQUE":
        colors = np.concatenate([colors[:, :3], np.ones_like(colors[:, 3:])], axis=1)
    return pyrender.Primitive(
        positions=pose.positions[where],
        normals=pose.normals[where],
        texcoord_0=texcoords,
        color_0=None if np.all(colors == 1.0) else colors,
        indices=triangles - np.uint32(where.start),
        material=materials[primitive.material],
        mode=4,
    )


def _straight(image: np.ndarray) -> np.ndarray:
    """pyrender's multisampled image is premultiplied by coverage; ours is straight."""
    alpha = image[..., 3:].astype(np.uint16)
    rgb = np.minimum((image[..., :3] * np.uint16(255) + alpha // 2) // np.maximum(alpha, 1), 255)
    return np.concatenate([np.where(alpha > 0, rgb, 0), alpha], axis=-1).astype(np.uint8)


def _looking_along(direction: np.ndarray) -> np.ndarray:
    """A pose [4, 4] whose -z axis points along a unit vector: where pyrender's lights shine."""
    back = -direction
    helper = np.array([0.0, 1.0, 0.0]) if abs(back[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = np.cross(helper, back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
    return pose
