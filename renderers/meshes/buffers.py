"""Memory for the frames of clips, used again by the next clip.

The frames of a clip are hundreds of megabytes. The operating system clears such memory page by page whenever it is
allocated, which takes 0.05 to 0.1 ms per image of 256 px: up to a tenth of the time of drawing it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

_spare: list[np.ndarray] = []  # at most one block that no array uses


class _Block:
    """Owns memory and keeps it as the spare block when the last array in it is deleted."""

    def __init__(self, memory: np.ndarray, size: int) -> None:
        self._memory = memory
        self.__array_interface__ = {**memory[:size].__array_interface__, "shape": (size,)}

    def __del__(self, spare: list[np.ndarray] = _spare) -> None:  # globals may be gone when Python exits
        spare[:] = [self._memory]


def reused_empty(shape: tuple[int, ...]) -> np.ndarray:
    """Return uninitialised uint8 memory as `np.empty`, from an array of about this size that was deleted before."""
    size = math.prod(shape)
    try:
        memory = _spare.pop()
    except IndexError:  # none, or another thread took it
        memory = np.empty(0, np.uint8)
    if not size <= len(memory) <= 2 * size:
        memory = np.empty(size, np.uint8)
    return np.asarray(_Block(memory, size)).reshape(shape)


def aligned_zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """As `np.zeros`, at a multiple of 64 bytes, so that no vector of 512 bits crosses cache lines.

    NumPy's arrays begin at multiples of 16 bytes. Which is left to chance, and so were 6 % of the time of a clip.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + 63, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)
