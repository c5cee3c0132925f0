"""The kernels of the CPU back end: machine code from the package if it is for this processor, else numba's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renderers.machine_code import kernels_of

FOLDER = Path(__file__).parent
ARCHIVES = FOLDER / "compiled"
# The files that the kernels are compiled from: `SOURCES` of kernels.py, which cannot be imported without numba.
SOURCES = (
    *(str(FOLDER / name) for name in ("kernels.py", "layout.py")),
    str(FOLDER.parent / "simd.py"),
)


def load_kernels() -> Any:
    """Return an object with the kernels as attributes; see `renderers.machine_code.kernels_of`.

    Raises:
        RuntimeError: the package has no machine code for this processor, and numba cannot be imported.
    """
    try:
        return kernels_of("renderers.gaussians.kernels", ARCHIVES, SOURCES)
    except ImportError as error:
        raise RuntimeError(
            f"Rendering splats on the CPU requires numba, which cannot be imported ({error.__cause__}): "
            "pip install 'menagerie4d[splat]', or use float64 tensors for the slow plain-torch back end"
        ) from error
