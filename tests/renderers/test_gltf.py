"""renderers.gltf: cases small enough to compute by hand, real models, and invalid input."""

from __future__ import annotations

import io
import json
import struct
import time

import numpy as np
import pytest
from invalid_models import COMPRESSED, INVALID, write_compressed_models, write_invalid_models
from PIL import Image
from sample_assets import ANIMATED, COLLECTION, model, requires_collection
from tiny_gltf import CORNERS, FACES, TinyGltf, moving, pack_glb, split_glb

from renderers import gltf

HALF = np.sqrt(0.5)
QUARTER_TURN_Z = (0, 0, HALF, HALF)  # x to y


def positions(tiny: TinyGltf, when: float | None = None, animation: int = 0) -> np.ndarray:
    """Return world positions per triangle corner, independent of the order of vertices."""
    asset = gltf.load(tiny.glb())
    pose = asset.pose(None if when is None else animation, when or 0.0)
    return np.concatenate([pose.positions[p.triangles] for p in asset.primitives])


def turned_z(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T


def same(a, b) -> None:
    np.testing.assert_allclose(a, b, atol=2e-6)


# --- interpolation --------------------------------------------------------------------------------


KEYS = [0, 1, 2, 3], [[0, 0, 0], [2, 0, 0], [2, 0, 0], [6, 0, 0]]


@pytest.mark.parametrize(
    ("interpolation", "expected"),
    [
        ("LINEAR", {-1: 0, 0: 0, 0.5: 1, 1: 2, 1.5: 2, 2: 2, 2.25: 3, 3: 6, 9: 6}),
        ("STEP", {-1: 0, 0: 0, 0.5: 0, 1: 2, 1.5: 2, 2: 2, 2.999: 2, 3: 6, 9: 6}),
    ],
)
def test_linear_and_step_interpolation(interpolation, expected):
    tiny = moving("translation", *KEYS, interpolation)
    for when, x in expected.items():
        same(positions(tiny, when), CORNERS[FACES] + [x, 0, 0])


def test_rotations_use_slerp_along_the_shorter_arc():
    """A third of the way from 0 to 120 degrees is 40 degrees; component-wise interpolation gives 38.2."""
    angle = np.radians(120)
    end = np.array([0, 0, np.sin(angle / 2), np.cos(angle / 2)])
    for sign in (1, -1):  # q and -q are the same rotation
        tiny = moving("rotation", [0, 3], [[0, 0, 0, 1], sign * end])
        same(positions(tiny, 1.0), turned_z(CORNERS, np.radians(40))[FACES])
    assert np.abs(turned_z(CORNERS, np.radians(38.2)) - turned_z(CORNERS, np.radians(40))).max() > 0.01


def test_cubic_spline_translation():
    """Hermite spline with tangents per second: at the middle of 2 s, (p0 + p1) / 2 + 2 (m0 - m1) / 8."""
    zero = [0, 0, 0]
    tiny = moving(
        "translation", [1, 3], [zero, [1, 0, 0], [4, 0, 8], [0, 4, 0], [5, 0, 0], zero], "CUBICSPLINE"
    )
    same(positions(tiny, 2.0), CORNERS[FACES] + [(1 + 5) / 2 + 2 * 4 / 8, -2 * 4 / 8, 2 * 8 / 8])
    same(positions(tiny, 0.0), CORNERS[FACES] + [1, 0, 0])
    same(positions(tiny, 7.0), CORNERS[FACES] + [5, 0, 0])


def test_cubic_spline_rotation_is_normalised():
    """With zero tangents: at one half the normalised mean of the components; at a quarter weights 27/32 and 5/32."""
    end = np.array(QUARTER_TURN_Z)
    start, zero = np.array([0, 0, 0, 1.0]), np.zeros(4)
    tiny = moving("rotation", [0, 1], [zero, start, zero, zero, end, zero], "CUBICSPLINE")
    same(positions(tiny, 0.5), turned_z(CORNERS, np.pi / 4)[FACES])
    mean = 27 / 32 * start + 5 / 32 * end
    same(positions(tiny, 0.25), turned_z(CORNERS, 2 * np.arctan2(mean[2], mean[3]))[FACES])


def test_scale_and_rotation_and_translation_compose_in_that_order():
    tiny = moving("scale", [0, 1], [[1, 1, 1], [3, 1, 1]], rotation=QUARTER_TURN_Z, translation=[0, 0, 7])
    same(positions(tiny, 0.5), (turned_z(CORNERS * [2, 1, 1], np.pi / 2) + [0, 0, 7])[FACES])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
def test_normalised_integers(dtype):
    """A quarter turn about z with quaternions stored as integers, as exact as the type allows."""
    largest = np.iinfo(dtype).max
    tiny = moving(
        "rotation",
        [0, 1],
        [[0, 0, 0, largest], [0, 0, round(HALF * largest), round(HALF * largest)]],
        dtype=dtype,
    )
    asset = gltf.load(tiny.glb())
    np.testing.assert_allclose(
        asset.pose(0, 1.0).positions[3:6], turned_z(CORNERS, np.pi / 2)[FACES[1]], atol=1e-6
    )


def test_the_most_negative_integer_is_minus_one():
    tiny = TinyGltf()
    values = tiny.accessor([[-128, 0, 0, 0], [-127, 127, 0, 0], [0, 64, 127, 0]], "i1", normalized=True)
    tiny.json["accessors"][values]["type"] = "VEC3"
    tiny.json["bufferViews"][-1]["byteStride"] = 4
    tiny.scene(tiny.node(mesh=tiny.mesh(values, [[0, 1, 2]])))
    same(positions(tiny), [[[-1, 0, 0], [-1, 1, 0], [0, 64 / 127, 1]]])


def test_an_animation_spans_its_keys_and_moves_only_its_nodes():
    tiny = moving("translation", [0.5, 2], [[0, 0, 0], [1, 0, 0]])
    other = tiny.node(mesh=0, translation=[0, 9, 0])
    tiny.json["scenes"][0]["nodes"].append(other)
    asset = gltf.load(tiny.glb())
    assert (asset.animations[0].start, asset.animations[0].end, asset.animations[0].duration) == (0.5, 2, 1.5)
    moved = asset.pose(0, 2).positions - asset.pose(None, 0).positions
    same(moved[asset.primitives[0].vertices], np.broadcast_to([1, 0, 0], (12, 3)))
    same(moved[asset.primitives[1].vertices], 0)
    with pytest.raises(IndexError, match="animation 1 does not exist"):
        asset.pose(1, 0)


# --- nodes ----------------------------------------------------------------------------------------


def test_matrix_nodes_and_their_children():
    """Column-major matrix: a quarter turn about z, x doubled, translated by (1, 2, 3)."""
    tiny = TinyGltf()
    child = tiny.node(mesh=tiny.mesh(), translation=[0, 0, 1])
    matrix = [0, 2, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 1]
    tiny.scene(tiny.node(matrix=matrix, children=[child]))
    same(positions(tiny), (turned_z((CORNERS + [0, 0, 1]) * [2, 1, 1], np.pi / 2) + [1, 2, 3])[FACES])


def test_an_animated_matrix_node_is_decomposed():
    tiny = moving("translation", [0, 1], [[0, 0, 0], [5, 0, 0]])
    tiny.json["nodes"][0]["matrix"] = [0, 2, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 1]
    same(positions(tiny, 1.0), (turned_z(CORNERS * [2, 1, 1], np.pi / 2) + [5, 0, 0])[FACES])


def test_negative_scale_mirrors_faces_but_not_normals():
    tiny = TinyGltf()
    outward = CORNERS - CORNERS.mean(0)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    for attributes in ({"NORMAL": tiny.accessor(outward)}, {}):
        mesh = tiny.mesh(attributes=attributes)
        tiny.node(mesh=mesh)
        tiny.node(mesh=mesh, scale=[-1, 1, 1])
        tiny.node(mesh=mesh, scale=[-1, 1, -2])
    tiny.scene(*range(6))
    asset = gltf.load(tiny.glb())
    pose = asset.pose(None, 0)
    assert pose.mirrored.tolist() == [False, True, False] * 2
    for primitive in asset.primitives:
        points = pose.positions[primitive.vertices]
        facing = ((points - points.mean(0)) * pose.normals[primitive.vertices]).sum(1)
        assert (facing > 0).all(), "a normal points inward"
    np.testing.assert_allclose(np.linalg.norm(pose.normals, axis=1), 1, atol=1e-6)


def test_normals_stay_perpendicular_under_nonuniform_scale():
    tiny = TinyGltf()
    points = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    normal = np.array([[HALF, -HALF, 0]] * 3)
    tiny.scene(
        tiny.node(
            mesh=tiny.mesh(points, [[0, 1, 2]], attributes={"NORMAL": tiny.accessor(normal)}), scale=[3, 1, 1]
        )
    )
    pose = gltf.load(tiny.glb()).pose(None, 0)
    expected = np.array([1, -3, 0]) / np.sqrt(10)
    same(pose.normals, np.broadcast_to(expected, (3, 3)))


def test_only_the_default_scene_is_drawn():
    tiny = TinyGltf()
    tiny.scene(tiny.node(mesh=tiny.mesh(), name="hidden"))
    tiny.scene(tiny.node(mesh=0, name="shown"))
    assert [p.name for p in gltf.load(tiny.glb()).primitives] == ["shown"]
    del tiny.json["scenes"], tiny.json["scene"]
    assert [p.name for p in gltf.load(tiny.glb()).primitives] == ["hidden", "shown"]


# --- meshes ---------------------------------------------------------------------------------------


def test_strips_fans_and_lists_have_equal_winding():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0]], np.float32)
    for mode, faces in (
        (4, [[0, 1, 2]]),
        (5, [[0, 1, 2], [1, 3, 2], [2, 3, 4]]),
        (6, [[1, 2, 0], [2, 3, 0], [3, 4, 0]]),
    ):
        tiny = TinyGltf()
        tiny.scene(tiny.node(mesh=tiny.mesh(corners, None, mode=mode)))
        assert positions(tiny).tolist() == corners[np.array(faces)].tolist()


