"""Selection of the GPU for EGL, which numbers devices differently from CUDA and ignores CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

_EGL_CUDA_DEVICE_NV, _EGL_EXTENSIONS = 0x323A, 0x3055


def load_triton_first() -> None:
    """Load Triton's library; must run before the first EGL context of a process is created.

    Triton, which torch depends on, contains its own LLVM. If it is loaded after the LLVM of Mesa's llvmpipe, the
    process crashes. torch loads Triton when an optimiser is created, so rendering and then training would crash.
    """
    spec = importlib.util.find_spec("triton")
    library = Path(spec.origin).parent / "_C" / "libtriton.so" if spec and spec.origin else None
    if library is not None and library.exists():
        ctypes.CDLL(str(library))


def nvidia_gpu_present() -> bool:
    """Return whether the kernel driver exposes an NVIDIA GPU that this process may use."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", None) in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))


def cuda_to_egl_device() -> int | None:
    """Return the EGL device index of the first visible CUDA device, or None without a GPU or without a mapping.

    Only indices in CUDA_VISIBLE_DEVICES can be mapped. For UUIDs (GPU-…) the first NVIDIA device is used.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not nvidia_gpu_present():
        return None
    first = visible.split(",")[0].strip()
    index = int(first) if first.isdigit() else 0
    return {cuda: egl for egl, cuda in enumerate(_cuda_indices()) if cuda is not None}.get(index)


def gpu_renders_opengl() -> bool:
    """Return whether EGL offers a GPU that this process may use, rather than only a software renderer."""
    if os.environ.get("LIBGL_ALWAYS_SOFTWARE", "") in ("1", "true"):
        return False
    if nvidia_gpu_present():
        return cuda_to_egl_device() is not None
    if "CUDA_VISIBLE_DEVICES" in os.environ:  # set to no GPU
        return False
    # GPUs of other makers: Mesa marks its software renderer, and GPUs that render without a screen have a render node.
    return any(
        "EGL_EXT_device_drm_render_node" in extensions and "EGL_MESA_device_software" not in extensions
        for _, extensions in _egl_devices()
    )


def _cuda_indices() -> list[int | None]:
    """Return the CUDA index of each EGL device, in the order of EGL; None for other devices."""
    return [index for index, _ in _egl_devices()]


def _egl_devices() -> list[tuple[int | None, str]]:
    """Return the CUDA index, None for other devices, and the extensions of each EGL device, in the order of EGL."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return []
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query_devices = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    query_attribute = egl.eglGetProcAddress(b"eglQueryDeviceAttribEXT")
    query_string = egl.eglGetProcAddress(b"eglQueryDeviceStringEXT")
    if not query_devices or not query_attribute or not query_string:
        return []
    pointers = ctypes.POINTER(ctypes.c_void_p)
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointers, ctypes.POINTER(ctypes.c_int))(
        query_devices
    )
    query_attribute = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_ssize_t)
    )(query_attribute)
    query_string = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(query_string)
    devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int()
    if not query_devices(64, devices, ctypes.byref(count)):
        return []
    found: list[tuple[int | None, str]] = []
    for device in devices[: count.value]:
        value = ctypes.c_ssize_t()
        success = query_attribute(device, _EGL_CUDA_DEVICE_NV, ctypes.byref(value))
        extensions = (query_string(device, _EGL_EXTENSIONS) or b"").decode(errors="replace").split()
        found.append((int(value.value) if success else None, " ".join(extensions)))
    return found
