"""Kernels compiled ahead of time: load and call machine code from this package with llvmlite alone.

numba compiles a kernel on its first call, which takes seconds, and importing it takes 0.6 s even if all code is cached.
Therefore the package contains the machine code of its kernels for common processors, in archives written by
`python -m renderers.gaussians.compile`. An archive holds one relocatable object per kernel and `kernels.json`:

    {"sources": digest of the source files, "kernels": {name: {"symbol": …, "arguments": ["int64", "float32[2]", …]}}}

A kernel is called with numba's calling convention (numba.core.callconv): a pointer to the result, a pointer to the
error, and the arguments, where an array is passed as the words (owner, parent, size, bytes per item, address, shape …,
strides …). Archives are for Linux on x86-64; elsewhere `load_archive` returns None and numba compiles.
"""

from __future__ import annotations

import ctypes
import json
import platform
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

# The microarchitecture levels of the x86-64 psABI, best first, with the features that each requires.
_LEVEL_3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
LEVELS = {
    "x86-64-v4": (*_LEVEL_3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": _LEVEL_3,
}
ALLOCATOR = "allocator"  # the object that defines the functions of numba's runtime that kernels call
_SCALARS = {"int64": ctypes.c_int64, "float64": ctypes.c_double, "bool": ctypes.c_uint8}
_SUCCESS = (0, -2)  # RETCODE_OK and RETCODE_NONE of numba.core.callconv
_ENGINES: list[Any] = []  # own the memory of the loaded code


@cache
def digest_files(files: tuple[str, ...]) -> str:
    """Digest of the content of source files. Archives of other sources are not used."""
    return sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()


@cache
def processor_level() -> str | None:
    """Return the highest of `LEVELS` that this processor supports; None if it supports none, or is not Linux."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return None
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return next((level for level, needed in LEVELS.items() if all(map(features.get, needed))), None)


def load_archive(folder: Path, sources: Sequence[str], level: str | None = None) -> SimpleNamespace | None:
    """Load the kernels in `folder`/<level>.zip.

    Args:
        folder: where the archives are.
        sources: the source files that the archive must have been compiled from.
        level: one of `LEVELS`; default that of this processor.
    Returns:
        The kernels as attributes; None if no archive is for this processor and these sources.
    """
    try:
        level = level or processor_level()
        with zipfile.ZipFile(folder / f"{level}.zip") as archive:
            index = json.loads(archive.read("kernels.json"))
            if index["sources"] != digest_files(tuple(sources)):
                return None
            objects = {name: archive.read(f"{name}.o") for name in (*index["kernels"], ALLOCATOR)}
    except (ImportError, FileNotFoundError):  # llvmlite is not installed; no archive for this processor
        return None
    addresses = _link(objects, {name: entry["symbol"] for name, entry in index["kernels"].items()})
    kernels = {
        name: _bind(name, addresses[name], entry["arguments"]) for name, entry in index["kernels"].items()
    }
    return SimpleNamespace(**kernels)


def _link(objects: dict[str, bytes], symbols: dict[str, str]) -> dict[str, int]:
    """Load objects into memory and return the addresses of their symbols."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for content in objects.values():
        engine.add_object_file(llvm.ObjectFileRef.from_data(content))
    engine.finalize_object()
    _ENGINES.append(engine)
    return {name: engine.get_function_address(symbol) for name, symbol in symbols.items()}


def _bind(name: str, address: int, arguments: list[str]) -> Callable[..., None]:
    """Return a function that checks and converts its arguments and calls the machine code at `address`.

    The call releases the global interpreter lock. The function takes bool, int and float for scalars, tuples for
    "bool[4]", and C-contiguous arrays of exactly the given type and number of dimensions.
    """
    converters = [_converter(f"{name}: argument {i}", kind) for i, kind in enumerate(arguments)]
    words = [word for _, kinds in converters for word in kinds]
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *words)(address)

    def call(*values: Any) -> None:
        result, error = ctypes.c_void_p(), ctypes.c_void_p()
        converted = [ctypes.byref(result), ctypes.byref(error)]
        for value, (convert, _) in zip(values, converters, strict=True):
            converted += convert(value)
        if function(*converted) not in _SUCCESS:
            raise MemoryError(f"{name}: there is not enough memory for its temporary arrays")

    call.__name__ = name
    return call


def _converter(label: str, kind: str) -> tuple[Callable[[Any], Sequence[Any]], list[Any]]:
    """Return the function that converts a value to the words passed for it, and the C types of these words."""
    if kind in _SCALARS:
        return lambda value: (value,), [_SCALARS[kind]]
    base, size = kind.rstrip("]").split("[")
    count = int(size)
    if base == "bool":
        return tuple, [ctypes.c_uint8] * count
    dtype = np.dtype(base)

    def convert(array: np.ndarray) -> Sequence[Any]:
        if array.dtype != dtype or array.ndim != count or not array.flags.c_contiguous:
            raise TypeError(
                f"{label}: expected a C-contiguous {dtype} array with {count} dimensions, got {array.dtype} "
                f"{list(array.shape)} with strides {list(array.strides)}"
            )
        address = array.__array_interface__["data"][0]
        return (None, None, array.size, array.itemsize, address, *array.shape, *array.strides)

    pointer, word = ctypes.c_void_p, ctypes.c_int64
    return convert, [pointer, pointer, word, word, pointer, *[word] * (2 * count)]
