"""The default mesh renderer: OpenGL where a GPU draws it, else the CPU rasteriser, which needs no graphics library."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scenes import shot, square, unlit

from renderers import gltf
from renderers.meshes import default_backend, devices, render_clip, renderer

SOFTWARE = (None, "EGL_MESA_device_software EGL_EXT_device_drm_render_node")  # llvmpipe of Mesa 22
RADEON = (None, "EGL_EXT_device_drm EGL_EXT_device_drm_render_node")
DISPLAY = (None, "EGL_EXT_device_drm")  # a display controller that cannot render
NVIDIA = (0, "EGL_NV_device_cuda EGL_EXT_device_drm")


@pytest.mark.parametrize(
    ("found", "nvidia", "environment", "expected"),
    [
        ([], False, {}, "cpu"),
        ([SOFTWARE], False, {}, "cpu"),
        ([DISPLAY, SOFTWARE], False, {}, "cpu"),
        ([RADEON, SOFTWARE], False, {}, "opengl"),
        ([RADEON, SOFTWARE], False, {"LIBGL_ALWAYS_SOFTWARE": "1"}, "cpu"),
        ([NVIDIA, SOFTWARE], True, {}, "opengl"),
        ([NVIDIA, SOFTWARE], True, {"LIBGL_ALWAYS_SOFTWARE": "1"}, "cpu"),
        ([NVIDIA, SOFTWARE], True, {"CUDA_VISIBLE_DEVICES": ""}, "cpu"),
        ([NVIDIA, SOFTWARE], True, {"CUDA_VISIBLE_DEVICES": "0"}, "opengl"),
        ([SOFTWARE], True, {}, "cpu"),  # a container without the EGL library of the driver
    ],
)
def test_opengl_is_the_default_only_where_a_gpu_draws_it(monkeypatch, found, nvidia, environment, expected):
    for name in ("LIBGL_ALWAYS_SOFTWARE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(devices, "_egl_devices", lambda: found)
    present = nvidia and environment.get("CUDA_VISIBLE_DEVICES") != ""
    monkeypatch.setattr(devices, "nvidia_gpu_present", lambda: present)
    assert default_backend.__wrapped__() == expected


def test_the_devices_of_this_machine_are_read():
    assert all(isinstance(extensions, str) for _, extensions in devices._egl_devices())


def test_a_clip_is_drawn_by_the_default():
    asset = gltf.load(square(unlit(1, 0, 0)).glb())
    expected = default_backend()
    assert renderer("auto") is renderer(expected)
    assert render_clip(asset, shot()).renderer.startswith(f"{expected} ")


def test_the_cpu_rasteriser_loads_no_graphics_library():
    """On a machine that has none, `make run` works."""
    code = """
import sys
for name in ("moderngl", "pyrender", "OpenGL", "torchcodec"):
    sys.modules[name] = None  # makes the import fail
from renderers.meshes import renderer
print(renderer("cpu").name)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("cpu ") and done.stderr == ""
