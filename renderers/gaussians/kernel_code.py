"""The kernels of the CPU back end: machine code from the package if it is for this processor, else numba's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renderers.machine_code import packaged_kernels

FOLDER = Path(__file__).parent
ARCHIVES = FOLDER / "compiled"
# The files that the kernels are compiled from: `SOURCES` of kernels.py, which cannot be imported without numba.
SOURCES = (
    *(str(FOLDER / name) for name in ("kernels.py", "layout.py")),
    str(FOLDER.parent / "simd.py"),
)


def load_kernels() -> Any:
    """Return an object with the kernels as attributes.

    The environment variable MENAGERIE_KERNELS chooses others, see `renderers.machine_code.packaged_kernels`.

    Raises:
        RuntimeError: the package has no machine code for this processor, and numba cannot be imported.
    """
    packaged = packaged_kernels(ARCHIVES, SOURCES)
    if packaged is not None:
        return packaged
    try:
        from renderers.gaussians import kernels
    except ImportError as error:
        raise RuntimeError(
            f"Rendering splats on the CPU requires numba, which cannot be imported ({error}): "
            "pip install 'menagerie4d[splat]', or use float64 tensors for the slow plain-torch back end"
        ) from error
    return kernels
