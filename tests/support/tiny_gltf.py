"""Build tiny glTF files in memory from explicit numbers, so that tests can compute the expected result by hand."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np

_COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}

# Four vertices that span a volume, so that different transforms give different positions.
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


class TinyGltf:
    """A glTF file under construction: edit `json` freely, then serialise with `glb()` or `gltf()`."""

    def __init__(self) -> None:
        self.json: dict = {"asset": {"version": "2.0"}}
        self.binary = bytearray()

    def add(self, collection: str, **entry) -> int:
        """Append to a top-level list; return the index."""
        entries = self.json.setdefault(collection, [])
        entries.append(entry)
        return len(entries) - 1

    def view(self, data: bytes, **entry) -> int:
        """Add a buffer view with these bytes, aligned to 4; return its index."""
        self.binary += bytes(-len(self.binary) % 4)
        offset = len(self.binary)
        self.binary += data
        return self.add("bufferViews", buffer=0, byteOffset=offset, byteLength=len(data), **entry)

    def accessor(self, values, dtype: str = "f4", *, stride: int | None = None, **entry) -> int:
        """Add an accessor [count] or [count, width] of numbers stored as `dtype`, e.g. "u2", "f4"; return its index."""
        array = np.asarray(values, np.dtype("<" + dtype))
        array = array.reshape(len(array), -1)
        data = array.tobytes()
        options = {}
        if stride:
            size = array.dtype.itemsize * array.shape[1]
            data = b"".join(row.tobytes() + b"\xaa" * (stride - size) for row in array)
            options["byteStride"] = stride
        if array.dtype.kind == "f" and len(array):
            entry = {"min": array.min(0).tolist(), "max": array.max(0).tolist()} | entry
        return self.add(
            "accessors",
            bufferView=self.view(data, **options),
            componentType=_COMPONENTS[dtype],
            count=len(array),
            type=_KINDS[array.shape[1]],
            **entry,
        )

    def sparse(self, count: int, rows, values, base: int | None = None) -> int:
        """Add a sparse float accessor: `values` replace the `rows` of `base`, or of zeros; return its index."""
        values = np.asarray(values, "<f4")
        entry = {
            "componentType": 5126,
            "count": count,
            "type": _KINDS[values.shape[1]],
            "sparse": {
                "count": len(values),
                "indices": {
                    "bufferView": self.view(np.asarray(rows, "<u2").tobytes()),
                    "componentType": 5123,
                },
                "values": {"bufferView": self.view(values.tobytes())},
            },
        }
        if base is not None:
            entry["bufferView"] = self.json["accessors"][base]["bufferView"]
        return self.add("accessors", **entry)

    def mesh(self, positions=CORNERS, faces=FACES, *, attributes=None, **primitive) -> int:
        """Add a mesh of one primitive: positions (numbers, or an accessor's index) and triangles; return its index."""
        if not isinstance(positions, int):
            positions = self.accessor(positions)
        primitive = {"attributes": {"POSITION": positions, **(attributes or {})}, **primitive}
        if faces is not None:
            indices = np.asarray(faces).reshape(-1)
            primitive["indices"] = self.accessor(indices, "u2" if indices.max(initial=0) < 65535 else "u4")
        return self.add("meshes", primitives=[primitive])

    def node(self, **entry) -> int:
        return self.add("nodes", **entry)

    def scene(self, *nodes: int) -> None:
        self.json["scene"] = self.add("scenes", nodes=list(nodes))

    def animation(self, *channels: tuple) -> int:
        """Add an animation of channels (node, path, times, values[, interpolation[, dtype]]).

        Splines have three values per key frame.
        """
        samplers, targets = [], []
        for node, path, times, values, *rest in channels:
            interpolation = rest[0] if rest else "LINEAR"
            dtype = rest[1] if len(rest) > 1 else "f4"
            normalized = {"normalized": True} if dtype != "f4" else {}
            output = self.accessor(values, dtype, **normalized)
            samplers.append({"input": self.accessor(times), "output": output, "interpolation": interpolation})
            targets.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})
        return self.add("animations", samplers=samplers, channels=targets)

    def skin(self, joints: list[int], inverse_bind=None) -> int:
        """Add inverse bind matrices [J, 4, 4], given row-major."""
        entry: dict = {"joints": joints}
        if inverse_bind is not None:
            columns = np.asarray(inverse_bind, np.float32).transpose(0, 2, 1).reshape(-1, 16)
            entry["inverseBindMatrices"] = self.accessor(columns)
        return self.add("skins", **entry)

    def glb(self) -> bytes:
        """Serialise as GLB."""
        root = dict(self.json)
        if self.binary:
            root["buffers"] = [{"byteLength": len(self.binary)}, *root.get("buffers", [])[1:]]
        text = json.dumps(root).encode()
        return pack_glb(text, bytes(self.binary))

    def gltf(self) -> bytes:
        """Serialise as JSON with the data in a URI."""
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        root = self.json | {"buffers": [{"byteLength": len(self.binary), "uri": uri}]}
        return json.dumps(root).encode()


def pack_glb(text: bytes, binary: bytes) -> bytes:
    """Pack JSON text and a binary chunk into a GLB container."""
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def split_glb(data: bytes) -> tuple[dict, bytes]:
    """Return the JSON and the binary chunk of a GLB."""
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def moving(path: str, times, values, interpolation: str = "LINEAR", dtype: str = "f4", **node) -> TinyGltf:
    """Return a file with one tetrahedron at a node with one animated property."""
    tiny = TinyGltf()
    index = tiny.node(mesh=tiny.mesh(), **node)
    tiny.scene(index)
    tiny.animation((index, path, times, values, interpolation, dtype))
    return tiny
