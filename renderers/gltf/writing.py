"""Write .glb files: arrays are appended to one binary chunk as accessors."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

UINT8, INT16, UINT16, UINT32, FLOAT = 5121, 5122, 5123, 5125, 5126  # component types
_DTYPES = {UINT8: "u1", INT16: "<i2", UINT16: "<u2", UINT32: "<u4", FLOAT: "<f4"}


class GlbBuffer:
    """A binary chunk, and the buffer views and accessors of the arrays in it."""

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
    ) -> int:
        """Append an array as a new accessor.

        Args:
            array: [N, …], converted to the component type.
            kind: accessor type, "SCALAR", "VEC3" and so on.
            component: component type, such as `FLOAT`.
            target: target of the buffer view (34962 for vertex attributes, 34963 for indices), None to omit it.
            bounds: whether to write `min` and `max` (required for POSITION and key times).
            normalized: whether integers represent -1..1 or 0..1.
        Returns:
            The index of the accessor.
        """
        array = np.ascontiguousarray(array, _DTYPES[component])
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        self.data += array.tobytes()
        self.data += b"\0" * (-len(self.data) % 4)
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1, "componentType": component, "count": len(array), "type": kind
        }  # fmt: skip
        if normalized:
            accessor["normalized"] = True
        if bounds:
            columns = array.reshape(len(array), -1)
            accessor["min"] = [float(x) for x in columns.min(0)]
            accessor["max"] = [float(x) for x in columns.max(0)]
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """Return the bytes of the .glb file: the JSON `document` with the accessors, buffer views and buffer added."""
        document = document | {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.data), b"BIN\0") + bytes(self.data)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
