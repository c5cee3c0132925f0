"""Compile the kernels ahead of time: `python -m renderers.gaussians.compile [--level x86-64-v3] [folder]`.

Writes `compiled/` of `renderers.gaussians`, an archive per processor level, see `renderers.machine_code`. Run it
whenever a source file of the kernels has changed: `make kernels`.
"""

from __future__ import annotations

from pathlib import Path

from renderers.gaussians.kernel_code import ARCHIVES, SOURCES
from renderers.kernel_archives import Signature, run_compiler, write_archive
from renderers.machine_code import Kind

_CHAIN = ["int64"] * 2  # first, last
_LISTS = ["int64[2]", "int32[1]", "uint64[1]"]  # tile_start, splats, masks
_FLOATS = "float32[1]"
_PROJECT: list[Kind] = [
    *_CHAIN,
    "int64",
    "int64",
    *[_FLOATS] * 4,
    ["bool"] * 4,
    _FLOATS,
    _FLOATS,
    "int64",
    "int64",
    "float64",
    "bool",
]
# The types of the arguments of each kernel, in the notation of `renderers.machine_code`.
ARGUMENTS: dict[str, list[Kind]] = {
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
    """Compile for all levels, or for one."""
    signatures = {name: Signature(arguments) for name, arguments in ARGUMENTS.items()}
    run_compiler("renderers.gaussians.compile", __doc__.split("\n")[0], ARCHIVES, lambda: signatures)


def write(path: Path, signatures: dict[str, Signature]) -> None:
    """Write an archive for the target that numba is set to; see `renderers.kernel_archives.run_compiler`."""
    from renderers.gaussians import kernels

    write_archive(path, kernels, signatures, SOURCES)


if __name__ == "__main__":
    main()