def test_lines_and_points_are_skipped_and_rejected_without_triangles():
    tiny = TinyGltf()
    tiny.scene(tiny.node(mesh=tiny.mesh()))
    tiny.json["meshes"][0]["primitives"].insert(0, {"attributes": {"POSITION": 0}, "mode": 1})
    asset = gltf.load(tiny.glb())
    assert [p.index for p in asset.primitives] == [1]
    del tiny.json["meshes"][0]["primitives"][1]
    with pytest.raises(gltf.GltfError, match="only points, lines"):
        gltf.load(tiny.glb())


def test_strided_sparse_and_quantised_positions():
    tiny = TinyGltf()
    strided = tiny.accessor(CORNERS, stride=20)
    replaced = tiny.sparse(4, [1, 3], [[8, 0, 0], [0, 0, 9]])
    dense = tiny.accessor(CORNERS)
    patched = tiny.sparse(4, [2], [[0, 7, 0]], base=dense)
    integers = tiny.accessor(np.pad(CORNERS, ((0, 0), (0, 1))), "u2", stride=8)
    tiny.json["accessors"][integers]["type"] = "VEC3"
    tiny.json["extensionsRequired"] = ["KHR_mesh_quantization"]
    tiny.scene(*(tiny.node(mesh=tiny.mesh(a)) for a in (strided, replaced, patched, integers)))
    result = positions(tiny).reshape(4, 4, 3, 3)
    same(result[0], CORNERS[FACES])
    same(result[1], np.array([[0, 0, 0], [8, 0, 0], [0, 0, 0], [0, 0, 9]])[FACES])
    same(result[2], (CORNERS + [[0, 0, 0], [0, 0, 0], [0, 5, 0], [0, 0, 0]])[FACES])
    same(result[3], CORNERS[FACES])


