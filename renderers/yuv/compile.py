"""Compile the kernels ahead of time: `python -m renderers.yuv.compile [--level x86-64-v3] [folder]`.

Writes `compiled/` of `renderers.yuv`, an archive per processor level, see `renderers.machine_code`. Run it whenever a
source file of the kernels has changed: `make kernels`.
"""

from __future__ import annotations

from pathlib import Path

from renderers.kernel_archives import Signature, run_compiler, write_archive
from renderers.yuv.kernel_code import ARCHIVES, SOURCES

# In the notation of `renderers.machine_code`.
SIGNATURES = {
    "bleed_to_yuv": Signature(["uint32[3]", "int64", "int64", "int64", "uint32[2]", *["uint8[3]"] * 3])
}


def main() -> None:
    """Compile for all levels, or for one."""
    run_compiler("renderers.yuv.compile", __doc__.split("\n")[0], ARCHIVES, lambda: SIGNATURES)


def write(path: Path, signatures: dict[str, Signature]) -> None:
    """Write an archive for the target that numba is set to; see `renderers.kernel_archives.run_compiler`."""
    from renderers.kernel_cache import UNCOUNTED
    from renderers.yuv import kernels

    write_archive(path, kernels, signatures, SOURCES, **UNCOUNTED)


if __name__ == "__main__":
    main()
