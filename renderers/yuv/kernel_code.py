"""The kernels: machine code from the package if it is for this processor, else numba's."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from renderers.machine_code import kernels_of

FOLDER = Path(__file__).parent
ARCHIVES = FOLDER / "compiled"
SOURCES = (str(FOLDER / "kernels.py"),)


@cache
def load_kernels() -> Any:
    """Return an object with the kernels as attributes; see `renderers.machine_code.kernels_of`.

    Raises:
        ImportError: the package has no machine code for this processor, and numba cannot be imported.
    """
    return kernels_of("renderers.yuv.kernels", ARCHIVES, SOURCES)