def test_flat_normals_if_the_file_has_none():
    tiny = TinyGltf()
    tiny.scene(tiny.node(mesh=tiny.mesh()))
    asset = gltf.load(tiny.glb())
    assert asset.num_vertices == 12
    pose = asset.pose(None, 0)
    same(pose.normals[:9], np.repeat([[0, 0, -1], [0, -1, 0], [-1, 0, 0]], 3, axis=0))


def test_colours_texcoords_and_visible_vertices():
    tiny = TinyGltf()
    points = np.concatenate([CORNERS, [[99, 99, 99]]])
    up = np.tile([0, 1, 0], (5, 1))
    attributes = {
        "NORMAL": tiny.accessor(up),
        "COLOR_0": tiny.accessor(np.array([[255, 0, 51, 255]] * 5), "u1", normalized=True),
        "TEXCOORD_0": tiny.accessor(np.full((5, 2), 32768), "u2", normalized=True),
        "TEXCOORD_1": tiny.accessor(np.full((5, 2), 0.25)),
    }
    tiny.scene(tiny.node(mesh=tiny.mesh(points, attributes=attributes)))
    tiny.json["scenes"][0]["nodes"].append(tiny.node(mesh=tiny.mesh()))
    asset = gltf.load(tiny.glb())
    assert asset.visible.tolist() == [0, 1, 2, 3, *range(5, 17)]
    same(asset.colors[0], [1, 0, 0.2, 1])
    same(asset.colors[5:], 1)
    assert asset.texcoords.shape == (17, 2, 2)
    same(asset.texcoords[0], [[32768 / 65535] * 2, [0.25, 0.25]])
    assert not asset.texcoords[5:].any()


