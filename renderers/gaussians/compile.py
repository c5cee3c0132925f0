"""Compile the kernels ahead of time: `python -m renderers.gaussians.compile [--level x86-64-v3] [folder]`.

Writes `compiled/x86-64-v3.zip` and `compiled/x86-64-v4.zip` of `renderers.gaussians`, see `renderers.machine_code`.
Run it whenever a source file of the kernels has changed: `make kernels`. The same sources and the same versions of
numba and llvmlite give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from renderers.gaussians.kernel_code import ARCHIVES, SOURCES
from renderers.machine_code import ALLOCATOR, LEVELS, digest_files

_CHAIN = ["int64"] * 2  # first, last
_LISTS = ["int64[2]", "int32[1]", "uint64[1]"]  # tile_start, splats, masks
_FLOATS = "float32[1]"
_PROJECT = [
    *_CHAIN,
    "int64",
    "int64",
    *[_FLOATS] * 4,
    "bool[4]",
    _FLOATS,
    _FLOATS,
    "int64",
    "int64",
    "float64",
    "bool",
]
# The types of the arguments of each kernel, in the notation of `renderers.machine_code`.
ARGUMENTS = {
    "project": [*_PROJECT, *[_FLOATS] * 3, "float64[1]", _FLOATS, "int32[1]", _FLOATS],
    "project_backward": [*_PROJECT, *[_FLOATS] * 9, "float64[1]"],
    "count_slots": [*_CHAIN, "float32[3]", "int32[3]", "int64", "int64", "int64[1]"],
    "sort": [
        *_CHAIN, "float64[2]", "int32[3]", "float32[3]", "int64", "int64", "int64[1]",
        "int32[2]", "int64[1]", "int64[2]", *_LISTS, "int64[1]",
    ],
    "draw": [
        *_CHAIN, *["int64"] * 3, *_LISTS, _FLOATS, _FLOATS, "int64", _FLOATS, *["int64"] * 3,
        *[_FLOATS] * 4, "int64[1]",
    ],
    "draw_backward": [
        *_CHAIN, *["int64"] * 3, *_LISTS, "int64[1]", _FLOATS, _FLOATS, "int64", _FLOATS, *["int64"] * 3,
        *[_FLOATS] * 2, "int64[1]", *[_FLOATS] * 3,
    ],
    "gather": [
        *_CHAIN, "float32[3]", "float32[2]", "int32[2]", "int64[1]", "int64[2]", "int64[1]", "float32[2]",
        "float32[3]", "float32[3]", "float32[2]", "float32[3]",
    ],
}  # fmt: skip


def main() -> None:
    """Compile for all levels, each in a process of its own, as numba reads the processor's name once."""
    parser = argparse.ArgumentParser(
        prog="python -m renderers.gaussians.compile", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, nargs="?", default=ARCHIVES, help="where to write the archives")
    parser.add_argument("--level", choices=LEVELS, help="compile for one level, in this process")
    options = parser.parse_args()
    if options.level is None:
        for level in LEVELS:
            environment = {**os.environ, "NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""}
            command = [
                sys.executable,
                "-m",
                "renderers.gaussians.compile",
                str(options.folder),
                "--level",
                level,
            ]
            subprocess.run(command, env=environment, check=True)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    write_archive(options.folder / f"{options.level}.zip")


def write_archive(path: Path) -> None:
    """Compile all kernels for the processor that the environment variable NUMBA_CPU_NAME gives."""
    from renderers.gaussians import kernels

    entries, objects = {}, {ALLOCATOR: _allocator()}
    for name, arguments in ARGUMENTS.items():
        symbol, objects[name] = _compile(getattr(kernels, name).py_func, arguments)
        entries[name] = {"symbol": symbol, "arguments": arguments}
    index = {"sources": digest_files(SOURCES), "kernels": entries}
    files = {"kernels.json": json.dumps(index, indent=1).encode()}
    files |= {f"{name}.o": content for name, content in objects.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # ZipInfo has a fixed date


def _compile(function: Callable, arguments: list[str]) -> tuple[str, bytes]:
    """Return the symbol and the object of one kernel, without the wrappers that need Python and numba."""
    from numba import njit

    # Options that numba's annotations of `njit` lack.
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    kernel: Any = njit(function, nogil=True, error_model="numpy", **options)
    kernel.compile(tuple(map(_type, arguments)))
    (result,) = kernel.overloads.values()
    _, _, (content, _) = result.library.serialize_using_object_code()
    return result.fndesc.llvm_func_name, content


def _type(name: str) -> Any:
    """Return the numba type for the notation of `renderers.machine_code`."""
    from numba import types

    base, _, size = name.rstrip("]").partition("[")
    element = types.boolean if base == "bool" else getattr(types, base)
    if not size:
        return element
    return types.UniTuple(element, int(size)) if base == "bool" else types.Array(element, int(size), "C")


def _allocator() -> bytes:
    """Compile the functions of numba's runtime that kernels call for temporary arrays, on top of malloc and free.

    The layout of numba's `MemInfo` (numba/core/runtime/nrt.cpp): reference count, destructor, its argument, address of
    the data, size, allocator. The data follows it in one block of memory, which is freed with it.
    """
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu="x86-64", opt=2, reloc="pic")
    module = llvm.parse_assembly(_ALLOCATOR)
    module.verify()
    return machine.emit_object(module)


_ALLOCATOR = """
declare ptr @malloc(i64)
declare void @free(ptr)

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %alignment) {
  %align = zext i32 %alignment to i64
  %padding = add i64 %align, 48
  %total = add i64 %size, %padding
  %block = call ptr @malloc(i64 %total)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %end, label %fill
fill:
  %start = ptrtoint ptr %block to i64
  %after = add i64 %start, 47
  %end_of_padding = add i64 %after, %align
  %mask = sub i64 0, %align
  %aligned = and i64 %end_of_padding, %mask
  %data = inttoptr i64 %aligned to ptr
  store i64 1, ptr %block
  %destructor = getelementptr i64, ptr %block, i64 1
  store ptr null, ptr %destructor
  %argument = getelementptr i64, ptr %block, i64 2
  store ptr null, ptr %argument
  %address = getelementptr i64, ptr %block, i64 3
  store ptr %data, ptr %address
  %bytes = getelementptr i64, ptr %block, i64 4
  store i64 %size, ptr %bytes
  %allocator = getelementptr i64, ptr %block, i64 5
  store ptr null, ptr %allocator
  br label %end
end:
  ret ptr %block
}

define void @NRT_MemInfo_call_dtor(ptr %block) {
  call void @free(ptr %block)
  ret void
}

define void @NRT_Free(ptr %block) {
  call void @free(ptr %block)
  ret void
}
"""


if __name__ == "__main__":
    main()
