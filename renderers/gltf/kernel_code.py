"""The kernels of poses: machine code from the package if it is for this processor, else numba's."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from renderers.machine_code import packaged_kernels

FOLDER = Path(__file__).parent
ARCHIVES = FOLDER / "compiled"
# The files that the kernels are compiled from, as in kernels.py, which cannot be imported without numba.
SOURCES = (str(FOLDER / "kernels.py"), str(FOLDER.parent / "fixed.py"))


@cache
def load_kernels() -> Any:
    """Return an object with the kernels as attributes.

    The environment variable MENAGERIE_KERNELS chooses others, see `renderers.machine_code.packaged_kernels`.

    Raises:
        ImportError: the package has no machine code for this processor, and numba cannot be imported.
    """
    packaged = packaged_kernels(ARCHIVES, SOURCES)
    if packaged is not None:
        return packaged
    try:
        from renderers.gltf import kernels
    except ImportError as error:
        raise ImportError(
            f"Posing glTF models requires numba, which cannot be imported ({error}): pip install 'menagerie4d[render]'"
        ) from error
    return kernels
