"""Which GPU a process should draw on: EGL numbers devices its own way and ignores CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

_EGL_CUDA_DEVICE_NV = 0x323A


def load_triton_first() -> None:
    """To be called before the first EGL context of a process.

    Triton, which comes with torch, carries an LLVM of its own: loaded after Mesa's, which draws without a GPU, it
    brings the process down. torch loads it when an optimiser is made, so drawing and then training would crash.
    """
    spec = importlib.util.find_spec("triton")
    library = Path(spec.origin).parent / "_C" / "libtriton.so" if spec and spec.origin else None
    if library is not None and library.exists():
        ctypes.CDLL(str(library))


def nvidia_gpu_present() -> bool:
    """True if the kernel driver shows an NVIDIA GPU that this process may use."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", None) in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))


def cuda_to_egl_device() -> int | None:
    """The EGL device index of the first visible CUDA device; None where there is none or nothing to choose.

    CUDA_VISIBLE_DEVICES must hold indices for a mapping to exist; for UUIDs (GPU-…) the caller's choice
    cannot be matched through EGL and the first NVIDIA device is used.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not nvidia_gpu_present():
        return None
    first = visible.split(",")[0].strip()
    wanted = int(first) if first.isdigit() else 0
    return {cuda: egl for egl, cuda in enumerate(_cuda_indices()) if cuda is not None}.get(wanted)


def _cuda_indices() -> list[int | None]:
    """For each EGL device, in EGL's order, its CUDA index."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return []
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query_devices = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    query_attribute = egl.eglGetProcAddress(b"eglQueryDeviceAttribEXT")
    if not query_devices or not query_attribute:
        return []
    pointers = ctypes.POINTER(ctypes.c_void_p)
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointers, ctypes.POINTER(ctypes.c_int))(
        query_devices
    )
    query_attribute = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_ssize_t)
    )(query_attribute)
    devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int()
    if not query_devices(64, devices, ctypes.byref(count)):
        return []
    indices: list[int | None] = []
    for device in devices[: count.value]:
        value = ctypes.c_ssize_t()
        found = query_attribute(device, _EGL_CUDA_DEVICE_NV, ctypes.byref(value))
        indices.append(int(value.value) if found else None)
    return indices
