"""The OpenGL context of a process, and the shader programs compiled in it."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Protocol, TypeVar

import moderngl

from renderers.meshes.clip import RenderError
from renderers.meshes.devices import cuda_to_egl_device, load_triton_first, nvidia_gpu_present
from renderers.meshes.opengl import shaders

_SOFTWARE = ("llvmpipe", "softpipe", "swrast")


class _Releasable(Protocol):
    def release(self) -> object: ...


Resource = TypeVar("Resource", bound=_Releasable)


def release_with(stack: contextlib.ExitStack, resource: Resource) -> Resource:
    """Release a GPU resource when `stack` is closed, at the end of a clip."""
    stack.callback(resource.release)
    return resource


class Gpu:
    """A context with everything that is shared by all clips: programs and the uniform block of the view.

    Attributes:
        ctx: the moderngl context.
        description: the device and its driver, e.g. "llvmpipe (LLVM 15.0.6, 256 bits), Mesa 22.3.6".
        resolve: program that averages samples.
        full_screen: vertex array of one triangle that covers the viewport, drawn with `resolve`.
        view_block: buffer of the uniform block `View`.
    """

    def __init__(self) -> None:
        load_triton_first()
        self.ctx = _create_context()
        info = self.ctx.info
        driver = info["GL_VERSION"].split(" ", 1)[-1].removeprefix("(Core Profile) ")
        self.description = f"{info['GL_RENDERER']}, {driver}"
        self._programs: dict[frozenset[str], moderngl.Program] = {}
        self.resolve = self.ctx.program(vertex_shader=shaders.FULL_SCREEN, fragment_shader=shaders.RESOLVE)
        self.full_screen = self.ctx.vertex_array(self.resolve, [])
        self.view_block = self.ctx.buffer(reserve=shaders.VIEW_BLOCK_BYTES, dynamic=True)

    def program(self, features: frozenset[str]) -> moderngl.Program:
        """Return the mesh shader for a set of material features, compiled on first use."""
        if features not in self._programs:
            program = self.ctx.program(
                vertex_shader=shaders.mesh_vertex(features), fragment_shader=shaders.mesh_fragment(features)
            )
            bindings = {"View": shaders.VIEW_BINDING, "Surface": shaders.MATERIAL_BINDING}
            for name in program:
                member = program[name]
                if isinstance(member, moderngl.UniformBlock):
                    member.binding = bindings[name]
                elif isinstance(member, moderngl.Uniform) and name in shaders.SLOTS:
                    member.value = shaders.SLOTS.index(name)
            self._programs[features] = program
        return self._programs[features]


def _create_context() -> moderngl.Context:
    """Create a headless context on the first visible GPU, or on the CPU if there is none or software is requested."""
    force_software = os.environ.get("LIBGL_ALWAYS_SOFTWARE", "") in ("1", "true")
    device = None if force_software else cuda_to_egl_device()
    options: dict[str, Any] = {"backend": "egl"} | ({} if device is None else {"device_index": device})
    try:
        ctx = moderngl.create_context(standalone=True, require=330, **options)
    except Exception as error:
        raise RenderError(
            f"opengl: cannot create a headless OpenGL 3.3 context ({error}). On Debian install "
            f"`apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri`, or choose --renderer pyrender or blender"
        ) from error
    name = ctx.info["GL_RENDERER"]
    if any(word in name for word in _SOFTWARE) and nvidia_gpu_present() and not force_software:
        ctx.release()
        raise RenderError(
            f"opengl: this machine has an NVIDIA GPU, but EGL selected the software renderer {name!r}. Install the "
            f"driver's EGL library (libnvidia-gl) or, in a container, request the `graphics` capability "
            f"(NVIDIA_DRIVER_CAPABILITIES=all); to render on the CPU deliberately, set LIBGL_ALWAYS_SOFTWARE=1"
        )
    return ctx
