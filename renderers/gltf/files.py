"""Reading of files: the GLB container, data: URIs, and files inside the asset's own folder.

The functions raise `GltfError` without the name of the asset, which `Document` adds.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import struct
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from renderers.arguments import instance
from renderers.gltf.limits import GltfError, UnsupportedGltf

_CHUNK_JSON, _CHUNK_BIN = 0x4E4F534A, 0x004E4942
_BIN = b"BIN\0"
_LONGEST_SYSTEM_PATH = 4096  # bytes, of Linux; other systems have less
_LONGEST_PATH = 300  # characters of a path in a message; a URI may have megabytes


PADDING = 3  # lengths are multiples of four: one that is up to three bytes off excludes or includes padding


def split_glb(data: bytes) -> tuple[bytes, bytes | None]:
    """Split a GLB into its JSON text and binary chunk; anything else is returned as JSON text.

    Lengths that are off by a few bytes of padding are accepted: their meaning is certain.
    """
    if data[:4] != b"glTF":
        return data, None
    if len(data) < 20:
        raise GltfError(
            f"GLB header truncated after {len(data)} bytes, expected at least 20; fetch the file again"
        )
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise UnsupportedGltf(f"GLB container version {version}, expected 2; convert it to glTF 2.0")
    if length > len(data) + PADDING:
        raise GltfError(
            f"GLB truncated: its header declares {length} bytes, got {len(data)}; fetch the file again"
        )
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        start, offset = offset + 8, offset + 8 + size
        if offset > min(length, len(data)) + PADDING:
            raise GltfError(
                f"GLB chunk at byte {start - 8} declares {size} bytes, but {length - start} remain; "
                "fetch or export the file again"
            )
        chunks.setdefault(kind, data[start:offset])
        aligned = offset + -size % 4
        if data[offset + 4 : offset + 8] != _BIN and data[aligned + 4 : aligned + 8] == _BIN:
            offset = aligned  # the length excludes the padding
    if _CHUNK_JSON not in chunks:
        raise GltfError("GLB without a JSON chunk, expected one as the first chunk; export the file again")
    return chunks[_CHUNK_JSON].rstrip(b"\0 \t\r\n"), chunks.get(_CHUNK_BIN)


def read_data_uri(uri: str) -> bytes:
    """Decode a URI that starts with "data:".

    Base64 may contain white space, may lack padding, may use the URL-safe alphabet, and may end with NUL. The media
    type and its parameters may be in any order and surrounded by spaces.
    """
    header, comma, payload = uri.partition(",")
    if not comma:
        raise GltfError("data URI without a comma; export the file again")
    data = urllib.parse.unquote_to_bytes(payload)
    parameters = header.partition(":")[2].lower().split(";")
    if "base64" not in map(str.strip, parameters):
        return data
    text = b"".join(data.rstrip(b"\0").split()).replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise GltfError(f"the data URI cannot be decoded ({reason(error)}); export the file again") from error


def read_relative_uri(uri: str, folder: Path | None, root: Path | None, limit: int) -> bytes:
    """Read a file by its URI.

    Args:
        uri: see `find_file`.
        folder: the resolved folder of the asset; None for an asset loaded from memory.
        root: the resolved folder that files are read from: `folder`, or one that contains it.
        limit: maximum size in bytes.
    Raises:
        GltfError: as for `find_file`, or the file cannot be read.
    """
    if folder is None or root is None:
        _checked_path(uri.rstrip("\0"))
        raise GltfError(
            f"{shorten(uri)} cannot be resolved for an asset loaded from memory; embed it (a .glb)"
        )
    return read_file(find_file(uri, folder, root), limit)


def find_file(uri: str, folder: Path, root: Path) -> Path:
    """Return the path that a URI refers to; the file may not exist.

    The URI is percent-decoded. Backslashes separate folders, as in files that were exported on Windows. If there is
    no such file, the first that exists is taken of the spellings in `_spellings`. A component that does not exist may
    differ from the only similar name in case or in Unicode normalisation.

    Args:
        uri: a relative, percent-encoded path.
        folder: the resolved folder of the asset.
        root: the resolved folder that files are read from: `folder`, or one that contains it.
    Raises:
        GltfError: the URI is absolute, has a scheme, or leads outside `root` (through links, too).
    """
    instance(uri, str, "find_file: uri")
    instance(folder, Path, "find_file: folder")
    instance(root, Path, "find_file: root")
    uri = uri.rstrip("\0")
    path = _checked_path(uri)
    first = _resolve(path, uri, folder, root)
    if os.path.isfile(first):
        return first
    for spelling in _spellings(uri, path):
        try:
            other = _resolve(_checked_path(spelling, decode=False), uri, folder, root)
        except GltfError:
            continue  # only the URI as it is decides what is refused
        if os.path.isfile(other):
            return other
    return first


def _spellings(uri: str, path: str) -> Iterator[str]:
    """Yield other readings of a URI as a path, most likely first, for a URI that names no file as it is.

    Args:
        uri: as it is in the file.
        path: percent-decoded.
    """
    yield uri  # written as it is, not percent-encoded
    if plain := re.split(r"[?#]", uri, maxsplit=1)[0]:
        yield urllib.parse.unquote(plain, errors="surrogateescape")  # with a query or a fragment
    yield path.strip()
    yield urllib.parse.unquote(path, errors="surrogateescape")  # encoded twice
    yield path.replace("+", " ")  # encoded as in a web form
    yield urllib.parse.unquote(uri, encoding="latin-1")
    yield urllib.parse.quote(path, safe="/%", errors="surrogateescape")  # the name of the file is encoded


def _checked_path(uri: str, decode: bool = True) -> str:
    """Percent-decode a relative URI; refuse absolute paths and schemes."""
    path = (urllib.parse.unquote(uri, errors="surrogateescape") if decode else uri).replace("\\", "/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:|/", path) or "\0" in path:
        raise GltfError(
            f"{shorten(uri)} is not a path relative to the asset, and other locations are not read; put the file "
            "beside the asset, or embed it (a .glb)"
        )
    return path


def _resolve(path: str, uri: str, folder: Path, root: Path) -> Path:
    """Resolve a relative path with "/" inside `root`, component by component."""
    if len(os.fsencode(path)) > _LONGEST_SYSTEM_PATH:  # resolving its components takes quadratic time
        raise GltfError(f"{shorten(uri)} cannot be resolved ({os.strerror(errno.ENAMETOOLONG)})")
    current = folder
    try:
        for part in path.split("/"):
            if part not in ("", ".", "..") and not os.path.lexists(current / part):
                part = _similar_name(current, part) if current.is_relative_to(root) else part
            current = (current / part).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise GltfError(f"{shorten(uri)} cannot be resolved ({reason(error)})") from error
    if not current.is_relative_to(root):
        place = "the asset's folder" if root == folder else "the source's folder"
        raise GltfError(f"{shorten(uri)} is outside {place}; put the file beside the asset")
    return current


def _similar_name(folder: Path, name: str) -> str:
    """Return the only name in a folder that equals `name` but for case and Unicode normalisation, else `name`."""
    try:
        names = [other for other in os.listdir(folder) if _folded(other) == _folded(name)]
    except OSError:
        return name
    return names[0] if len(names) == 1 else name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def read_file(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes."""
    name = path_text(path)
    name = name if len(name) <= _LONGEST_PATH else f"{name[: _LONGEST_PATH - 3]}..."
    try:
        if not path.is_file():
            raise GltfError(f"{name} is not a file; put the file there or correct the path")
        size = path.stat().st_size
        if size > limit:
            raise GltfError(
                f"{name} has {size} bytes, expected at most {limit}; simplify the asset or raise "
                "Limits.file_bytes"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, GltfError):
            raise
        text = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        raise GltfError(f"{name} cannot be read ({text})") from error


def path_text(path: str | Path) -> str:
    """Return a path as text that can be encoded: bytes of a name that are not UTF-8 become %E9 and so on."""
    return (
        re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", str(path))
        .encode("utf-8", "replace")
        .decode()
    )


def reason(error: BaseException) -> str:
    """Return the text of an error without the addresses of objects, which differ from run to run."""
    return path_text(re.sub(r"<([\w.]+)[^<>]* at 0x[0-9a-fA-F]+>", r"\1", str(error)))


def shorten(value: object) -> str:
    """Format a value of the file for an error message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
