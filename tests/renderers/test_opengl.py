"""Contexts, devices and limits of the OpenGL back end. Its images are tested in `test_rasterisers.py`."""

from __future__ import annotations

import pytest
from scenes import render, shot, square

from renderers.meshes import RenderError, opengl
from renderers.meshes.devices import nvidia_gpu_present


def test_images_that_are_too_large_are_rejected():
    with pytest.raises(RenderError, match=r"32768 pixels, .* at most \d+; render at a lower resolution"):
        render(square(), shot(width=8192, height=8), samples=16)


@pytest.mark.skipif(nvidia_gpu_present(), reason="the test simulates a GPU, and this machine has one")
def test_software_rendering_on_a_gpu_machine_must_be_requested(monkeypatch):
    monkeypatch.setattr(opengl.context, "nvidia_gpu_present", lambda: True)
    monkeypatch.delenv("LIBGL_ALWAYS_SOFTWARE", raising=False)
    with pytest.raises(RenderError, match=r"NVIDIA GPU.*llvmpipe.*LIBGL_ALWAYS_SOFTWARE=1"):
        opengl.OpenGLRenderer()
    monkeypatch.setenv("LIBGL_ALWAYS_SOFTWARE", "1")
    assert "llvmpipe" in opengl.OpenGLRenderer().name


def test_without_opengl_an_error_names_the_packages(monkeypatch):
    def fail(**_: object) -> None:
        raise RuntimeError("cannot load libEGL.so")

    monkeypatch.setattr(opengl.context.moderngl, "create_context", fail)
    with pytest.raises(
        RenderError, match=r"libEGL\.so.*apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
    ):
        opengl.OpenGLRenderer()