def test_draco_and_meshopt_meshes_decode():
    """The data is compressed by the encoders of the same libraries."""
    draco, meshopt = pytest.importorskip("DracoPy"), pytest.importorskip("meshoptimizer")
    cube = np.array([[x, y, z] for x in (0, 4) for y in (0, 2) for z in (0, 1)], np.float32)
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]], np.uint32)

    tiny = TinyGltf()
    data = draco.encode(cube, faces, quantization_bits=14)
    extension = {"bufferView": tiny.view(data), "attributes": {"POSITION": 0}}
    position = tiny.add("accessors", componentType=5126, count=8, type="VEC3")
    indices = tiny.add("accessors", componentType=5125, count=18, type="SCALAR")
    mesh = tiny.mesh(position, None, extensions={"KHR_draco_mesh_compression": extension}, indices=indices)
    tiny.scene(tiny.node(mesh=mesh))
    tiny.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    result = positions(tiny)
    assert result.shape == (6, 3, 3)
    np.testing.assert_allclose(result.max((0, 1)), [4, 2, 1], atol=1e-3)
    areas = np.linalg.norm(np.cross(result[:, 1] - result[:, 0], result[:, 2] - result[:, 0]), axis=1) / 2
    np.testing.assert_allclose(areas.sum(), 2 + 2 + 4, atol=1e-2)

    tiny = TinyGltf()
    packed = meshopt.encode_vertex_buffer(np.ascontiguousarray(cube), 8, 12)
    order = meshopt.encode_index_buffer(faces.reshape(-1), 18, 8)
    for data, count, stride, mode in ((packed, 8, 12, "ATTRIBUTES"), (order, 18, 4, "TRIANGLES")):
        view = tiny.view(bytes(data))
        entry = tiny.json["bufferViews"][view]
        compressed = dict(entry, count=count, byteStride=stride, mode=mode)
        entry["extensions"] = {"EXT_meshopt_compression": compressed}
        entry |= {"buffer": 1, "byteLength": count * stride}
    tiny.json["buffers"] = [{}, {"byteLength": 9999}]
    tiny.json["extensionsRequired"] = ["EXT_meshopt_compression"]
    tiny.add("accessors", bufferView=0, componentType=5126, count=8, type="VEC3")
    tiny.add("accessors", bufferView=1, componentType=5125, count=18, type="SCALAR")
    tiny.scene(tiny.node(mesh=tiny.mesh(0, None, indices=1)))
    rolled = lambda triangle: min(np.roll(triangle, i, 0).tolist() for i in range(3))  # noqa: E731
    assert sorted(map(rolled, positions(tiny))) == sorted(map(rolled, cube[faces])), (
        "corners may be rotated within a triangle"
    )


# --- morph targets and skins ----------------------------------------------------------------------


def morphed(**extra) -> TinyGltf:
    """Return a tetrahedron with two targets: all corners +x, and (sparse) corner 3 +z with another normal."""
    tiny = TinyGltf()
    normals = tiny.accessor(np.tile([0, 1, 0], (4, 1)))
    targets = [
        {"POSITION": tiny.accessor(np.tile([1, 0, 0], (4, 1)))},
        {"POSITION": tiny.sparse(4, [3], [[0, 0, 2]]), "NORMAL": tiny.sparse(4, [3], [[1, -1, 0]])},
    ]
    mesh = tiny.mesh(attributes={"NORMAL": normals}, targets=targets)
    tiny.json["meshes"][mesh] |= extra.pop("mesh", {})
    tiny.scene(tiny.node(mesh=mesh, **extra))
    return tiny


def test_morph_weights_come_from_the_node_then_the_mesh():
    last = np.array([[0, 0, 0]] * 3 + [[0, 0, 2]])
    same(positions(morphed()), CORNERS[FACES])
    same(positions(morphed(mesh={"weights": [0.5, 0]})), (CORNERS + [0.5, 0, 0])[FACES])
    both = morphed(mesh={"weights": [0.5, 0]}, weights=[0, 0.25])
    same(positions(both), (CORNERS + 0.25 * last)[FACES])
    pose = gltf.load(morphed(weights=[0, 1]).glb()).pose(None, 0)
    same(pose.normals, [[0, 1, 0]] * 3 + [[1, 0, 0]])


def test_animated_weights_in_every_interpolation():
    last = np.array([[0, 0, 0]] * 3 + [[0, 0, 2]])
    cases = {
        "LINEAR": ([[0, 1], [1, 0]], 0.25, 0.75),
        "STEP": ([[0, 1], [1, 0]], 0, 1),
        # Per key: in-tangents, values, out-tangents, each for both targets. At 1/4 of 2 s, from 0 to 1, the result is
        # 10/64 * 1 + 2 * 9/64 * out-tangent; the second target goes from 1 to 0 and has no tangent.
        "CUBICSPLINE": ([[0, 0], [0, 1], [3, 0], [0, 0], [1, 0], [0, 0]], 10 / 64 + 2 * 9 / 64 * 3, 54 / 64),
    }
    for interpolation, (values, first, second) in cases.items():
        tiny = morphed()
        tiny.animation((0, "weights", [1, 3], np.reshape(values, -1), interpolation))
        same(positions(tiny, 1.5), (CORNERS + np.array([first, 0, 0]) + second * last)[FACES])


def test_a_skin_ignores_its_node_transform_and_blends_joints():
    """Corner 3 is bound to both joints equally; joint 1 moves by (0, 4, 0) from its bind pose."""
    tiny = TinyGltf()
    joints = tiny.accessor(
        [[0, 9, 0, 0]] * 3 + [[0, 1, 0, 0]], "u1"
    )  # joint 9 does not exist, but has weight 0
    weights = tiny.accessor([[1, 0, 0, 0]] * 3 + [[0.5, 0.5, 0, 0]])
    mesh = tiny.mesh(attributes={"JOINTS_0": joints, "WEIGHTS_0": weights})
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[1, :3, 3] = [0, -1, 0]
    low, high = tiny.node(), tiny.node(translation=[0, 1, 0])
    body = tiny.node(mesh=mesh, skin=tiny.skin([low, high], bind), translation=[100, 0, 0])
    tiny.scene(low, high, body)
    tiny.animation((high, "translation", [0, 1], [[0, 1, 0], [0, 5, 0]]))
    same(positions(tiny, 0.0), CORNERS[FACES])
    lifted = np.array([[0, 0, 0]] * 3 + [[0, 2, 0]])
    same(positions(tiny, 1.0), (CORNERS + lifted)[FACES])


