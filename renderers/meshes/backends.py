"""The back ends by name. A back end is imported on first use, so the libraries of the others may be missing."""

from __future__ import annotations

from typing import Protocol

from renderers.arguments import instance
from renderers.gltf import Asset
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderError, RenderSettings, Shot

BACKENDS = tuple(PICTURE_VERSIONS)


class Renderer(Protocol):
    """A back end: a name for metadata, and a function that renders shots."""

    name: str

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        ...


_renderers: dict[str, Renderer] = {}


def render_clip(
    asset: Asset, shot: Shot, settings: RenderSettings | None = None, *, backend: str = "opengl"
) -> RenderedClip:
    """Render one shot of an animated asset from all of its cameras.

    Args:
        asset: the asset, from `renderers.gltf.load`.
        shot: animation, timestamps, normalisation transform and cameras.
        settings: anti-aliasing and additional outputs; None renders colour with 4 samples per pixel.
        backend: "opengl" (default; on a GPU or llvmpipe), "cpu" (numba: no graphics library), "pyrender" (for
            comparison) or "blender" (Cycles path tracing: best quality, slow).
    Raises:
        RenderError: the back end is not available on this machine, or cannot render this asset or these settings; the
            message gives the reason and what to install or choose.
    """
    for value, kind, argument in ((asset, Asset, "asset"), (shot, Shot, "shot")):
        instance(value, kind, f"render_clip: {argument}")
    instance(settings or RenderSettings(), RenderSettings, "render_clip: settings")
    return renderer(backend).render_clip(asset, shot, settings or RenderSettings())


def renderer(backend: str) -> Renderer:
    """Return this process's renderer for a back end, creating it on first use.

    Raises:
        RenderError: the name is unknown or the back end is not available on this machine.
    """
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise RenderError(f"unknown renderer (backend) {backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend not in _renderers:
        _renderers[backend] = _create(backend)
    return _renderers[backend]


def _create(backend: str) -> Renderer:
    if backend == "opengl":
        from renderers.meshes.opengl import OpenGLRenderer

        return OpenGLRenderer()
    if backend == "pyrender":
        from renderers.meshes.pyrender import PyrenderRenderer

        return PyrenderRenderer()
    if backend == "cpu":
        try:
            from renderers.meshes.cpu import CPURenderer
        except ImportError as error:
            raise RenderError(
                f"cpu: numba cannot be imported ({error}): pip install 'menagerie4d[render]', or choose "
                f"--renderer opengl"
            ) from error

        return CPURenderer()
    from renderers.meshes.blender import BlenderRenderer

    return BlenderRenderer()
