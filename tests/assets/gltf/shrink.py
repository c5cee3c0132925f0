"""Reduce a .glb for use in tests: keep some animations and meshes, drop constant channels, store integers.

    python shrink.py SOURCE.glb TARGET.glb --animations Idle Walking_A --without Round_Shield 2H_Sword

Poses differ from those of the source only by the rounding of rotations and skin weights. Requires the installed package
(for the writer) and numpy. `LICENSES.md` lists the models that were made with it.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from renderers.gltf.writing import FLOAT, INT16, UINT8, UINT16, GlbBuffer

_TYPES = {5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_REST = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}


class Source:
    """The JSON and the arrays of a .glb without sparse accessors or strides."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        length = struct.unpack_from("<I", data, 12)[0]
        self.json = json.loads(data[20 : 20 + length])
        self._binary = data[28 + length :]

    def array(self, index: int) -> np.ndarray:
        """Values of an accessor, [count, width]."""
        accessor = self.json["accessors"][index]
        width, dtype = _WIDTHS[accessor["type"]], np.dtype(_TYPES[accessor["componentType"]])
        offset = self.json["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
        offset += accessor.get("byteOffset", 0)
        values = np.frombuffer(self._binary, dtype, accessor["count"] * width, offset)
        return values.reshape(-1, width)

    def bytes(self, view: int) -> bytes:
        """Contents of a buffer view."""
        entry = self.json["bufferViews"][view]
        start = entry.get("byteOffset", 0)
        return self._binary[start : start + entry["byteLength"]]


class Target(GlbBuffer):
    """A writer that stores equal arrays once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple, int] = {}

    def shared(self, array: np.ndarray, kind: str, component: int = FLOAT, **options: Any) -> int:
        """Add an array, or return the accessor of an equal one."""
        key = (array.tobytes(), kind, component, *sorted(options.items()))
        if key not in self._known:
            self._known[key] = self.add(array, kind, component, **options)
        return self._known[key]


def shrink_primitive(source: Source, target: Target, primitive: dict) -> dict:
    """Copy a primitive with 8-bit weights and 16-bit texture coordinates and indices."""
    attributes = {}
    for name, index in primitive["attributes"].items():
        values = source.array(index)
        if name.startswith("WEIGHTS"):
            integers = np.floor(values * 255 + 0.5).astype(np.int64)
            integers[np.arange(len(values)), values.argmax(1)] += 255 - integers.sum(1)
            attributes[name] = target.add(integers, "VEC4", UINT8, 34962, normalized=True)
        elif name.startswith("JOINTS"):
            attributes[name] = target.add(values, "VEC4", UINT8, 34962)
        elif name.startswith("TEXCOORD") and values.min() >= 0 and values.max() <= 1:
            attributes[name] = target.add(np.rint(values * 65535), "VEC2", UINT16, 34962, normalized=True)
        else:
            kind = source.json["accessors"][index]["type"]
            attributes[name] = target.add(values, kind, FLOAT, 34962, bounds=name == "POSITION")
    copied = {"attributes": attributes}
    copied["indices"] = target.add(source.array(primitive["indices"]).reshape(-1), "SCALAR", UINT16, 34963)
    if "material" in primitive:
        copied["material"] = primitive["material"]
    return copied


def shrink_animation(source: Source, target: Target, animation: dict) -> dict:
    """Copy an animation without the channels that keep a property at its rest value; rotations become int16."""
    samplers: list[dict] = []
    channels: list[dict] = []
    for channel in animation["channels"]:
        path, node = channel["target"]["path"], source.json["nodes"][channel["target"]["node"]]
        sampler = animation["samplers"][channel["sampler"]]
        values = source.array(sampler["output"])
        if np.abs(values - np.asarray(node.get(path, _REST[path]))).max() < 1e-5:
            continue
        times = source.array(sampler["input"]).reshape(-1)
        entry = {
            "input": target.shared(times, "SCALAR", bounds=True),
            "interpolation": sampler.get("interpolation", "LINEAR"),
        }
        if path == "rotation":
            assert entry["interpolation"] != "CUBICSPLINE"
            entry["output"] = target.shared(np.rint(values * 32767), "VEC4", INT16, normalized=True)
        else:
            entry["output"] = target.shared(values, "VEC3")
        channels.append({"sampler": len(samplers), "target": channel["target"]})
        samplers.append(entry)
    return {"name": animation["name"], "channels": channels, "samplers": samplers}


def shrink(source: Source, animations: list[str], without: list[str]) -> bytes:
    """Return the reduced .glb."""
    target, document = Target(), {"asset": {"version": "2.0", "generator": "shrink.py"}}
    nodes = [dict(node) for node in source.json["nodes"]]
    meshes: list[dict] = []
    for node in nodes:
        if "mesh" in node:
            mesh = source.json["meshes"][node.pop("mesh")]
            if node.get("name") not in without:
                node["mesh"] = len(meshes)
                primitives = [shrink_primitive(source, target, primitive) for primitive in mesh["primitives"]]
                meshes.append({"name": mesh["name"], "primitives": primitives})
            else:
                node.pop("skin", None)
    skins = [
        {
            "joints": skin["joints"],
            "inverseBindMatrices": target.add(source.array(skin["inverseBindMatrices"]), "MAT4"),
        }
        for skin in source.json.get("skins", [])
    ]
    kept = [animation for animation in source.json["animations"] if animation["name"] in animations]
    document |= {
        "scene": source.json.get("scene", 0),
        "scenes": source.json["scenes"],
        "nodes": nodes,
        "meshes": meshes,
        "skins": skins,
        "animations": [shrink_animation(source, target, animation) for animation in kept],
        "materials": source.json["materials"],
    }
    if "images" in source.json:
        images = []
        for image in source.json["images"]:
            data = np.frombuffer(source.bytes(image["bufferView"]), np.uint8)
            view = target.accessors[target.add(data, "SCALAR", UINT8)]["bufferView"]
            target.accessors.pop()
            images.append({"mimeType": image["mimeType"], "bufferView": view})
        document |= {"images": images, "textures": source.json["textures"]}
        document |= {"samplers": source.json["samplers"]} if "samplers" in source.json else {}
    return target.glb(document)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--animations", nargs="+", required=True, help="names of the animations to keep")
    parser.add_argument("--without", nargs="*", default=[], help="names of nodes whose mesh is dropped")
    arguments = parser.parse_args()
    arguments.target.write_bytes(shrink(Source(arguments.source), arguments.animations, arguments.without))


if __name__ == "__main__":
    main()
