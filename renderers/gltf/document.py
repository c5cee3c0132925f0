"""Checked access to the contents of a glTF 2.0 file: JSON, buffers, accessors and images, within limits.

This layer does not interpret nodes, meshes or animations. Every value of the file is validated before it is used to
allocate memory, to index an array or to open a file, and every error names the asset. Only files inside the asset's own
folder are read.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from renderers.gltf.compression import MESHOPT, decode_draco, decode_meshopt
from renderers.gltf.files import (
    PADDING,
    path_text,
    read_data_uri,
    read_file,
    read_relative_uri,
    shorten,
    split_glb,
)
from renderers.gltf.formats import SNIFFED_BYTES, identify
from renderers.gltf.images import UndecodableImage, decode_image
from renderers.gltf.json_text import parse_json
from renderers.gltf.limits import GltfError, LimitExceeded, Limits, UnsupportedGltf, errors_prefixed

# componentType → element type; accessor type → number of components.
_CODES, _TYPES = (5120, 5121, 5122, 5123, 5125, 5126), ("<i1", "<u1", "<i2", "<u2", "<u4", "<f4")
_COMPONENTS = dict(zip(_CODES, map(np.dtype, _TYPES), strict=True))
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MOST_NOTES = 50


class Document:
    """One open glTF file: validated access to its JSON, and its binary data on demand.

    Methods take `where`, the path of a value in the file (such as "meshes[0].primitives[1]"), for error messages.
    """

    def __init__(
        self, data: bytes, name: str, folder: Path | None, limits: Limits, root: Path | None = None
    ) -> None:
        self.name = name
        self.limits = limits
        self._folder = folder.resolve() if folder else None
        self._root = root.resolve() if root and folder else self._folder
        self._bytes_left = limits.file_bytes - len(data)
        self._pixels_left = limits.texture_pixels
        self._lists: dict[str, list[dict]] = {}  # top-level lists that have been validated
        self._buffers: dict[int, np.ndarray] = {}
        self._views: dict[int, np.ndarray] = {}
        self._images: dict[int, np.ndarray | None] = {}
        self._pixels: dict[bytes, np.ndarray | None] = {}  # by SHA-256 of the encoded image
        self.notes: list[str] = []
        with errors_prefixed(name):
            text, self._chunk = split_glb(data)
        self._head = data[:SNIFFED_BYTES]
        self.json = self._parse(text)

    @classmethod
    def open(
        cls, source: str | Path | bytes, name: str | None, limits: Limits, root: Path | None = None
    ) -> Document:
        """Open a file, or the bytes of a file that references no other.

        Args:
            name: name of the asset in error messages; None is the file's name.
            root: folder that referenced files may be in; None is the file's own folder.
        """
        if isinstance(source, bytes):
            name, folder, data = name or "glTF in memory", None, source
            if len(data) > limits.file_bytes:
                raise GltfError(f"{name}: {len(data)} bytes, expected at most {limits.file_bytes}")
            return cls(data, name, folder, limits)
        path = Path(source)
        name = name or path_text(path.name)
        with errors_prefixed(name):
            data = read_file(path, limits.file_bytes)
        return cls(data, name, path.parent, limits, root)

    # --- errors ---

    def fail(self, text: str) -> NoReturn:
        """Raise `GltfError` with the name of the asset."""
        raise GltfError(f"{self.name}: {text}")

    def unsupported(self, text: str) -> NoReturn:
        """Raise `UnsupportedGltf` with the name of the asset."""
        raise UnsupportedGltf(f"{self.name}: {text}")

    def note(self, sentence: str) -> None:
        """Record how the asset will differ from what the file specifies, once per sentence (see `Asset.notes`)."""
        if sentence not in self.notes and len(self.notes) < _MOST_NOTES:
            self.notes.append(sentence)

    def within(self, count: int, limit: str, unit: str) -> None:
        """Raise `LimitExceeded` if a number of `unit` exceeds the field `limit` of `Limits`."""
        allowed = getattr(self.limits, limit)
        if count > allowed:
            raise LimitExceeded(
                f"{self.name}: {count} {unit}, expected at most {allowed}; simplify the asset or raise Limits.{limit}"
            )

    def _naming(self, where: str) -> AbstractContextManager[None]:
        """Prepend the asset's name and the place in the file to errors of the functions in other modules."""
        return errors_prefixed(f"{self.name}: {where}")

    # --- JSON ---

    def _parse(self, text: bytes) -> dict:
        if not self._head.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"glTF", b"{")):
            self._refuse_other_formats()
        self.within(sum(text.count(mark) for mark in (b",", b"[", b"{")), "json_values", "JSON values")
        try:
            with errors_prefixed(self.name):
                return parse_json(text)
        except GltfError:
            self._refuse_other_formats()
            raise

    def _refuse_other_formats(self) -> None:
        """Raise `GltfError` if the file is of another format that is recognised."""
        if kind := identify(self._head, self.name):
            self.fail(f"not a glTF file: {kind}")

    def items(self, key: str, owner: dict | None = None, where: str = "") -> list[dict]:
        """Return a list of objects, `[]` if absent: a top-level one, or one of `owner`. Null entries become `{}`."""
        if owner is None and key in self._lists:
            return self._lists[key]
        value = (self.json if owner is None else owner).get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict | None) for item in value):
            self.fail(f"{where}{key}: expected a list of objects")
        value = [item or {} for item in value]
        if owner is None:
            self._lists[key] = value
        return value

    def child(self, owner: dict, key: str, where: str) -> dict | None:
        """Return an object, None if absent or `[]`, which programs in PHP and Lua write for an empty object."""
        value = None if owner.get(key) == [] else owner.get(key)
        if value is not None and not isinstance(value, dict):
            self.fail(f"{where}.{key}: expected an object, got {shorten(value)}")
        return value

    def extension(self, owner: dict, name: str, where: str) -> dict | None:
        """Return the object of an extension, None if absent."""
        extensions = self.child(owner, "extensions", where)
        return self.child(extensions, name, f"{where}.extensions") if extensions else None

    def text(self, owner: dict, key: str, default: str) -> str:
        """Return an informative string (such as a name); a value of another type counts as absent.

        Lone surrogates, which JSON can express and UTF-8 cannot, become "?".
        """
        value = owner.get(key)
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else default

    def integer(self, owner: dict, key: str, default: int | None, where: str) -> int:
        """Return an integer >= 0; required if `default` is None."""
        value = owner.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(f"{where}.{key}: expected an integer >= 0, got {shorten(value)}")
        return value

    def index(self, owner: dict, key: str, collection: str, where: str) -> int | None:
        """Return an index into the top-level list `collection`, None if absent."""
        if owner.get(key) is None:
            return None
        value = self.integer(owner, key, None, where)
        count = len(self.items(collection))
        if value >= count:
            self.fail(f"{where}.{key}: expected an index below {count} ({collection}), got {value}")
        return value

    def indices(self, owner: dict, key: str, collection: str, where: str) -> list[int]:
        """Return a list of indices into the top-level list `collection`, `[]` if absent."""
        values = owner.get(key, [])
        if not isinstance(values, list):
            self.fail(f"{where}.{key}: expected a list, got {shorten(values)}")
        if None in values:
            self.fail(f"{where}.{key}: expected indices, got null")
        indices = [self.index({key: value}, key, collection, where) for value in values]
        return [index for index in indices if index is not None]

    def number(self, owner: dict, key: str, default: float, where: str) -> float:
        """Return a finite number."""
        return float(self.vector({key: [owner.get(key, default)]}, key, [default], where)[0])

    def vector(self, owner: dict, key: str, default: Any, where: str) -> np.ndarray:
        """Return finite numbers, float64 [len(default)]; `default` if absent."""
        values = owner.get(key)
        if values is None:
            return np.array(default, np.float64)
        if isinstance(values, list) and len(values) == len(default):
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
                if all(abs(v) < 1e30 for v in values):  # also false for NaN
                    return np.array(values, np.float64)
        self.fail(f"{where}.{key}: expected {len(default)} finite numbers, got {shorten(values)}")

    # --- binary data ---

    def from_uri(self, uri: Any, where: str) -> bytes:
        """Read a data: URI or a file inside the asset's folder."""
        if not isinstance(uri, str):
            self.fail(f"{where}.uri: expected a string, got {shorten(uri)}")
        with self._naming(f"{where}.uri"):
            if uri.lstrip()[:5].lower() == "data:":
                return read_data_uri(uri)
            data = read_relative_uri(uri, self._folder, self._root, self._bytes_left)
        self._bytes_left -= len(data)
        return data

    def buffer(self, index: int) -> np.ndarray:
        """Return the bytes of a buffer, uint8 [n]."""
        if index not in self._buffers:
            where = f"buffers[{index}]"
            owner = self.items("buffers")[index]
            if owner.get("uri") is not None:
                data = self.from_uri(owner["uri"], where)
            elif index == 0 and self._chunk is not None:
                data = self._chunk
            else:
                self.fail(f"{where} has neither a uri nor a GLB binary chunk; export the file again")
            length = self.integer(owner, "byteLength", None, where)
            if length > len(data) + PADDING:
                self.fail(
                    f"{where}.byteLength is {length}, but the data has {len(data)} bytes; export the file again"
                )
            self._buffers[index] = np.frombuffer(data, np.uint8)[:length]
        return self._buffers[index]

    def _slice(self, owner: dict, where: str) -> np.ndarray:
        """Return the bytes given by `buffer`, `byteOffset` and `byteLength`."""
        buffer_index = self.index(owner, "buffer", "buffers", where)
        if buffer_index is None:
            self.fail(f"{where}.buffer is missing")
        buffer = self.buffer(buffer_index)
        offset = self.integer(owner, "byteOffset", 0, where)
        length = self.integer(owner, "byteLength", None, where)
        if offset + length > len(buffer) + PADDING:
            self.fail(
                f"{where} ends at byte {offset + length}, but buffers[{buffer_index}] has {len(buffer)} bytes"
            )
        return buffer[offset : offset + length]

    def view(self, index: int) -> np.ndarray:
        """Return the bytes of a buffer view, uint8 [n], decompressed."""
        if index not in self._views:
            where = f"bufferViews[{index}]"
            owner = self.items("bufferViews")[index]
            for name in MESHOPT:
                packed = self.extension(owner, name, where)
                if packed is not None:
                    self._views[index] = self._meshopt(packed, f"{where}.{name}")
                    break
            else:
                self._views[index] = self._slice(owner, where)
        return self._views[index]

    def _meshopt(self, packed: dict, where: str) -> np.ndarray:
        data = self._slice(packed, where)
        count = self.integer(packed, "count", None, where)
        stride = self.integer(packed, "byteStride", None, where)
        self.within(count * stride, "file_bytes", f"bytes decompressed from {where}")
        filter = self.text(packed, "filter", "NONE")
        with self._naming(where):
            return decode_meshopt(data.tobytes(), count, stride, packed.get("mode"), filter)

    # --- accessors ---

    def count(self, index: int) -> int:
        """Return the number of elements of an accessor."""
        return self.integer(self.items("accessors")[index], "count", None, f"accessors[{index}]")

    def _elements(
        self, view: int, offset: int, count: int, dtype: np.dtype, width: int, where: str
    ) -> np.ndarray:
        """View the bytes of a buffer view as [count, width] of `dtype`, with the view's stride."""
        data = self.view(view)
        owner = self.items("bufferViews")[view]
        size = dtype.itemsize * width
        stride = self.integer(owner, "byteStride", 0, f"bufferViews[{view}]") or size
        if stride < size:
            self.fail(f"bufferViews[{view}].byteStride is {stride}, expected at least {size} for {where}")
        if count and offset + (count - 1) * stride + size > len(data):
            self.fail(
                f"{where} requires {offset + (count - 1) * stride + size} bytes, "
                f"but bufferViews[{view}] has {len(data)}"
            )
        return np.ndarray(
            (count, width), dtype, data, offset if count else 0, strides=(stride, dtype.itemsize)
        )

    def _component(self, owner: dict, where: str) -> np.dtype:
        """Return the element type of an accessor."""
        component = owner.get("componentType")
        if not isinstance(component, int | float) or component not in _COMPONENTS:
            self.fail(f"{where}.componentType: expected one of {list(_COMPONENTS)}, got {shorten(component)}")
        return _COMPONENTS[int(component)]

    def _raw(self, index: int, count: int, types: tuple[str, ...], where: str) -> tuple[np.ndarray, bool]:
        """Read an accessor with its sparse substitutions applied.

        Args:
            count: the expected number of elements. The caller has checked it against the limits, so nothing larger is
                ever allocated.
            types: the allowed accessor types.
        Returns:
            values [count, width] as stored, and whether they are normalised integers.
        """
        owner = self.items("accessors")[index]
        here = f"accessors[{index}] ({where})"
        type_ = owner.get("type")
        if type_ not in types:
            self.fail(f"{here}.type: expected {' or '.join(types)}, got {shorten(type_)}")
        dtype, width = self._component(owner, here), _WIDTHS[type_]
        if self.count(index) != count:
            self.fail(f"{here} has {self.count(index)} elements, expected {count}; export the asset again")
        view = self.index(owner, "bufferView", "bufferViews", here)
        if view is None:
            values: np.ndarray = np.zeros((count, width), dtype)
        else:
            offset = self.integer(owner, "byteOffset", 0, here)
            values = self._elements(view, offset, count, dtype, width, here)
        sparse = self.child(owner, "sparse", here)
        if sparse is not None:
            values = values.copy()
            rows, replacements = self._sparse(sparse, count, dtype, width, f"{here}.sparse")
            values[rows] = replacements
        return values, owner.get("normalized") is True

    def _sparse(
        self, sparse: dict, count: int, dtype: np.dtype, width: int, where: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read sparse substitutions: indices int64 [n], below `count`, and their values [n, width]."""
        number = self.integer(sparse, "count", None, where)
        if number > count:
            self.fail(f"{where}.count is {number}, expected at most {count}")

        def part(key: str, part_dtype: Callable[[dict, str], np.dtype | None], part_width: int) -> np.ndarray:
            owner, here = self.child(sparse, key, where) or {}, f"{where}.{key}"
            stored = part_dtype(owner, here)
            view = self.index(owner, "bufferView", "bufferViews", here)
            if view is None or stored is None:
                self.fail(f"{here}: expected a bufferView and, for indices, an unsigned componentType")
            offset = self.integer(owner, "byteOffset", 0, here)
            return self._elements(view, offset, number, stored, part_width, here)

        def index_dtype(owner: dict, here: str) -> np.dtype | None:
            stored = _COMPONENTS.get(self.integer(owner, "componentType", None, here))
            return stored if stored is not None and stored.kind == "u" else None

        rows = part("indices", index_dtype, 1)[:, 0].astype(np.int64)
        values = part("values", lambda *_: dtype, width)
        if number and rows.max() >= count:
            self.fail(f"{where}.indices: {rows.max()} is out of range, expected below {count}")
        return rows, values

    def floats(self, index: int, count: int, types: tuple[str, ...], where: str) -> np.ndarray:
        """Read an accessor as finite float32 [count, width]; normalised integers are scaled to -1..1 or 0..1."""
        return self.as_floats(index, *self._raw(index, count, types, where), where)

    def as_floats(self, index: int, values: np.ndarray, normalised: bool, where: str) -> np.ndarray:
        """Convert the values of an accessor to finite float32 (glTF §3.11: max(c / max, -1) for normalised ones)."""
        floats = values.astype(np.float32)
        if values.dtype.kind == "f" and not np.isfinite(floats).all():
            self.fail(f"accessors[{index}] ({where}) contains NaN or infinity; export the asset again")
        if values.dtype.kind != "f" and normalised:
            floats = np.maximum(floats / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
        return floats

    def as_stored(self, index: int, values: np.ndarray, where: str) -> np.ndarray:
        """Convert decoded values to the component type of their accessor; decoders return other integer types."""
        dtype = self._component(self.items("accessors")[index], f"accessors[{index}] ({where})")
        if dtype.kind != "f" and values.dtype.kind == "f":
            values = np.rint(values).astype(np.int64)
        return values.astype(dtype)

    def unsigned(self, index: int, count: int, types: tuple[str, ...], where: str) -> np.ndarray:
        """Read an accessor of unsigned integers as int64 [count, width]."""
        values, _ = self._raw(index, count, types, where)
        if values.dtype.kind != "u":
            self.fail(f"accessors[{index}] ({where}): expected unsigned integers, got {values.dtype}")
        return values.astype(np.int64)

    # --- Draco and images ---

    def draco(
        self, packed: dict, vertices: int, triangles: int, where: str
    ) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
        """Decode a Draco mesh.

        Args:
            packed: the KHR_draco_mesh_compression object.
            vertices, triangles: the numbers that the accessors declare.
        Returns:
            triangles int64 [F, 3], and a function from Draco attribute id to its array [vertices, width].
        """
        view = self.index(packed, "bufferView", "bufferViews", where)
        if view is None:
            self.fail(f"{where}.bufferView is missing")
        with self._naming(where):
            corners, attributes = decode_draco(self.view(view).tobytes(), vertices, triangles)

        def attribute(key: int) -> np.ndarray:
            if key not in attributes:
                self.fail(
                    f"{where}: expected an attribute {key} of {vertices} vertices, the data has the attributes "
                    f"{sorted(attributes)} of that size; export the asset again"
                )
            return attributes[key]

        return corners, attribute

    def image(self, index: int) -> np.ndarray | None:
        """Return pixels uint8 [H, W, 4] as stored, one array for identical images; None (noted) if not decodable."""
        if index not in self._images:
            self._images[index] = self._read_image(index)
        return self._images[index]

    def _read_image(self, index: int) -> np.ndarray | None:
        where = f"images[{index}]"
        owner = self.items("images")[index]
        view = self.index(owner, "bufferView", "bufferViews", where)
        if view is not None:
            data = self.view(view).tobytes()
        elif owner.get("uri") is not None:
            data = self.from_uri(owner["uri"], where)
        else:
            self.fail(f"{where} has neither a bufferView nor a uri; export the asset again")
        digest = hashlib.sha256(data).digest()
        if digest not in self._pixels:
            limits, pixels = self.limits, None
            try:
                with self._naming(where):
                    pixels = decode_image(data, limits.texture_side, self._pixels_left, limits.texture_pixels)
                self._pixels_left -= pixels.shape[0] * pixels.shape[1]
            except UndecodableImage:
                self.note("a texture is left out: its image cannot be decoded")
            self._pixels[digest] = pixels
        return self._pixels[digest]
