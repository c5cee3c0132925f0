"""Numbers in an exported glTF file, and records of training data, against values computed by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.export.animation import Joints, Mesh, SkinnedAnimation
from zoo.export.glb import write_glb
from zoo.provenance import SharingPolicy
from zoo.repository import Config


def triangle(rotations: list[list[float]]) -> SkinnedAnimation:
    """A triangle with one joint that turns through the given quaternions (wxyz)."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    colors = np.array([[0.0, 0.5, 1.0], [0.02, 0.2, 0.8], [1.0, 1.0, 1.0]])
    mesh = Mesh(vertices, np.tile([0.0, 0, 1], (3, 1)), colors, np.array([[0, 1, 2]]))
    turns = np.array(rotations)[:, None]
    return SkinnedAnimation(
        name="turns",
        mesh=mesh,
        joints=Joints(("only",), np.zeros((1, 3))),
        vertex_joints=np.zeros((3, 4), int),
        vertex_weights=np.tile([1.0, 0, 0, 0], (3, 1)),
        times=np.arange(len(turns)) / 10,
        positions=np.zeros((len(turns), 1, 3)),
        rotations=turns,
    )


def accessor(file: Path, number: int) -> np.ndarray:
    """The stored numbers of an accessor, integers as they are."""
    data = file.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    entry = document["accessors"][number]
    start = 28 + length + document["bufferViews"][entry["bufferView"]].get("byteOffset", 0)
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[entry["type"]]
    kind = {5123: "<u2", 5125: "<u4", 5126: "<f4"}[entry["componentType"]]
    return np.frombuffer(data, kind, entry["count"] * width, start).reshape(-1, width)


def document(file: Path) -> dict:
    data = file.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])


def test_vertex_colours_are_linear_light(tmp_path):
    """sRGB 0.5 is 0.2140 in linear light, 0.2 is 0.0331, 0.8 is 0.6038 and 0.02 is 0.00155."""
    write_glb(tmp_path / "x.glb", triangle([[1.0, 0, 0, 0], [1.0, 0, 0, 0]]))
    (primitive,) = document(tmp_path / "x.glb")["meshes"][0]["primitives"]
    stored = accessor(tmp_path / "x.glb", primitive["attributes"]["COLOR_0"]) / 65535
    expected = [[0, 0.21404, 1], [0.001548, 0.033105, 0.603827], [1, 1, 1]]
    np.testing.assert_allclose(stored[:, :3], expected, atol=2e-5)
    assert (stored[:, 3] == 1).all()


def test_rotations_take_the_shorter_arc_and_have_unit_length(tmp_path):
    """A model's q and -q are one rotation: stored signs follow each other, in glTF's order xyzw."""
    half = np.sqrt(0.5)
    turns = [[2.0, 0, 0, 0], [-half, 0, 0, -half], [0.0, 0, 0, 3.0], [half, 0, 0, -half]]
    write_glb(tmp_path / "x.glb", triangle(turns))
    animation = document(tmp_path / "x.glb")["animations"][0]
    (sampler,) = (
        animation["samplers"][channel["sampler"]]
        for channel in animation["channels"]
        if channel["target"]["path"] == "rotation"
    )
    stored = accessor(tmp_path / "x.glb", sampler["output"])
    expected = [[0, 0, 0, 1], [0, 0, half, half], [0, 0, 1, 0], [0, 0, half, -half]]
    np.testing.assert_allclose(stored, expected, atol=1e-6)


def test_an_unnamed_record_corrects_no_other_unnamed_record():
    """Records without source and uid cannot be told apart, so those of the model it was made from stay."""
    policy = SharingPolicy("hub:org/x", lambda name: None, needs_licence=True, off=False)
    config = Config("dimo", {"provenance": [{"licence": "CC-BY-4.0", "noai": "no"}]}, {})
    assert policy.check(config)
    parent = Config("dimo", {"provenance": [{"licence": "CC-BY-ND-4.0", "noai": "no"}]}, {})
    with pytest.raises(ZooError, match="CC-BY-ND"):
        policy.check(config, parent)
