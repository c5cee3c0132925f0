"""Invalid, unsupported and compressed glTF files, written for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tiny_gltf import TinyGltf, moving

# File → part of the error message.
INVALID = {
    "bad/infinite.glb": "NaN or infinity",
    "bad/version_1.glb": "convert it to glTF 2.0",
    "bad/missing_bin.gltf": "absent.bin is not a file",
    "bad/cycle.gltf": "cycle",
    "bad/chunk_length.glb": "GLB chunk",
    "unsupported/animation_pointer.gltf": "KHR_animation_pointer",
}
COMPRESSED = ("unsupported/box_draco.glb", "unsupported/box_meshopt.glb")


def write_invalid_models(folder: Path) -> None:
    """Write the files of `INVALID`."""
    for name, data in _invalid().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def write_compressed_models(folder: Path) -> None:
    """Write the files of `COMPRESSED`: static cubes from -0.5 to 0.5, encoded by DracoPy and meshoptimizer."""
    (folder / "unsupported").mkdir(parents=True, exist_ok=True)
    (folder / COMPRESSED[0]).write_bytes(_draco_box())
    (folder / COMPRESSED[1]).write_bytes(_meshopt_box())


def _tetrahedron() -> TinyGltf:
    return moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])


def _invalid() -> dict[str, bytes]:
    infinite = TinyGltf()
    infinite.scene(
        infinite.node(mesh=infinite.mesh(np.array([[0, 0, 0], [1, 0, 0], [0, np.inf, 0]]), [[0, 1, 2]]))
    )
    infinite.json["accessors"][0]["max"] = [1, 1, 0]  # JSON has no infinity
    version = _tetrahedron()
    version.json["asset"] = {"version": "1.0"}
    missing = _tetrahedron()
    missing.json["buffers"] = [{"byteLength": len(missing.binary), "uri": "absent.bin"}]
    cycle = _tetrahedron()
    first, second = cycle.node(), cycle.node()
    cycle.json["nodes"][first]["children"] = [second]
    cycle.json["nodes"][second]["children"] = [first]
    chunk = bytearray(_tetrahedron().glb())
    chunk[12:16] = (10**6).to_bytes(4, "little")
    pointer = _tetrahedron()
    pointer.json["animations"][0]["channels"][0]["target"] = {
        "path": "pointer",
        "extensions": {"KHR_animation_pointer": {"pointer": "/materials/0/emissiveFactor"}},
    }
    return dict(
        zip(
            INVALID,
            [
                infinite.glb(),
                version.glb(),
                json.dumps(missing.json).encode(),
                cycle.gltf(),
                bytes(chunk),
                pointer.gltf(),
            ],
            strict=True,
        )
    )


def _box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [24, 3], normals [24, 3] and triangles [12, 3] of a cube with four vertices per face."""
    positions, normals, triangles = [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.eye(3)[axis] * sign
            u = np.roll(normal, 1)
            v = np.cross(normal, u)
            first = len(positions)
            positions += [(normal + a * u + b * v) / 2 for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            normals += [normal] * 4
            triangles += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    return (
        np.array(positions, np.float32),
        np.array(normals, np.float32),
        np.array(triangles, np.uint32),
    )


def _draco_box() -> bytes:
    import DracoPy

    positions, normals, triangles = _box()
    tiny = TinyGltf()
    data = DracoPy.encode(positions, triangles, quantization_bits=14, normals=normals.astype(float))
    ids = {item["attribute_type"]: item["unique_id"] for item in DracoPy.decode(data).attributes}
    extension = {"bufferView": tiny.view(data), "attributes": {"POSITION": ids[0], "NORMAL": ids[1]}}
    count = len(DracoPy.decode(data).points)
    bounds = {"min": [-0.5] * 3, "max": [0.5] * 3}
    position = tiny.add("accessors", componentType=5126, count=count, type="VEC3", **bounds)
    normal = tiny.add("accessors", componentType=5126, count=count, type="VEC3")
    indices = tiny.add("accessors", componentType=5125, count=triangles.size, type="SCALAR")
    mesh = tiny.mesh(
        position, None, attributes={"NORMAL": normal}, indices=indices,
        extensions={"KHR_draco_mesh_compression": extension},
    )  # fmt: skip
    tiny.scene(tiny.node(mesh=mesh))
    tiny.json["extensionsUsed"] = tiny.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return tiny.glb()


def _meshopt_box() -> bytes:
    import meshoptimizer

    positions, normals, triangles = _box()
    tiny = TinyGltf()

    def view(data: bytes, count: int, stride: int, mode: str) -> int:
        index = tiny.view(data)
        entry = tiny.json["bufferViews"][index]
        compressed = dict(entry, count=count, byteStride=stride, mode=mode)
        entry["extensions"] = {"EXT_meshopt_compression": compressed}
        entry |= {"buffer": 1, "byteLength": count * stride}
        return index

    def attribute(values: np.ndarray) -> int:
        encoded = bytes(meshoptimizer.encode_vertex_buffer(np.ascontiguousarray(values), len(values), 12))
        index = view(encoded, len(values), 12, "ATTRIBUTES")
        bounds = {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return tiny.add(
            "accessors", bufferView=index, componentType=5126, count=len(values), type="VEC3", **bounds
        )

    position, normal = attribute(positions), attribute(normals)
    order = bytes(meshoptimizer.encode_index_buffer(triangles.reshape(-1), triangles.size, len(positions)))
    indices = tiny.add(
        "accessors", bufferView=view(order, triangles.size, 4, "TRIANGLES"), componentType=5125,
        count=triangles.size, type="SCALAR",
    )  # fmt: skip
    tiny.json["buffers"] = [{}, {"byteLength": 9999}]
    tiny.scene(tiny.node(mesh=tiny.mesh(position, None, attributes={"NORMAL": normal}, indices=indices)))
    tiny.json["extensionsUsed"] = tiny.json["extensionsRequired"] = ["EXT_meshopt_compression"]
    return tiny.glb()
