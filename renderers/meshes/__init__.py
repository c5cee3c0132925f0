"""Animated meshes to clips: one function for every back end."""

from __future__ import annotations

from renderers.meshes.clip import (
    GREY,
    WHITE,
    RenderedClip,
    RenderError,
    RenderSettings,
    Shot,
    composite,
    composite_in_place,
)

# Back end → version of its pictures. Raise it when pixels change, so that clips are rendered again.
PICTURE_VERSIONS = {"opengl": "1", "pyrender": "1", "blender": "1"}
BACKENDS = tuple(PICTURE_VERSIONS)
_renderers: dict[str, object] = {}


def render_clip(
    asset, shot: Shot, settings: RenderSettings | None = None, *, backend: str = "opengl"
) -> RenderedClip:
    """Render one shot of an animated asset from all its cameras.

    Args:
        asset: what `renderers.gltf.load` returned.
        shot: animation, moments, normalisation and cameras.
        settings: anti-aliasing and the extra outputs; colour at 4 samples by default.
        backend: "opengl" (default; GPU or llvmpipe), "pyrender" (compatible) or "blender" (Cycles, best, slow).
    Raises:
        RenderError: the back end cannot run here; the message says what to install or choose.
    """
    return renderer(backend).render_clip(asset, shot, settings or RenderSettings())


def renderer(backend: str):
    """The process-wide renderer of a back end, made at its first use; has `.name` and `.render_clip`."""
    if backend not in BACKENDS:
        raise RenderError(f"unknown renderer {backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend not in _renderers:
        _renderers[backend] = _make(backend)
    return _renderers[backend]


def _make(backend: str):
    if backend == "opengl":
        from renderers.meshes.opengl import OpenGLRenderer as Renderer
    elif backend == "pyrender":
        from renderers.meshes.pyrender import PyrenderRenderer as Renderer
    else:
        from renderers.meshes.blender import BlenderRenderer as Renderer
    return Renderer()


__all__ = [
    "BACKENDS",
    "GREY",
    "PICTURE_VERSIONS",
    "WHITE",
    "RenderError",
    "RenderSettings",
    "RenderedClip",
    "Shot",
    "composite",
    "composite_in_place",
    "render_clip",
    "renderer",
]
