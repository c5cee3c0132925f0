"""The back ends by name. A back end is imported on first use, so the libraries of the others may be missing."""

from __future__ import annotations

from functools import cache
from typing import Protocol

from renderers.arguments import instance
from renderers.gltf import Asset
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderError, RenderSettings, Shot
from renderers.meshes.devices import gpu_renders_opengl

BACKENDS = tuple(PICTURE_VERSIONS)
AUTO = "auto"  # as the name of a back end: `default_backend`


class Renderer(Protocol):
    """A back end: a name for metadata, and a function that renders shots."""

    @property
    def name(self) -> str:
        """Back end, version of its images and device, e.g. "opengl 2 (llvmpipe, Mesa 22.3.6)"."""
        ...

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        ...


_renderers: dict[str, Renderer] = {}


def render_clip(
    asset: Asset, shot: Shot, settings: RenderSettings | None = None, *, backend: str = AUTO
) -> RenderedClip:
    """Render one shot of an animated asset from all of its cameras.

    Args:
        asset: the asset, from `renderers.gltf.load`.
        shot: animation, timestamps, normalisation transform and cameras.
        settings: anti-aliasing and additional outputs; None renders colour with 4 samples per pixel.
        backend: "cpu" (needs no graphics library; its kernels compute the same bits on all processors), "opengl" (on
            a GPU or llvmpipe), "pyrender" (for comparison), "blender" (Cycles path tracing: best quality, slow) or
            "auto" (`default_backend`).
    Raises:
        RenderError: the back end is not available on this machine, or cannot render this asset or these settings; the
            message gives the reason and what to install or choose.
    """
    for value, kind, argument in ((asset, Asset, "asset"), (shot, Shot, "shot")):
        instance(value, kind, f"render_clip: {argument}")
    instance(settings or RenderSettings(), RenderSettings, "render_clip: settings")
    return renderer(backend).render_clip(asset, shot, settings or RenderSettings())


@cache
def default_backend() -> str:
    """Return "opengl" where OpenGL renders on a GPU, else "cpu"."""
    return "opengl" if gpu_renders_opengl() else "cpu"


def renderer(backend: str) -> Renderer:
    """Return this process's renderer for a back end or "auto", creating it on first use.

    Raises:
        RenderError: the name is unknown or the back end is not available on this machine.
    """
    if not isinstance(backend, str) or backend not in (AUTO, *BACKENDS):
        raise RenderError(
            f"unknown renderer (backend) {backend!r}: expected one of {', '.join((*BACKENDS, AUTO))}"
        )
    if backend == AUTO:
        backend = default_backend()
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