def skinned(weights_dtype: str = "f4", joint_sets: int = 1) -> TinyGltf:
    """Return two skins with one mesh each; with two joint sets, weights are split between JOINTS_0 and JOINTS_1."""
    tiny = TinyGltf()
    one = 1 if weights_dtype == "f4" else np.iinfo(weights_dtype).max
    normalized = {} if weights_dtype == "f4" else {"normalized": True}
    bodies, movers = [], []
    for _ in range(2):
        joints = [tiny.node(), tiny.node()]
        movers.append(joints[1])
        attributes = {}
        for number in range(joint_sets):
            share = one // joint_sets if weights_dtype != "f4" else 1 / joint_sets
            attributes[f"JOINTS_{number}"] = tiny.accessor([[number % 2, 0, 0, 0]] * 4, "u2")
            attributes[f"WEIGHTS_{number}"] = tiny.accessor(
                [[share, 0, 0, 0]] * 4, weights_dtype, **normalized
            )
        if joint_sets == 1:
            tiny.json["accessors"][attributes["JOINTS_0"]]["bufferView"] = tiny.view(
                np.array([[1, 0, 0, 0]] * 4, "<u2").tobytes()
            )
        bodies.append(tiny.node(mesh=tiny.mesh(attributes=attributes), skin=tiny.skin(joints)))
    tiny.scene(*range(len(tiny.json["nodes"])))
    tiny.animation(
        *((mover, "translation", [0, 1], [[0, 0, 0], [8, side, 0]]) for side, mover in enumerate(movers))
    )
    return tiny


@pytest.mark.parametrize("dtype", ["f4", "u1", "u2"])
@pytest.mark.parametrize("sets", [1, 2])
def test_several_skins_joint_sets_and_integer_weights(dtype, sets):
    """With two sets, half of the weight belongs to a joint that does not move."""
    result = positions(skinned(dtype, sets), 1.0).reshape(2, 4, 3, 3)
    for side in (0, 1):
        same(result[side], (CORNERS + np.array([8, side, 0]) / sets)[FACES])


def test_skinned_normals_rotate_and_mirror_with_their_joint():
    tiny = skinned()
    tiny.json["nodes"][1]["scale"] = [-1, 1, 1]
    asset = gltf.load(tiny.glb())
    pose = asset.pose(None, 0)
    assert pose.mirrored.tolist() == [True, False]
    for primitive in asset.primitives:
        points = pose.positions[primitive.vertices]
        assert (((points - points.mean(0)) * pose.normals[primitive.vertices]).sum(1) > 0).all()


# --- materials ------------------------------------------------------------------------------------


def png(width: int, height: int, color=(255, 0, 0, 255), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (width, height), color).save(out, kind, lossless=True)
    return out.getvalue()


def textured(material: dict, *images: bytes, **root) -> TinyGltf:
    tiny = TinyGltf()
    for image in images:
        tiny.add("images", bufferView=tiny.view(image))
        tiny.add("textures", source=len(tiny.json["images"]) - 1)
    tiny.add("materials", **material)
    tiny.scene(tiny.node(mesh=tiny.mesh(material=0)))
    tiny.json |= root
    return tiny


def test_materials_are_read_and_identical_images_shared():
    material = {
        "name": "skin",
        "pbrMetallicRoughness": {
            "baseColorFactor": [0.5, 0.25, 1, 0.75],
            "baseColorTexture": {"index": 0, "texCoord": 1},
            "metallicFactor": 0.5,
            "roughnessFactor": 0.25,
        },
        "emissiveFactor": [1, 0.5, 0],
        "emissiveTexture": {
            "index": 1,
            "extensions": {
                "KHR_texture_transform": {"offset": [1, 2], "rotation": np.pi / 2, "scale": [3, 4]}
            },
        },
        "normalTexture": {"index": 2, "scale": 0.5},
        "alphaMode": "MASK",
        "alphaCutoff": 0.3,
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}, "KHR_materials_emissive_strength": {"emissiveStrength": 4}},
    }
    tiny = textured(material, png(2, 3), png(2, 3), png(2, 3, (0, 9, 0, 128), "WEBP"))
    tiny.add("samplers", wrapS=33071, wrapT=33648, magFilter=9728)
    tiny.json["textures"][0]["sampler"] = 0
    tiny.json["textures"][2] = {"extensions": {"EXT_texture_webp": {"source": 2}}}
    asset = gltf.load(tiny.glb())
    (loaded,) = asset.materials
    assert (loaded.name, loaded.alpha_mode, loaded.alpha_cutoff) == ("skin", "MASK", 0.3)
    assert loaded.double_sided and loaded.unlit
    assert loaded.base_color == (0.5, 0.25, 1, 0.75) and loaded.emissive == (4, 2, 0)
    base, emissive, normal = loaded.base_color_texture, loaded.emissive_texture, loaded.normal_texture
    assert base.image.shape == (3, 2, 4) and (base.image == [255, 0, 0, 255]).all()
    assert base.image is emissive.image and base.texcoord == 1 and base.nearest
    assert (base.wrap_s, base.wrap_t, emissive.wrap_s) == ("clamp", "mirror", "repeat")
    # A quarter turn counter-clockwise on screen, v pointing down: (u, v) goes to (v, -u).
    same(emissive.transform @ [0.1, 0.2, 1], [1 + 0.8, 2 - 0.3, 1])
    assert normal.image[0, 0].tolist() == [0, 9, 0, 128] and loaded.normal_scale == 0.5
    assert asset.texcoords.shape[1] == 2, (
        "a texture coordinate set used by a material exists, filled with zeros if absent"
    )


