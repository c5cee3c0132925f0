"""Render animated glTF meshes to multi-view clips: one function, four back ends.

asset = renderers.gltf.load("fox.glb")
shot = Shot(animation=0, timestamps=np.arange(48) / 24, asset_to_world=np.eye(4), cameras=orbit_cameras(...))
clip = render_clip(asset, shot, RenderSettings(samples=4, depth=True))
clip.frames  # uint8 [V, T, H, W, 4], straight alpha
"""

from renderers.meshes.backends import AUTO, BACKENDS, Renderer, default_backend, render_clip, renderer
from renderers.meshes.clip import (
    GREY,
    PICTURE_VERSIONS,
    WHITE,
    RenderedClip,
    RenderError,
    RenderSettings,
    Shot,
    Tracks,
    composite,
    composite_in_place,
)

__all__ = [
    "AUTO",
    "BACKENDS",
    "GREY",
    "PICTURE_VERSIONS",
    "WHITE",
    "RenderError",
    "RenderSettings",
    "RenderedClip",
    "Renderer",
    "Shot",
    "Tracks",
    "composite",
    "composite_in_place",
    "default_backend",
    "render_clip",
    "renderer",
]
