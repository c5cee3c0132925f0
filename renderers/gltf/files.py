"""Reading of files: the GLB container, data: URIs, and files inside the asset's own folder.

The functions raise `GltfError` without the name of the asset, which `Document` adds.
"""

from __future__ import annotations

import base64
import re
import struct
import urllib.parse
from pathlib import Path

from renderers.gltf.limits import GltfError, UnsupportedGltf

_CHUNK_JSON, _CHUNK_BIN = 0x4E4F534A, 0x004E4942


def split_glb(data: bytes) -> tuple[bytes, bytes | None]:
    """Split a GLB into its JSON text and binary chunk; anything else is returned as JSON text."""
    if data[:4] != b"glTF":
        return data, None
    if len(data) < 20:
        raise GltfError(
            f"GLB header truncated after {len(data)} bytes, expected at least 20; fetch the file again"
        )
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise UnsupportedGltf(f"GLB container version {version}, expected 2; convert it to glTF 2.0")
    if length > len(data):
        raise GltfError(
            f"GLB truncated: its header declares {length} bytes, got {len(data)}; fetch the file again"
        )
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise GltfError(
                f"GLB chunk at byte {offset} declares {size} bytes, but {length - offset - 8} remain; "
                "fetch or export the file again"
            )
        chunks.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if _CHUNK_JSON not in chunks:
        raise GltfError("GLB without a JSON chunk, expected one as the first chunk; export the file again")
    return chunks[_CHUNK_JSON], chunks.get(_CHUNK_BIN)


def read_data_uri(uri: str) -> bytes:
    """Decode a URI that starts with "data:"."""
    header, comma, payload = uri.partition(",")
    if not comma:
        raise GltfError("data URI without a comma; export the file again")
    try:
        if header.endswith(";base64"):
            return base64.b64decode(urllib.parse.unquote_to_bytes(payload), validate=True)
        return urllib.parse.unquote_to_bytes(payload)
    except ValueError as error:
        raise GltfError(f"the data URI cannot be decoded ({error}); export the file again") from error


def read_relative_uri(uri: str, folder: Path | None, limit: int) -> bytes:
    """Read a file inside the asset's folder.

    Args:
        uri: a relative, percent-encoded path.
        folder: the resolved folder of the asset; None for an asset loaded from memory.
        limit: maximum size in bytes.
    Raises:
        GltfError: the URI is absolute, has a scheme, or leads outside the folder (through links, too), or the file
            cannot be read.
    """
    path = urllib.parse.unquote(uri)
    shown = shorten(uri)
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:|[/\\]", path) or "\\" in path or "\0" in path:
        raise GltfError(
            f"{shown} is not a path relative to the asset, and other locations are not read; put the file beside the "
            "asset, or embed it (a .glb)"
        )
    if folder is None:
        raise GltfError(f"{shown} cannot be resolved for an asset loaded from memory; embed it (a .glb)")
    try:
        target = (folder / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise GltfError(f"{shown} cannot be resolved ({error})") from error
    if not target.is_relative_to(folder):
        raise GltfError(f"{shown} is outside the asset's folder; put the file beside the asset")
    return read_file(target, limit)


def read_file(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes."""
    try:
        if not path.is_file():
            raise GltfError(f"{path} is not a file; put the file there or correct the path")
        size = path.stat().st_size
        if size > limit:
            raise GltfError(
                f"{path} has {size} bytes, expected at most {limit}; simplify the asset or raise Limits.file_bytes"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, GltfError):
            raise
        raise GltfError(f"{path} cannot be read ({error})") from error


def shorten(value: object) -> str:
    """Format a value of the file for an error message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