def test_specular_glossiness_becomes_metallic_roughness():
    """Black diffuse with gold specular becomes gold; red plastic stays red plastic; textures likewise."""
    name = "KHR_materials_pbrSpecularGlossiness"
    gold = {"diffuseFactor": [0, 0, 0, 1], "specularFactor": [1, 0.77, 0.34], "glossinessFactor": 0.8}
    loaded = gltf.load(textured({"extensions": {name: gold}}).glb()).materials[0]
    assert loaded.metallic > 0.99 and loaded.roughness == pytest.approx(0.2)
    np.testing.assert_allclose(loaded.base_color, [1, 0.77, 0.34, 1], atol=0.01)
    red = {"diffuseFactor": [0.8, 0.1, 0.1, 0.5], "specularFactor": [0.04, 0.04, 0.04], "glossinessFactor": 0}
    loaded = gltf.load(textured({"extensions": {name: red}}).glb()).materials[0]
    assert loaded.metallic < 0.01 and loaded.roughness == 1
    np.testing.assert_allclose(loaded.base_color, [0.8, 0.1, 0.1, 0.5], atol=0.01)
    textures = {"diffuseTexture": {"index": 0}, "specularGlossinessTexture": {"index": 1}}
    images = png(8, 8, (0, 0, 0, 255)), png(4, 4, (255, 226, 158, 204))
    loaded = gltf.load(textured({"extensions": {name: textures}}, *images).glb()).materials[0]
    assert loaded.base_color_texture.image.shape == (8, 8, 4)
    np.testing.assert_allclose(loaded.base_color_texture.image[0, 0], [255, 226, 158, 255], atol=2)
    np.testing.assert_allclose(loaded.metallic_roughness_texture.image[0, 0, 1:3], [51, 255], atol=2)


def test_metadata_in_the_form_of_sketchfab():
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    tiny.json["asset"] |= {"generator": "G", "copyright": "C", "extras": {"license": "CC0", "author": 7}}
    assert gltf.load(tiny.glb()).metadata == {"generator": "G", "copyright": "C", "license": "CC0"}


# --- files ----------------------------------------------------------------------------------------


def test_gltf_with_a_data_uri_equals_the_glb():
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    a, b = gltf.load(tiny.glb()), gltf.load(tiny.gltf(), name="other")
    assert (a.pose(0, 0.5).positions == b.pose(0, 0.5).positions).all()
    assert (a.name, b.name) == ("glTF in memory", "other")


def test_uris_outside_the_asset_folder_are_rejected(tmp_path):
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    folder = tmp_path / "asset"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "sub dir" / "data.bin").write_bytes(tiny.binary)
    (tmp_path / "secret.bin").write_bytes(tiny.binary)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")

    def load(uri):
        root = tiny.json | {"buffers": [{"byteLength": len(tiny.binary), "uri": uri}]}
        (folder / "a.gltf").write_text(json.dumps(root))
        return gltf.load(folder / "a.gltf")

    for good in ("sub%20dir/data.bin", "sub dir/data.bin", "sub dir/../sub dir/data.bin"):
        assert load(good).num_vertices == 12
    outside = ["../secret.bin", "%2e%2e/secret.bin", "sub dir/../../secret.bin", "link.bin", "..\\secret.bin"]
    for uri in outside:
        with pytest.raises(gltf.GltfError, match="is outside the asset's folder"):
            load(uri)
    elsewhere = [
        "http://127.0.0.1/data.bin", "HTTPS://x/y", "file:///etc/passwd", "//host/share/x", "/etc/passwd",
        "\\\\host\\share", "C:\\x", "%2fetc%2fpasswd", "a\0b",
    ]  # fmt: skip
    for uri in elsewhere:
        with pytest.raises(gltf.GltfError, match="not a path relative to the asset"):
            load(uri)
    with pytest.raises(gltf.GltfError, match="is not a file"):
        load("absent.bin")
    with pytest.raises(gltf.GltfError, match="for an asset loaded from memory"):
        gltf.load((folder / "a.gltf").read_bytes())


# --- errors: each names the fault, and the file without the fault loads -----------------------

