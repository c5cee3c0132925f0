"""The kernels: machine code from the package if it is for this processor, else numba's."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from renderers.machine_code import LEVELS, load_archive

FOLDER = Path(__file__).parent
ARCHIVES = FOLDER / "compiled"
# The files that the kernels are compiled from: `SOURCES` of kernels.py, which cannot be imported without numba.
SOURCES = tuple(
    str(path)
    for path in (
        *(FOLDER / name for name in ("kernels.py", "layout.py", "light.py", "vectors.py")),
        *(FOLDER.parent / name for name in ("environment.py", "opacity.py", "specular.py")),
        FOLDER.parent.parent / "simd.py",
    )
)


@cache
def load_kernels() -> Any:
    """Return an object with the kernels as attributes.

    The environment variable MENAGERIE_KERNELS=numba compiles them for exactly this processor instead; the name of one
    of `machine_code.LEVELS` chooses the machine code for it.

    Raises:
        ImportError: the package has no machine code for this processor, and numba cannot be imported.
    """
    chosen = os.environ.get("MENAGERIE_KERNELS")
    if chosen != "numba":
        packaged = load_archive(ARCHIVES, SOURCES, chosen if chosen in LEVELS else None)
        if packaged is not None:
            return packaged
    from renderers.meshes.cpu import kernels

    return kernels
