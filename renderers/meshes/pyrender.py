"""A compatible back end: pyrender, the renderer most scripts of this field use.

Kept for comparison and for machines where its OpenGL path is the one that works. It draws the same shots with the
same cameras under three directional lights; it knows no environment, no sorted transparency and no UNLIT.
"""

from __future__ import annotations

import os
from importlib.metadata import version

import numpy as np

from renderers.cameras import to_opengl
from renderers.gltf import Asset, Material
from renderers.meshes import environment
from renderers.meshes.clip import RenderedClip, RenderError, RenderSettings, Shot

VERSION = "1"


class PyrenderRenderer:
    """pyrender's offscreen renderer; one OpenGL context per image size."""

    def __init__(self) -> None:
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
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
        self.name = f"pyrender {VERSION} (pyrender {version('pyrender')})"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`. Anti-aliasing is always 4 samples."""
        if settings.normals:
            raise RenderError("pyrender: it returns no normals; use the opengl renderer for them")
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
            meshes = [_primitive(pyrender, asset, pose, p, materials) for p in asset.primitives]
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
                self._renderers[width, height] = self._pyrender.OffscreenRenderer(width, height)
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


def _material(pyrender, material: Material):
    def texture(source, channels: str):
        if source is None:
            return None
        sampler = pyrender.Sampler(wrapS=_WRAP[source.wrap_s], wrapT=_WRAP[source.wrap_t])
        image = source.image if channels == "RGBA" else source.image[..., :3]
        return pyrender.Texture(source=np.ascontiguousarray(image), source_channels=channels, sampler=sampler)

    return pyrender.MetallicRoughnessMaterial(
        alphaMode=material.alpha_mode,
        alphaCutoff=material.alpha_cutoff,
        baseColorFactor=np.asarray(material.base_color, np.float32),
        baseColorTexture=texture(material.base_color_texture, "RGBA"),
        metallicFactor=float(material.metallic),
        roughnessFactor=float(material.roughness),
        metallicRoughnessTexture=texture(material.metallic_roughness_texture, "RGB"),
        emissiveFactor=np.clip(material.emissive, 0.0, 1.0).astype(np.float32),
        emissiveTexture=texture(material.emissive_texture, "RGB"),
        doubleSided=material.double_sided,
    )


_WRAP = {"repeat": 10497, "mirror": 33648, "clamp": 33071}


def _primitive(pyrender, asset: Asset, pose, primitive, materials):
    where = primitive.vertices
    material = asset.materials[primitive.material]
    texture = material.base_color_texture
    texcoords = (
        asset.texcoords[where, min(texture.texcoord, asset.texcoords.shape[1] - 1)] if texture else None
    )
    if texture:
        texcoords = texcoords @ texture.transform[:2, :2].T + texture.transform[:2, 2]
        texcoords = np.ascontiguousarray(texcoords, np.float32)
    colors = asset.colors[where]
    return pyrender.Primitive(
        positions=pose.positions[where],
        normals=pose.normals[where],
        texcoord_0=texcoords,
        color_0=None if np.all(colors == 1.0) else colors,
        indices=primitive.triangles - np.uint32(where.start),
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