GOOD = lambda: textured({"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}, png(2, 2))  # noqa: E731


def edit(*path_and_value):
    *path, last, value = path_and_value

    def apply(tiny: TinyGltf) -> None:
        target = tiny.json
        for key in path:
            target = target[key]
        target[last] = value

    return apply


INVALID_EDITS = {
    "node cycle": (edit("nodes", 0, "children", [0]), "is its own child"),
    "no triangles": (edit("meshes", 0, "primitives", []), "the scene has no mesh"),
    "index out of range": (edit("accessors", 0, "count", 3), "expected triangles with indices below 3"),
    "mesh out of range": (edit("nodes", 0, "mesh", 7), r"nodes\[0\].mesh: expected an index below 1"),
    "negative index": (edit("nodes", 0, "mesh", -1), "expected an integer >= 0"),
    "a string for a number": (edit("accessors", 0, "count", "4"), "expected an integer >= 0, got '4'"),
    "a number for a list": (edit("nodes", 7), "expected a list of objects"),
    "NaN in a node": (edit("nodes", 0, "scale", [float("nan")] * 3), "expected 3 finite numbers"),
    "endless number": (edit("nodes", 0, "scale", [10**400, 1, 1]), "expected 3 finite numbers"),
    "zero extent": (edit("nodes", 0, "scale", [0, 0, 0]), "zero extent"),
    "view beyond the buffer": (edit("bufferViews", 1, "byteLength", 10**9), "ends at byte"),
    "accessor beyond the view": (edit("bufferViews", 1, "byteLength", 8), "requires 48 bytes"),
    "unknown component": (edit("accessors", 0, "componentType", 5124), "componentType"),
    "10 million vertices": (edit("accessors", 0, "count", 10_000_000), "10000000 vertices, expected at most"),
    "10 million triangles": (edit("accessors", 1, "count", 30_000_000), "30000000 vertices"),
    "unknown extension": (edit("extensionsRequired", ["ACME_magic"]), "ACME_magic"),
    "KTX2": (edit("extensionsRequired", ["KHR_texture_basisu"]), "PNG, JPEG or WebP"),
    "glTF 1": (edit("asset", "version", "1.0"), "convert it to glTF 2.0"),
    "no version": (edit("asset", {}), "asset.version is missing"),
    "alpha mode": (edit("materials", 0, "alphaMode", "GLASS"), "OPAQUE, MASK or BLEND"),
    "texture set": (
        edit("materials", 0, "pbrMetallicRoughness", "baseColorTexture", "texCoord", 10**6),
        "expected below 8",
    ),
    "no image": (edit("images", 0, {}), "neither a bufferView nor a uri"),
    "no such image": (edit("images", 0, {"uri": "http://x/y.png"}), "not a path relative"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID_EDITS)
def test_errors_name_the_asset_and_the_fault(case):
    fault, message = INVALID_EDITS[case]
    tiny = GOOD()
    gltf.load(tiny.glb())
    fault(tiny)
    with pytest.raises(gltf.GltfError, match=message) as error:
        gltf.load(tiny.glb(), name="thing.glb")
    assert str(error.value).startswith("thing.glb: ")


def test_unsupported_files_are_distinguished_from_invalid_ones():
    tiny = GOOD()
    tiny.json["extensionsRequired"] = ["ACME_magic"]
    with pytest.raises(gltf.UnsupportedGltf):
        gltf.load(tiny.glb())
    tiny.json["extensionsRequired"] = ["KHR_materials_clearcoat"]  # affects only shading: ignored
    gltf.load(tiny.glb())
    with pytest.raises(gltf.GltfError) as broken:
        gltf.load(b"hello")
    assert not isinstance(broken.value, gltf.UnsupportedGltf)


def test_nan_in_the_data_is_rejected():
    points = CORNERS.copy()
    points[2, 1] = np.nan
    tiny = TinyGltf()
    tiny.scene(tiny.node(mesh=tiny.mesh(points)))
    with pytest.raises(gltf.GltfError, match="NaN or infinity"):
        gltf.load(tiny.glb())


def test_an_infinite_pose_is_rejected():
    tiny = moving("scale", [0, 1], [[1, 1, 1], [1e30, 1e30, 1e30]])
    tiny.json["nodes"][0]["mesh"] = tiny.mesh(CORNERS * 1e20)
    asset = gltf.load(tiny.glb())
    with pytest.raises(gltf.GltfError, match="infinity"):
        asset.pose(0, 1.0)


def test_pointer_animations_are_noted_and_rejected_if_alone():
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    tiny.json["materials"] = [{}]
    tiny.json["meshes"][0]["primitives"][0]["material"] = 0
    extension = {"pointer": "/materials/0/emissiveFactor"}
    pointer = {"path": "pointer", "extensions": {"KHR_animation_pointer": extension}}
    tiny.json["animations"][0]["channels"].append({"sampler": 0, "target": pointer})
    assert "KHR_animation_pointer" in gltf.load(tiny.glb()).notes[0]
    del tiny.json["animations"][0]["channels"][0]
    with pytest.raises(gltf.UnsupportedGltf, match="KHR_animation_pointer"):
        gltf.load(tiny.glb())


def test_a_huge_texture_is_rejected_by_its_header():
    """30,000 x 30,000 pixels would be 3.6 GB; the size is in the first 33 bytes of the file."""
    import zlib

    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    for width, height in ((30_000, 30_000), (30_000, 1), (16_000, 10_000)):
        header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
        image = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b""))
            + chunk(b"IEND", b"")
        )
        tiny = textured({"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}, image)
        start = time.perf_counter()
        with pytest.raises(gltf.GltfError, match="pixel"):
            gltf.load(tiny.glb(), limits=gltf.Limits(texture_pixels=100_000_000))
        assert time.perf_counter() - start < 0.5


def test_limits_can_be_set():
    tiny = GOOD()
    for limit in ({"vertices": 11}, {"triangles": 3}, {"texture_side": 1}, {"nodes": 0}, {"file_bytes": 99}):
        with pytest.raises(gltf.GltfError, match="at most"):
            gltf.load(tiny.glb(), limits=gltf.Limits(**limit))


def test_truncated_files_are_rejected():
    data = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]]).glb()
    for length in range(0, len(data), 7):
        with pytest.raises(gltf.GltfError):
            gltf.load(data[:length])
    root, binary = split_glb(data)
    assert gltf.load(pack_glb(json.dumps(root).encode(), binary)).num_vertices == 12


