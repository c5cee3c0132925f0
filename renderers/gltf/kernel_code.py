"""The kernels of poses: machine code from the package if it is for this processor, else numba's."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from renderers.machine_code import LEVELS, load_archive

FOLDER = Path(__file__).parent
ARCHIVES = FOLDER / "compiled"
# The files that the kernels are compiled from, as in kernels.py, which cannot be imported without numba.
SOURCES = (str(FOLDER / "kernels.py"), str(FOLDER.parent / "fixed.py"))


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
    try:
        from renderers.gltf import kernels
    except ImportError as error:
        raise ImportError(
            f"Posing glTF models requires numba, which cannot be imported ({error}): pip install 'menagerie4d[render]'"
        ) from error
    return kernels
