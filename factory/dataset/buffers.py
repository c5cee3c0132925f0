"""Reusable memory for batches, and the lookup table that converts 8-bit values to a batch's data type."""

from __future__ import annotations

import weakref
from threading import Lock

import numpy as np
import torch

_BIT_PATTERNS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def value_table(dtype: torch.dtype) -> np.ndarray:
    """Lookup table from an 8-bit value to its representation in a batch.

    Floating-point types map 0–255 to -1..1; torch.uint8 keeps the value.

    Returns:
        [256], integers that hold the bit patterns of `dtype`. NumPy has no bfloat16, so the decoder fills arrays
        of integers and the loader reinterprets them with `Tensor.view`.
    """
    values = torch.arange(256, dtype=torch.uint8).to(dtype)
    if dtype.is_floating_point:
        values.div_(127.5).sub_(1.0)
    return values.view(_BIT_PATTERNS[dtype.itemsize]).numpy()


class BufferPool:
    """Arrays for batches; an array is reused once no tensor refers to it.

    A float32 sample is 50 MB. Allocating and freeing that much memory takes twice (NumPy with huge pages) to ten
    times (torch with small pages) as long as filling it.
    """

    _CAPACITY = 4

    def __init__(self) -> None:
        # Each array with a weak reference to the view that was handed out; dead when the batch was released.
        self._arrays: list[tuple[np.ndarray, weakref.ref[np.ndarray]]] = []
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[BufferPool], tuple[()]]:
        return BufferPool, ()  # memory is not shared between processes

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialised array. Pass it to `torch.from_numpy`, whose tensors keep this object alive."""
        with self._lock:
            unused = (array for array, view in self._arrays if view() is None and array.shape == shape)
            array = next(unused, None)
            if array is None:
                array = np.empty(shape, dtype)
            view = array.view()
            others = [pair for pair in self._arrays if pair[0] is not array]
            self._arrays = [*others[1 - self._CAPACITY :], (array, weakref.ref(view))]
            return view
