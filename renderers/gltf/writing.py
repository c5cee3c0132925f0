"""Write .glb files: arrays are appended to one binary chunk as accessors."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

UINT8, INT16, UINT16, UINT32, FLOAT = 5121, 5122, 5123, 5125, 5126  # component types
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963  # targets of buffer views
_DTYPES = {UINT8: "u1", INT16: "<i2", UINT16: "<u2", UINT32: "<u4", FLOAT: "<f4"}


class GlbBuffer:
    """A binary chunk, and the buffer views and accessors of the arrays in it."""

    _joined = -1  # index of the last view that was opened for joined arrays

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(
        self,
        array: np.ndarray,
        kind: str,
        component: int = FLOAT,
        target: int | None = None,
        *,
        bounds: bool = False,
        normalized: bool = False,
        joined: bool = False,
    ) -> int:
        """Append an array as a new accessor.

        Args:
            array: [N, …], converted to the component type.
            kind: accessor type, "SCALAR", "VEC3" and so on.
            component: component type, such as `FLOAT`.
            target: target of the buffer view (34962 for vertex attributes, 34963 for indices), None to omit it.
            bounds: whether to write `min` and `max` (required for POSITION and key times).
            normalized: whether integers represent -1..1 or 0..1.
            joined: append to the last buffer view if it was also `joined`, which keeps the JSON of many small arrays
                short. Not for vertex attributes and indices.
        Returns:
            The index of the accessor.
        """
        array = np.ascontiguousarray(array, _DTYPES[component])
        view, offset = self._append(array.tobytes(), target, joined)
        accessor: dict[str, Any] = {
            "bufferView": view, "componentType": component, "count": len(array), "type": kind
        }  # fmt: skip
        if offset:
            accessor["byteOffset"] = offset
        if normalized:
            accessor["normalized"] = True
        if bounds:
            columns = array.reshape(len(array), -1)
            accessor["min"] = [float(x) for x in columns.min(0)]
            accessor["max"] = [float(x) for x in columns.max(0)]
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_sparse(self, rows: np.ndarray, values: np.ndarray, count: int, kind: str) -> int:
        """Append a float accessor that is zero except in some rows; it always has `min` and `max`.

        Args:
            rows: int [n], ascending.
            values: [n, width].
            count: number of elements.
            kind: accessor type.
        Returns:
            The index of the accessor.
        """
        values = np.ascontiguousarray(values, "<f4")
        zero = np.zeros((1 if len(rows) < count else 0, values.shape[1]), np.float32)
        bounded = np.concatenate([values, zero])
        accessor: dict[str, Any] = {
            "componentType": FLOAT, "count": count, "type": kind,
            "min": [float(x) for x in bounded.min(0)], "max": [float(x) for x in bounded.max(0)],
        }  # fmt: skip
        if len(rows):
            component = UINT16 if count <= 1 << 16 else UINT32
            indices = np.ascontiguousarray(rows, _DTYPES[component])
            accessor["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": self.add_bytes(indices.tobytes()), "componentType": component},
                "values": {"bufferView": self.add_bytes(values.tobytes())},
            }
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_bytes(self, data: bytes) -> int:
        """Append bytes, such as those of an image, as a new buffer view; return its index."""
        return self._append(data, None, False)[0]

    def _append(self, data: bytes, target: int | None, joined: bool) -> tuple[int, int]:
        """Append bytes, padded to four; return the index of their buffer view and their offset in it."""
        start = len(self.data)
        self.data += data
        self.data += b"\0" * (-len(self.data) % 4)
        if joined and self.views and self._joined == len(self.views) - 1:
            view = self.views[-1]
            offset = start - view["byteOffset"]
            view["byteLength"] = offset + len(data)
            return len(self.views) - 1, offset
        view = {"buffer": 0, "byteOffset": start, "byteLength": len(data)}
        self.views.append(view | ({"target": target} if target else {}))
        if joined:
            self._joined = len(self.views) - 1
        return len(self.views) - 1, 0

    def glb(self, document: dict[str, Any]) -> bytes:
        """Return the bytes of the .glb file: the JSON `document` with the accessors, buffer views and buffer added.

        Of `document["buffers"]`, the first keeps its other members, and the rest are kept.
        """
        first, *others = document.get("buffers") or [{}]
        if self.data:
            first, others = first | {"byteLength": len(self.data)}, others
            document = document | {
                "accessors": self.accessors,
                "bufferViews": self.views,
                "buffers": [first, *others],
            }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.data), b"BIN\0") + bytes(self.data)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
