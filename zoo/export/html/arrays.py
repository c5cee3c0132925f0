"""Arrays of a page: 16-bit integers in one compressed block, and a JSON description that says how to read it.

Each array is quantised to 65 536 steps between the least and the largest value of each channel (its last axis), so
the error is at most half a step, 1/131 070 of the channel's range. To compress well, values may be stored as
differences along one axis, and the high bytes of all values precede the low bytes. `data.js` is the decoder of
browsers, `unpack` that of Python.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEVELS = 65535


@dataclass(frozen=True)
class Layout:
    """How an array is stored.

    Attributes:
        shape: of the array.
        offset: of its first byte in the decompressed block.
        low, step: per channel; value = low + step · integer.
        axis: along which differences (modulo 2^16) are stored, or -1.
    """

    shape: tuple[int, ...]
    offset: int
    low: tuple[float, ...]
    step: tuple[float, ...]
    axis: int = -1


def pack(arrays: dict[str, np.ndarray], differences: dict[str, int] | None = None) -> tuple[dict, str]:
    """Quantise and compress arrays.

    Args:
        arrays: by name; at least one-dimensional, finite. Integers in 0..65535 are stored exactly.
        differences: axis along which the array of this name varies little.

    Returns:
        The description, JSON-serialisable, and the block as base64.
    """
    description: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, values in arrays.items():
        integers, low, step = _quantise(values)
        axis = (differences or {}).get(name, -1)
        if axis >= 0:
            integers = np.diff(integers, axis=axis, prepend=np.uint16(0))  # modulo 2^16
        stored = integers.astype("<u2").reshape(-1).view(np.uint8).reshape(-1, 2)
        parts += [stored[:, 1].tobytes(), stored[:, 0].tobytes()]
        layout = Layout(values.shape, offset, tuple(low.tolist()), tuple(step.tolist()), axis)
        description[name] = asdict(layout)
        offset += 2 * values.size
    return description, base64.b64encode(zlib.compress(b"".join(parts), 9)).decode("ascii")


def unpack(description: dict, block: str) -> dict[str, np.ndarray]:
    """Read what `pack` returned: float64 arrays by name."""
    content = np.frombuffer(zlib.decompress(base64.b64decode(block)), np.uint8)
    arrays = {}
    for name, fields in description.items():
        layout = Layout(**fields)
        size = int(np.prod(layout.shape))
        high, low = content[layout.offset : layout.offset + 2 * size].reshape(2, size).astype(np.uint16)
        integers = (high << 8 | low).reshape(layout.shape)
        if layout.axis >= 0:
            integers = np.cumsum(integers, axis=layout.axis, dtype=np.uint16)
        arrays[name] = np.asarray(layout.low) + np.asarray(layout.step) * integers
    return arrays


def _quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers uint16 of the same shape, and the least value and the step of each channel."""
    if np.issubdtype(values.dtype, np.integer):
        if values.size and not 0 <= values.min() <= values.max() <= LEVELS:
            raise ValueError(f"expected integers in 0..{LEVELS}, got {values.min()}..{values.max()}")
        channels = values.shape[-1]
        return values.astype(np.uint16), np.zeros(channels), np.ones(channels)
    values = values.astype(np.float64)
    flat = values.reshape(-1, values.shape[-1])
    low, high = (flat.min(0), flat.max(0)) if flat.size else (np.zeros(flat.shape[1]),) * 2
    step = (high - low) / LEVELS
    integers = np.rint((values - low) / np.where(step > 0, step, 1.0))
    return integers.clip(0, LEVELS).astype(np.uint16), low, step
