"""Compile the kernels of poses ahead of time: `python -m renderers.gltf.compile [--level x86-64-v3] [folder]`.

Writes `compiled/` of `renderers.gltf`, an archive per processor level, see `renderers.machine_code`. Run it whenever a
source file of the kernels has changed: `make kernels`.
"""

from __future__ import annotations

from pathlib import Path

from renderers.gltf.kernel_code import ARCHIVES, SOURCES
from renderers.kernel_archives import Signature, run_compiler, write_archive
from renderers.machine_code import Kind

_TRACKS: list[Kind] = ["int64[1]", "int64[1]", "float64[1]", "int64[1]"]  # first, lines, moves, rows
_KEYS: list[Kind] = ["int64[1]", "int64[1]", "float64[1]"]  # low, high, phase
_SHAPE: list[Kind] = ["float32[2]", "float32[2]"]  # positions, normals
# The signature of each kernel, in the notation of `renderers.machine_code`.
SIGNATURES = {
    "find_keys": Signature(["float64", "int64[1]", "float64[1]", *_KEYS, "float64[1]"]),
    "interpolate": Signature(["float64[2]", *_TRACKS, *_KEYS, "float64[2]"]),
    "interpolate_rotations": Signature(["float64[2]", "float64[2]", *_TRACKS, *_KEYS, "float64[2]"]),
    "place_nodes": Signature([*["int64[1]"] * 3, "float64[2]", "float64[2]", "float64[3]", "float64[3]"]),
    "place_rigid": Signature(
        ["float32[2]", "float32[2]", *_SHAPE, "int64", "int64", *_SHAPE, "bool"], "bool"
    ),
    "place_joints": Signature(
        ["float64[3]", "int64[1]", "float64[3]", "float64[1]", "float64[1]", "bool", "float32[2]"], "float64"
    ),
    "skin": Signature(
        [
            "float32[2]", "int64[1]", "int32[1]", "float64[1]", *_SHAPE, "float64", "int64", "float32[1]",
            *_SHAPE, "float32[1]", "bool",
        ],
        "bool",
    ),
    "flat_normals": Signature(["float32[2]", "int64", "int64", "bool", "float32[2]"]),
}  # fmt: skip


def main() -> None:
    """Compile for all levels, or for one."""
    run_compiler("renderers.gltf.compile", __doc__.split("\n")[0], ARCHIVES, lambda: SIGNATURES)


def write(path: Path, signatures: dict[str, Signature]) -> None:
    """Write an archive for the target that numba is set to; see `renderers.kernel_archives.run_compiler`."""
    from renderers.gltf import kernels
    from renderers.kernel_cache import UNCOUNTED

    write_archive(path, kernels, signatures, SOURCES, **UNCOUNTED)


if __name__ == "__main__":
    main()
