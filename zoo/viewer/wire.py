"""Responses with arrays: a JSON header and a binary block. `page/wire.js` is the decoder."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

ALIGNMENT = 8  # bytes; typed arrays of JavaScript must start at a multiple of their item size
_TYPES = ("float32", "uint32", "uint16", "uint8", "int8")

Part = tuple[dict[str, Any], dict[str, np.ndarray]]  # header and arrays


def encode(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Encode a header and arrays.

    The layout is: uint32, little-endian, the length of the JSON text; the JSON text, padded with spaces; the arrays,
    each aligned to `ALIGNMENT` bytes. The header's field "arrays" has the type, shape and offset of each array from the
    end of the JSON text.

    Args:
        header: JSON-serialisable.
        arrays: by name; float64 becomes float32, other types must be in `_TYPES`.

    Raises:
        TypeError: an array has another type.
        ValueError: an array or the header has NaN or infinity.
    """
    layout: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, values in arrays.items():
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        if values.dtype.name not in _TYPES:
            raise TypeError(f"{name}: expected an array of {', '.join(_TYPES)}, got {values.dtype}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{name}: has NaN or infinity")
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        layout[name] = {"type": values.dtype.name, "shape": list(values.shape), "offset": offset}
        padding = -len(data) % ALIGNMENT
        parts += [data, bytes(padding)]
        offset += len(data) + padding
    text = json.dumps({**header, "arrays": layout}, allow_nan=False).encode()
    text += b" " * (-(4 + len(text)) % ALIGNMENT)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])


def decode(data: bytes) -> Part:
    """Read what `encode` returned."""
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    arrays = {}
    for name, layout in header.pop("arrays").items():
        count = int(np.prod(layout["shape"]))
        start = 4 + length + layout["offset"]
        arrays[name] = np.frombuffer(data, layout["type"], count, start).reshape(layout["shape"])
    return header, arrays
