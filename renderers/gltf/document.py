"""The container side of glTF 2.0: JSON, buffers, accessors and images, read within limits.

Nothing here knows about poses. Everything a file says is checked before it is used to allocate, to index or
to open something, and every complaint names the asset. Files are read from the asset's own folder only.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
import urllib.parse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np


class GltfError(ValueError):
    """The file is not a usable glTF 2.0 asset. The message names the asset, the fault and what to do."""


class UnsupportedGltf(GltfError):
    """The file is valid but needs a feature that is not supported here. The message says what to do."""


@dataclass(frozen=True)
class Limits:
    """What a file may ask for at most, so that memory and time stay bounded whatever it contains.

    Attributes:
        file_bytes: the file and everything it refers to, together.
        json_values: values in the JSON part.
        nodes: nodes, joints over all skins, and mesh primitives over all nodes.
        vertices, triangles: over all instances, after conversion of strips and of missing normals.
        morph_vertices: vertices times morph targets, over all instances.
        skin_weights: numbers in the blocks of skin weights (vertices times the joints near them).
        key_values: numbers in all animation samplers.
        texture_side, texture_pixels: of one image, and of all images together.
    """

    file_bytes: int = 1 << 29
    json_values: int = 4_000_000
    nodes: int = 20_000
    vertices: int = 2_000_000
    triangles: int = 4_000_000
    morph_vertices: int = 1 << 25
    skin_weights: int = 1 << 27
    key_values: int = 1 << 25
    texture_side: int = 16_384
    texture_pixels: int = 1 << 28


_COMPONENTS = {
    5120: np.dtype("<i1"),
    5121: np.dtype("<u1"),
    5122: np.dtype("<i2"),
    5123: np.dtype("<u2"),
    5125: np.dtype("<u4"),
    5126: np.dtype("<f4"),
}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
MESHOPT = "EXT_meshopt_compression"
DRACO = "KHR_draco_mesh_compression"


class Document:
    """One opened glTF: checked access to its JSON, and its binary data on demand."""

    def __init__(self, data: bytes, name: str, folder: Path | None, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self._folder = folder.resolve() if folder else None
        self._bytes_left = limits.file_bytes - len(data)
        self._pixels_left = limits.texture_pixels
        self._lists: dict[str, list[dict]] = {}  # top-level lists that were checked
        self._buffers: dict[int, np.ndarray] = {}
        self._views: dict[int, np.ndarray] = {}
        self._images: dict[int, np.ndarray] = {}
        self._pixels: dict[bytes, np.ndarray] = {}  # by digest of the encoded image
        text, self._chunk = self._split(data)
        self.json = self._parse(text)

    @classmethod
    def open(cls, source: str | Path | bytes, name: str | None, limits: Limits) -> Document:
        if isinstance(source, bytes):
            name, folder, data = name or "glTF in memory", None, source
            if len(data) > limits.file_bytes:
                raise GltfError(f"{name}: {len(data)} bytes, expected at most {limits.file_bytes}")
            return cls(data, name, folder, limits)
        path = Path(source)
        name = name or path.name
        return cls(_read_file(path, name, limits.file_bytes), name, path.parent, limits)

    # --- complaints ---

    def fail(self, text: str) -> NoReturn:
        raise GltfError(f"{self.name}: {text}")

    def unsupported(self, text: str) -> NoReturn:
        raise UnsupportedGltf(f"{self.name}: {text}")

    def within(self, count: int, limit: str, what: str) -> None:
        """Fails if `count` is above the limit of that name."""
        allowed = getattr(self.limits, limit)
        if count > allowed:
            self.fail(
                f"{count} {what}, expected at most {allowed}; simplify the asset or raise Limits.{limit}"
            )

    # --- JSON ---

    def _split(self, data: bytes) -> tuple[bytes, bytes | None]:
        """JSON text and, of a GLB, the binary chunk."""
        if data[:4] != b"glTF":
            return data, None
        if len(data) < 20:
            self.fail(f"GLB header cut off after {len(data)} bytes, expected at least 20")
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            self.unsupported(f"GLB container version {version}, expected 2; convert it to glTF 2.0")
        if length > len(data):
            self.fail(f"GLB says it has {length} bytes, but {len(data)} came; fetch the file again")
        chunks: dict[int, bytes] = {}
        offset = 12
        while offset + 8 <= length:
            size, kind = struct.unpack_from("<II", data, offset)
            if offset + 8 + size > length:
                self.fail(
                    f"GLB chunk at byte {offset} says {size} bytes, but {length - offset - 8} are left; "
                    "fetch or export the file again"
                )
            chunks.setdefault(kind, data[offset + 8 : offset + 8 + size])
            offset += 8 + size
        if 0x4E4F534A not in chunks:
            self.fail("GLB without a JSON chunk, expected one as the first chunk; export the file again")
        return chunks[0x4E4F534A], chunks.get(0x004E4942)

    def _parse(self, text: bytes) -> dict:
        self.within(sum(text.count(mark) for mark in (b",", b"[", b"{")), "json_values", "JSON values")
        try:
            root = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            self.fail(f"not glTF: expected GLB or JSON, the JSON does not parse ({error})")
        if not isinstance(root, dict):
            self.fail("not glTF: expected a JSON object at the top")
        asset = root.get("asset")
        version = asset.get("version") if isinstance(asset, dict) else None
        if not isinstance(version, str):
            self.fail("asset.version is missing, expected '2.0'; is this a glTF file?")
        if version.split(".")[0] != "2":
            self.unsupported(f"glTF version {version[:20]!r}, expected '2.0'; convert it to glTF 2.0")
        return root

    def items(self, key: str, owner: dict | None = None, where: str = "") -> list[dict]:
        """A list of objects, `[]` if absent."""
        if owner is None and key in self._lists:
            return self._lists[key]
        value = (self.json if owner is None else owner).get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(f"{where}{key}: expected a list of objects")
        if owner is None:
            self._lists[key] = value
        return value

    def child(self, owner: dict, key: str, where: str) -> dict | None:
        value = owner.get(key)
        if value is not None and not isinstance(value, dict):
            self.fail(f"{where}.{key}: expected an object, got {_show(value)}")
        return value

    def extension(self, owner: dict, name: str, where: str) -> dict | None:
        extensions = self.child(owner, "extensions", where)
        return self.child(extensions, name, f"{where}.extensions") if extensions else None

    def text(self, owner: dict, key: str, default: str) -> str:
        """A string that only informs (a name): anything else counts as absent."""
        value = owner.get(key)
        return value if isinstance(value, str) else default

    def integer(self, owner: dict, key: str, default: int | None, where: str) -> int:
        value = owner.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(f"{where}.{key}: expected an integer from 0, got {_show(value)}")
        return value

    def index(self, owner: dict, key: str, collection: str, where: str) -> int | None:
        """An index into a top-level list, None if absent."""
        if owner.get(key) is None:
            return None
        value = self.integer(owner, key, None, where)
        count = len(self.items(collection))
        if value >= count:
            self.fail(f"{where}.{key}: expected an index below {count} ({collection}), got {value}")
        return value

    def indices(self, owner: dict, key: str, collection: str, where: str) -> list[int]:
        """A list of indices into a top-level list, `[]` if absent."""
        values = owner.get(key, [])
        if not isinstance(values, list):
            self.fail(f"{where}.{key}: expected a list, got {_show(values)}")
        if None in values:
            self.fail(f"{where}.{key}: expected indices, got null")
        return [self.index({key: value}, key, collection, where) for value in values]

    def number(self, owner: dict, key: str, default: float, where: str) -> float:
        return float(self.vector({key: [owner.get(key, default)]}, key, [default], where)[0])

    def vector(self, owner: dict, key: str, default: Any, where: str) -> np.ndarray:
        """float64 [len(default)], finite; `default` if absent."""
        values = owner.get(key)
        if values is None:
            return np.array(default, np.float64)
        if isinstance(values, list) and len(values) == len(default):
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
                if all(abs(v) < 1e30 for v in values):  # also false for NaN
                    return np.array(values, np.float64)
        self.fail(f"{where}.{key}: expected {len(default)} finite numbers, got {_show(values)}")

    # --- binary data ---

    def _from_uri(self, uri: Any, where: str) -> bytes:
        """Bytes of a data: URI or of a file inside the asset's folder."""
        if not isinstance(uri, str):
            self.fail(f"{where}.uri: expected a string, got {_show(uri)}")
        if uri.startswith("data:"):
            header, comma, payload = uri.partition(",")
            if not comma:
                self.fail(f"{where}.uri: data URI without a comma")
            try:
                if header.endswith(";base64"):
                    return base64.b64decode(urllib.parse.unquote_to_bytes(payload), validate=True)
                return urllib.parse.unquote_to_bytes(payload)
            except ValueError as error:
                self.fail(f"{where}.uri: data URI does not decode ({error})")
        path = urllib.parse.unquote(uri)
        if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:|[/\\]", path) or "\\" in path or "\0" in path:
            self.fail(
                f"{where}.uri: {_show(uri)} is not a path relative to the asset; nothing is fetched from "
                "elsewhere: put the file beside the asset, or embed it (a .glb)"
            )
        if self._folder is None:
            self.fail(f"{where}.uri: {_show(uri)} cannot be found from an asset in memory; embed it (a .glb)")
        try:
            target = (self._folder / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            self.fail(f"{where}.uri: {_show(uri)} cannot be resolved ({error})")
        if not target.is_relative_to(self._folder):
            self.fail(f"{where}.uri: {_show(uri)} leaves the asset's folder; put the file beside the asset")
        data = _read_file(target, f"{self.name}: {where}", self._bytes_left)
        self._bytes_left -= len(data)
        return data

    def _buffer(self, index: int) -> np.ndarray:
        if index not in self._buffers:
            where = f"buffers[{index}]"
            owner = self.items("buffers")[index]
            if owner.get("uri") is not None:
                data = self._from_uri(owner["uri"], where)
            elif index == 0 and self._chunk is not None:
                data = self._chunk
            else:
                self.fail(f"{where} has neither a uri nor a GLB binary chunk; export the file again")
            length = self.integer(owner, "byteLength", None, where)
            if length > len(data):
                self.fail(f"{where}.byteLength is {length}, but only {len(data)} bytes are there")
            self._buffers[index] = np.frombuffer(data, np.uint8)[:length]
        return self._buffers[index]

    def _slice(self, owner: dict, where: str) -> np.ndarray:
        """The bytes that `buffer`, `byteOffset` and `byteLength` name."""
        buffer_index = self.index(owner, "buffer", "buffers", where)
        if buffer_index is None:
            self.fail(f"{where}.buffer is missing")
        buffer = self._buffer(buffer_index)
        offset = self.integer(owner, "byteOffset", 0, where)
        length = self.integer(owner, "byteLength", None, where)
        if offset + length > len(buffer):
            self.fail(
                f"{where} ends at byte {offset + length}, but buffers[{buffer_index}] has {len(buffer)} bytes"
            )
        return buffer[offset : offset + length]

    def view(self, index: int) -> np.ndarray:
        """The bytes of a buffer view, uint8 [n], decompressed."""
        if index not in self._views:
            where = f"bufferViews[{index}]"
            owner = self.items("bufferViews")[index]
            packed = self.extension(owner, MESHOPT, where)
            self._views[index] = (
                self._slice(owner, where) if packed is None else self._meshopt(packed, f"{where}.{MESHOPT}")
            )
        return self._views[index]

    def _meshopt(self, packed: dict, where: str) -> np.ndarray:
        meshoptimizer = self._library("meshoptimizer", MESHOPT)
        data = self._slice(packed, where)
        count = self.integer(packed, "count", None, where)
        stride = self.integer(packed, "byteStride", None, where)
        mode = packed.get("mode")
        self.within(count * stride, "file_bytes", f"bytes decompressed from {where}")
        try:
            if mode == "ATTRIBUTES" and 0 < stride <= 256 and stride % 4 == 0:
                out = meshoptimizer.decode_vertex_buffer(
                    count, stride, data.tobytes(), np.dtype((np.void, stride))
                )
                unpack, strides = {
                    "NONE": (None, None),
                    "OCTAHEDRAL": (meshoptimizer.decode_filter_oct, (4, 8)),
                    "QUATERNION": (meshoptimizer.decode_filter_quat, (8,)),
                    "EXPONENTIAL": (meshoptimizer.decode_filter_exp, range(4, 257, 4)),
                }.get(self.text(packed, "filter", "NONE"), (None, ()))
                if strides is not None:
                    if stride not in strides:
                        self.fail(f"{where}: filter {_show(packed.get('filter'))} with byteStride {stride}")
                    out = unpack(out, count, stride)
            elif mode == "TRIANGLES" and stride in (2, 4) and count % 3 == 0:
                out = meshoptimizer.decode_index_buffer(count, stride, data.tobytes())
            elif mode == "INDICES" and stride in (2, 4):
                out = meshoptimizer.decode_index_sequence(count, stride, data.tobytes())
            else:
                self.fail(f"{where}: mode {_show(mode)} with byteStride {stride} and count {count}")
        except (RuntimeError, ValueError) as error:
            if isinstance(error, GltfError):
                raise
            self.fail(f"{where} does not decode ({error}); export the file again")
        return np.ascontiguousarray(out).view(np.uint8).reshape(-1)[: count * stride]

    def _library(self, module: str, feature: str):
        try:
            return __import__(module)
        except ImportError:
            self.unsupported(
                f"{feature} needs the package {module}, which is not installed: "
                "pip install 'menagerie4d[render]'"
            )

    # --- accessors ---

    def count(self, index: int) -> int:
        """How many elements an accessor has."""
        return self.integer(self.items("accessors")[index], "count", None, f"accessors[{index}]")

    def _elements(self, view: int, offset: int, count: int, dtype: np.dtype, width: int, where: str):
        """[count, width] of `dtype`, read with the view's stride."""
        data = self.view(view)
        owner = self.items("bufferViews")[view]
        size = dtype.itemsize * width
        stride = self.integer(owner, "byteStride", 0, f"bufferViews[{view}]") or size
        if stride < size:
            self.fail(f"bufferViews[{view}].byteStride is {stride}, expected at least {size} for {where}")
        if count and offset + (count - 1) * stride + size > len(data):
            self.fail(
                f"{where} needs {offset + (count - 1) * stride + size} bytes, "
                f"but bufferViews[{view}] has {len(data)}"
            )
        return np.ndarray(
            (count, width), dtype, data, offset if count else 0, strides=(stride, dtype.itemsize)
        )

    def _raw(self, index: int, count: int, types: tuple[str, ...], where: str) -> tuple[np.ndarray, bool]:
        """An accessor's numbers [count, width] as stored, sparse ones put in, and whether normalised.

        The caller knows how many it needs and has held that against the limits: nothing is read otherwise.
        """
        owner = self.items("accessors")[index]
        here = f"accessors[{index}] ({where})"
        kind, component = owner.get("type"), owner.get("componentType")
        if kind not in types:
            self.fail(f"{here}.type: expected {' or '.join(types)}, got {_show(kind)}")
        if not isinstance(component, int) or component not in _COMPONENTS:
            self.fail(f"{here}.componentType: expected one of {list(_COMPONENTS)}, got {_show(component)}")
        if self.count(index) != count:
            self.fail(f"{here} has {self.count(index)} elements, expected {count}; export the asset again")
        dtype, width = _COMPONENTS[component], _WIDTHS[kind]
        view = self.index(owner, "bufferView", "bufferViews", here)
        if view is None:
            values = np.zeros((count, width), dtype)
        else:
            offset = self.integer(owner, "byteOffset", 0, here)
            values = self._elements(view, offset, count, dtype, width, here)
        sparse = self.child(owner, "sparse", here)
        if sparse is not None:
            values = values.copy()
            rows, replacements = self._sparse(sparse, count, dtype, width, f"{here}.sparse")
            values[rows] = replacements
        return values, owner.get("normalized") is True

    def _sparse(self, sparse: dict, count: int, dtype: np.dtype, width: int, where: str):
        number = self.integer(sparse, "count", None, where)
        if number > count:
            self.fail(f"{where}.count is {number}, expected at most {count}")
        parts = []
        for key, part_width in (("indices", 1), ("values", width)):
            part = self.child(sparse, key, where) or {}
            here = f"{where}.{key}"
            part_dtype = dtype
            if key == "indices":
                part_dtype = _COMPONENTS.get(self.integer(part, "componentType", None, here))
            view = self.index(part, "bufferView", "bufferViews", here)
            if view is None or part_dtype is None or (key == "indices" and part_dtype.kind != "u"):
                self.fail(f"{here}: expected a bufferView and, for indices, an unsigned componentType")
            offset = self.integer(part, "byteOffset", 0, here)
            parts.append(self._elements(view, offset, number, part_dtype, part_width, here))
        rows = parts[0][:, 0].astype(np.int64)
        if number and rows.max() >= count:
            self.fail(f"{where}.indices: {rows.max()} is out of range, expected below {count}")
        return rows, parts[1]

    def floats(self, index: int, count: int, types: tuple[str, ...], where: str) -> np.ndarray:
        """An accessor of `count` elements as finite float32 [count, width]; normalised integers in -1..1."""
        return self.as_floats(index, *self._raw(index, count, types, where), where)

    def as_floats(self, index: int, values: np.ndarray, normalised: bool, where: str) -> np.ndarray:
        floats = values.astype(np.float32)
        if values.dtype.kind == "f" and not np.isfinite(floats).all():
            self.fail(f"accessors[{index}] ({where}) contains NaN or infinity; export the asset again")
        if values.dtype.kind != "f" and normalised:
            floats = np.maximum(floats / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
        return floats

    def unsigned(self, index: int, count: int, types: tuple[str, ...], where: str) -> np.ndarray:
        """An accessor of `count` unsigned integers or vectors of them as int64 [count, width]."""
        values, _ = self._raw(index, count, types, where)
        if values.dtype.kind != "u":
            self.fail(f"accessors[{index}] ({where}): expected unsigned integers, got {values.dtype}")
        return values.astype(np.int64)

    # --- Draco ---

    def draco(self, packed: dict, vertices: int, triangles: int, where: str):
        """A Draco mesh: triangles int64 [F, 3], and a function from attribute id to its array [N, width]."""
        library = self._library("DracoPy", DRACO)
        view = self.index(packed, "bufferView", "bufferViews", where)
        if view is None:
            self.fail(f"{where}.bufferView is missing")
        data = self.view(view).tobytes()
        faces, points = _draco_counts(data)
        # A small file may claim a huge mesh; the accessors that passed the limits say what to expect.
        if faces > max(triangles, 1) or points > max(vertices, 3 * triangles, 1):
            self.fail(
                f"{where}: the data holds {faces} triangles and {points} vertices, "
                f"the accessors {triangles} and {vertices}; export the asset again"
            )
        try:
            mesh = library.decode(data)
            found = {item["unique_id"]: np.asarray(item["data"]) for item in mesh.attributes}
            corners = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        except Exception as error:  # the bindings raise half a dozen unrelated types
            self.fail(f"{where} does not decode ({error}); export the asset again")

        def attribute(key: int) -> np.ndarray:
            if key not in found or len(found[key]) != vertices:
                self.fail(
                    f"{where}: expected an attribute {key} of {vertices} vertices, the data holds "
                    f"{ {k: len(v) for k, v in found.items()} }; export the asset again"
                )
            return found[key].reshape(vertices, -1)

        return corners, attribute

    # --- images ---

    def image(self, index: int) -> np.ndarray:
        """Pixels uint8 [H, W, 4] as stored; equal images are one array."""
        if index not in self._images:
            self._images[index] = self._read_image(index)
        return self._images[index]

    def _read_image(self, index: int) -> np.ndarray:
        where = f"images[{index}]"
        owner = self.items("images")[index]
        view = self.index(owner, "bufferView", "bufferViews", where)
        if view is not None:
            data = self.view(view).tobytes()
        elif owner.get("uri") is not None:
            data = self._from_uri(owner["uri"], where)
        else:
            self.fail(f"{where} has neither a bufferView nor a uri; export the asset again")
        digest = hashlib.sha256(data).digest()
        if digest not in self._pixels:
            self._pixels[digest] = self._decode_image(data, where)
        return self._pixels[digest]

    def _decode_image(self, data: bytes, where: str) -> np.ndarray:
        from PIL import Image

        side = self.limits.texture_side
        if data[:12] == b"\xabKTX 20\xbb\r\n\x1a\n":
            self.unsupported(f"{where} is a KTX2 texture; export it with PNG, JPEG or WebP textures")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                picture = Image.open(io.BytesIO(data), formats=_IMAGE_FORMATS)
                width, height = picture.size
                if max(width, height) > side:
                    self.fail(
                        f"{where} is {width} x {height} pixels, expected at most {side} a side; "
                        "scale it down or raise Limits.texture_side"
                    )
                if width * height > self._pixels_left:
                    self.fail(
                        f"{where} is {width} x {height} pixels, which brings the textures to more than "
                        f"{self.limits.texture_pixels}; scale them down or raise Limits.texture_pixels"
                    )
                self._pixels_left -= width * height
                if picture.mode.startswith("I"):  # 16-bit grey, which PIL would clip, not scale
                    grey = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                    picture = Image.fromarray(grey)
                pixels = np.array(picture.convert("RGBA"))
        except GltfError:
            raise
        except Image.DecompressionBombError as error:
            self.fail(f"{where} is too large: {error}; expected at most {side} pixels a side; scale it down")
        except Exception as error:  # a broken image makes PIL raise nearly anything
            self.fail(
                f"{where} does not decode as {', '.join(_IMAGE_FORMATS)} "
                f"({type(error).__name__}: {error}); replace it"
            )
        pixels.setflags(write=False)
        return pixels


def _read_file(path: Path, name: str, limit: int) -> bytes:
    try:
        if not path.is_file():
            raise GltfError(f"{name}: {path} is not a file; put it there or correct the path")
        size = path.stat().st_size
        if size > limit:
            raise GltfError(
                f"{name}: {path} has {size} bytes, expected at most {limit}; "
                "simplify the asset or raise Limits.file_bytes"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, GltfError):
            raise
        raise GltfError(f"{name}: {path} cannot be read ({error})") from error


def _show(value: Any) -> str:
    """A value of the file for a message, kept short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _draco_counts(data: bytes) -> tuple[int, int]:
    """Triangles and points that a Draco bitstream claims (its header; 0, 0 if it is no Draco mesh).

    Bitstream 2.2: "DRACO", major, minor, geometry type, method, flags; the edge breaker (method 1) follows
    with its traversal type, vertices and faces, the sequential method with faces and points, as varints.
    """
    flags = struct.unpack_from("<H", data, 9)[0] if len(data) > 11 else 0
    if data[:5] != b"DRACO" or tuple(data[5:7]) < (2, 2) or flags & 0x8000:
        return 0, 0  # older, or metadata lies in between: the decoder's own checks have to do
    offset, method = 11, data[8]
    if method == 1:
        offset += 1
    numbers = []
    for _ in range(2):
        value, shift = 0, 0
        while offset < len(data) and shift < 63:
            byte = data[offset]
            value |= (byte & 0x7F) << shift
            offset, shift = offset + 1, shift + 7
            if not byte & 0x80:
                break
        numbers.append(value)
    first, second = numbers
    return (second, first) if method == 1 else (first, second)
