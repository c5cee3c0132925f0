"""Kernels compiled ahead of time: load and call machine code from this package with llvmlite alone.

numba compiles a kernel on its first call, which takes seconds, and importing it takes 0.6 s even if all code is cached.
Therefore the package contains the machine code of its kernels for common processors, in archives written by
`renderers.kernel_archives`. An archive holds one relocatable object per kernel and `kernels.json`:

    {"sources": digest of the source files, "kernels": {name: {"arguments": [kind, …], "returns": kind or null}}}

The kinds of arguments:

    "int64", "float64", "bool"          a scalar
    "float32[2]"                        a C-contiguous array of this type and number of dimensions
    [kind, …]                           a tuple
    {"name", "fields", "kinds"}         a named tuple: its class, and the names and kinds of its fields

Objects are entered at `entry.<name>`, a function of two pointers: to the arguments, as the 64-bit words of numba's
calling convention (numba.core.callconv), and to the result. A scalar is one word. An array is (owner, parent, size,
bytes per item, address, shape …, strides …). Tuples are the words of their items.

Archives are for Linux on x86-64 and on Arm; elsewhere `load_archive` returns None and numba compiles.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
import weakref
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

_LEVEL_3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
# By the machine's name, the levels of its processors, best first, with the features that each requires: the
# microarchitecture levels of the x86-64 psABI, and Armv8-A, whose vectors of 128 bits all processors have.
MACHINES: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "x86-64-v4": (*_LEVEL_3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
        "x86-64-v3": _LEVEL_3,
        "x86-64": (),
    },
    "aarch64": {"aarch64": ()},
}
LEVELS = [level for levels in MACHINES.values() for level in levels]
# The objects beside those of the kernels: functions of numba's runtime that kernels call, and the entries.
ALLOCATOR, ENTRIES = "allocator", "entries"
ENTRY = "entry."  # prefix of the symbol that a kernel is entered at
Kind = str | list | dict[str, Any]  # of an argument, see above
_SCALARS = {"int64": struct.Struct("<q"), "float64": struct.Struct("<d"), "bool": struct.Struct("<q")}
_SUCCESS = (0, -2)  # RETCODE_OK and RETCODE_NONE of numba.core.callconv
_ENGINES: list[Any] = []  # own the memory of the loaded code


@cache
def digest_files(files: tuple[str, ...]) -> str:
    """Digest of the content of source files. Archives of other sources are not used."""
    return sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()


@cache
def processor_levels() -> tuple[str, ...]:
    """Return those of `LEVELS` that this processor supports, best first; none without llvmlite or on no Linux."""
    levels = MACHINES.get(platform.machine(), {}) if sys.platform.startswith("linux") else {}
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return ()
    features = llvm.get_host_cpu_features() if any(levels.values()) else {}
    return tuple(level for level, needed in levels.items() if all(map(features.get, needed)))


def kernels_of(module: str, folder: Path, sources: Sequence[str]) -> Any:
    """Return kernels: machine code from the package if it is for this processor, else those of a module of numba's.

    MENAGERIE_KERNELS=numba asks for kernels that are compiled for exactly this processor; the name of one of the levels
    that it supports chooses the machine code for it.

    Args:
        module: name of the module, which is imported if it is needed.
        folder, sources: as for `load_archive`.
    Returns:
        An object with the kernels as attributes.
    Raises:
        ImportError: the package has no machine code for this processor, and numba cannot be imported.
    """
    chosen = os.environ.get("MENAGERIE_KERNELS")
    if chosen != "numba":
        packaged = load_archive(folder, sources, chosen if chosen in processor_levels() else None)
        if packaged is not None:
            return packaged
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module}: there is no machine code for this processor, and numba cannot be imported ({error}): "
            "pip install 'menagerie4d[render]'"
        ) from error


def load_archive(folder: Path, sources: Sequence[str], level: str | None = None) -> SimpleNamespace | None:
    """Load the kernels in `folder`/<level>.zip.

    Args:
        folder: where the archives are.
        sources: the source files that the archive must have been compiled from.
        level: one of `LEVELS`; default the best that this processor supports.
    Returns:
        The kernels as attributes; None if there is no archive of these sources that this processor supports.
    """
    supported = processor_levels()
    level = level or next(iter(supported), None)
    if level not in supported:
        return None
    try:
        with zipfile.ZipFile(folder / f"{level}.zip") as archive:
            index = json.loads(archive.read("kernels.json"))
            if index["sources"] != digest_files(tuple(sources)):
                return None
            objects = {name: archive.read(f"{name}.o") for name in (*index["kernels"], ALLOCATOR, ENTRIES)}
    except FileNotFoundError:
        return None
    addresses = _link(objects, [ENTRY + name for name in index["kernels"]])
    kernels = {
        name: _bind(name, addresses[ENTRY + name], **entry) for name, entry in index["kernels"].items()
    }
    return SimpleNamespace(**kernels)


def _link(objects: dict[str, bytes], symbols: Sequence[str]) -> dict[str, int]:
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
    return {symbol: engine.get_function_address(symbol) for symbol in symbols}


def _bind(name: str, address: int, arguments: list[Kind], returns: str | None) -> Callable[..., Any]:
    """Return a function that checks and converts its arguments and calls the machine code at `address`.

    The call releases the global interpreter lock. The function takes bool, int and float for scalars, and C-contiguous
    arrays of exactly the given type and number of dimensions.
    """
    converters = [_converter(f"{name}: argument {i}", kind) for i, kind in enumerate(arguments)]
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)(address)
    result_type = ctypes.c_double if returns == "float64" else ctypes.c_int64

    def call(*values: Any) -> Any:
        result = result_type()
        words = b"".join([convert(value) for value, convert in zip(values, converters, strict=True)])
        if function(words, ctypes.byref(result)) not in _SUCCESS:
            raise MemoryError(f"{name}: there is not enough memory for its temporary arrays")
        return None if returns is None else result.value

    call.__name__ = name
    return call


def _converter(label: str, kind: Kind) -> Callable[[Any], bytes]:
    """Return the function that converts a value to the words passed for it."""
    if isinstance(kind, dict):
        return _named_tuple_converter(label, kind)
    if isinstance(kind, list):
        items = [_converter(label, item) for item in kind]
        return lambda value: b"".join([item(part) for part, item in zip(value, items, strict=True)])
    if kind in _SCALARS:
        return _SCALARS[kind].pack
    base, size = kind.rstrip("]").split("[")
    dtype, count = np.dtype(base), int(size)
    pack = struct.Struct(f"<{5 + 2 * count}q").pack

    def convert(array: np.ndarray) -> bytes:
        if (
            (array.dtype is not dtype and array.dtype != dtype)
            or array.ndim != count
            or not array.flags.c_contiguous
        ):
            raise TypeError(
                f"{label}: expected a C-contiguous {dtype} array with {count} dimensions, got {array.dtype} "
                f"{list(array.shape)} with strides {list(array.strides)}"
            )
        return pack(0, 0, array.size, array.itemsize, data_address(array), *array.shape, *array.strides)

    return convert


def data_address(array: np.ndarray) -> int:
    """Return the address of the first item.

    It is read from the first field behind the head of the object (PyArrayObject_fields.data of NumPy's ABI). Frames
    pass dozens of arrays, and `__array_interface__` takes two thirds of the time of their conversion.
    """
    return ctypes.c_void_p.from_address(id(array) + object.__basicsize__).value or 0


def _named_tuple_converter(label: str, kind: dict[str, Any]) -> Callable[[Any], bytes]:
    """Convert named tuples, most of which are passed in many calls: remember the words while their arrays exist.

    Words are found by the identities of the arrays. They are forgotten when the first of the arrays is deleted, before
    another object can get its identity.
    """
    names, kinds = kind["fields"], kind["kinds"]
    fields = [_converter(f"{label}.{field}", item) for field, item in zip(names, kinds, strict=True)]
    words: dict[tuple[int, ...], tuple[bytes, list[weakref.ref]]] = {}

    def convert(value: Any) -> bytes:
        key = tuple([part if type(part) is int else id(part) for part in value])
        remembered = words.get(key)
        if remembered is not None:
            return remembered[0]
        content = b"".join([field(part) for part, field in zip(value, fields, strict=True)])
        arrays = [part for part in value if isinstance(part, np.ndarray)]

        def forget(_: object) -> None:
            words.pop(key, None)

        words[key] = content, [weakref.ref(array, forget) for array in arrays]
        return content

    return convert
