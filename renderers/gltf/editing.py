"""Extend a glTF file: its JSON as it is, and its binary data to append to. Written as one .glb."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from renderers.gltf.compression import MESHOPT
from renderers.gltf.document import Document
from renderers.gltf.limits import Limits
from renderers.gltf.writing import GlbBuffer

_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"\xabKTX", "image/ktx2"))


class GltfEditor(GlbBuffer):
    """A glTF file in memory, to which nodes, accessors, animations and so on are added.

    Everything that is in the file stays: lists are only appended to, and the bytes of its buffers and images are
    copied. Buffers and images in other files or in data: URIs of buffers are moved to the binary chunk.

    Attributes:
        document: the file as it was, for reading accessors.
        json: its JSON, to be edited. `views` and `accessors` of `GlbBuffer` are the lists in it.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        name: str | None = None,
        limits: Limits | None = None,
        root: Path | None = None,
    ) -> None:
        """Open a file.

        Args:
            source, name, limits, root: as for `renderers.gltf.load`.
        Raises:
            GltfError: a buffer or an image cannot be read.
        """
        super().__init__()
        self.document = Document.open(source, name, limits or Limits(), root)
        self.json: dict[str, Any] = copy.deepcopy(self.document.json)
        self.views = self.json.get("bufferViews", [])
        self.accessors = self.json.get("accessors", [])
        self._join_buffers()
        self._embed_images()

    def items(self, key: str) -> list[dict[str, Any]]:
        """Return a top-level list of the JSON to append to, created if absent."""
        return self.json.setdefault(key, [])

    def append(self, key: str, entry: dict[str, Any]) -> int:
        """Append to a top-level list; return the index."""
        self.items(key).append(entry)
        return len(self.items(key)) - 1

    def to_glb(self) -> bytes:
        """Return the bytes of the .glb file."""
        return self.glb(self.json)

    def _join_buffers(self) -> None:
        """Fill `data` with all buffers. Those without data, the fallbacks of compressed views, stay separate."""
        owners = self.json.get("buffers", [])
        empty = [
            index
            for index, owner in enumerate(owners)
            if owner.get("uri") is None and any(name in (owner.get("extensions") or {}) for name in MESHOPT)
        ]
        filled = [index for index in range(len(owners)) if index not in empty]
        starts: dict[int, int] = {}
        for index in filled:
            starts[index] = len(self.data)
            self.data += self.document.buffer(index).tobytes()
            self.data += b"\0" * (-len(self.data) % 4)
        numbers = {index: 0 for index in filled} | {index: n for n, index in enumerate(empty, 1)}
        for view in self.views:
            packed = [(view.get("extensions") or {}).get(name) for name in MESHOPT]
            for owner in (view, *filter(None, packed)):
                index = owner["buffer"]
                owner["buffer"] = numbers[index]
                if starts.get(index):
                    owner["byteOffset"] = owner.get("byteOffset", 0) + starts[index]
        first = dict(owners[filled[0]]) if filled else {}
        first.pop("uri", None)
        if owners or self.data:
            self.json["buffers"] = [first, *(owners[index] for index in empty)]

    def _embed_images(self) -> None:
        """Move images that are in other files to the binary chunk, byte by byte."""
        for index, image in enumerate(self.json.get("images", [])):
            uri = image.get("uri")
            if uri is None or uri.lstrip()[:5].lower() == "data:":
                continue
            data = self.document.from_uri(uri, f"images[{index}]")
            kind = next((mime for magic, mime in _MAGIC if data.startswith(magic)), None)
            if kind is None and data[:4] == b"RIFF":
                kind = "image/webp"
            del image["uri"]
            image |= {
                "bufferView": self.add_bytes(data),
                "mimeType": kind or image.get("mimeType", "image/png"),
            }
            image.setdefault("name", Path(uri).name)