# --- real models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ANIMATED)
def test_real_models_load_and_move(path):
    asset = gltf.load(model(path))
    assert asset.animations
    rest = asset.pose(None, 0)
    np.testing.assert_allclose(np.linalg.norm(rest.normals, axis=1), 1, atol=1e-4)
    longest = max(range(len(asset.animations)), key=lambda i: asset.animations[i].duration)
    animation = asset.animations[longest]
    a, b = (asset.pose(longest, animation.start + x * animation.duration).positions for x in (0.2, 0.55))
    assert np.abs(a - b).max() > 1e-3 * np.ptp(a, axis=0).max()


@pytest.mark.parametrize("path", INVALID)
def test_invalid_and_unsupported_files_are_rejected(path, tmp_path):
    write_invalid_models(tmp_path)
    with pytest.raises(gltf.GltfError, match=INVALID[path]) as error:
        gltf.load(tmp_path / path)
    assert str(error.value).startswith(path.split("/")[-1] + ": ")


@requires_collection
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("bad/BoxWithInfinites.glb", "NaN or infinity"),
        ("bad/CubeInvalidBufferViewLength.glb", "convert it to glTF 2.0"),
        ("bad/MissingBin_BoxTextured/MissingBin_BoxTextured.gltf", "BoxTextured0.bin is not a file"),
        ("bad/RecursiveNodes.gltf", "cycle"),
        ("bad/WrongJsonLength.glb", "GLB chunk"),
    ],
)
def test_collected_invalid_files_are_rejected(path, message):
    with pytest.raises(gltf.GltfError, match=message) as error:
        gltf.load(COLLECTION / path)
    assert str(error.value).startswith(path.split("/")[-1] + ": ")


@pytest.mark.parametrize("path", COMPRESSED)
def test_compressed_boxes_decode(path, tmp_path):
    pytest.importorskip("DracoPy"), pytest.importorskip("meshoptimizer")
    write_compressed_models(tmp_path)
    check_box(gltf.load(tmp_path / path))


@requires_collection
@pytest.mark.parametrize("path", ["unsupported/BoxDraco/BoxDraco.gltf", "unsupported/BoxMeshopt.glb"])
def test_collected_compressed_boxes_decode(path):
    check_box(gltf.load(COLLECTION / path))


def check_box(asset: gltf.Asset) -> None:
    """A cube from -0.5 to 0.5 with outward normals."""
    pose = asset.pose(None, 0)
    np.testing.assert_allclose(
        [pose.positions.min(0), pose.positions.max(0)], [[-0.5] * 3, [0.5] * 3], atol=1e-4
    )
    outward = (pose.normals * pose.positions).sum(1)
    np.testing.assert_allclose(outward, 0.5, atol=5e-3)


@pytest.mark.parametrize(
    "error, message",
    [
        (
            TypeError("5 is not iterable"),
            "internal error of menagerie4d (TypeError: 5 is not iterable); please report",
        ),
        (IndexError("no item 3"), "internal error of menagerie4d (IndexError: no item 3); please report"),
        (MemoryError("70 GiB"), "too large or nested too deeply to be read (70 GiB)"),
    ],
)
def test_a_fault_of_the_reader_is_not_blamed_on_the_file(error, message, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr("renderers.gltf.asset.read_nodes", fail)
    with pytest.raises(gltf.GltfError) as caught:
        gltf.load(model("greenman.glb").read_bytes(), name="fox.glb")
    assert str(caught.value).startswith(f"fox.glb: {message}") and caught.value.__cause__ is error
