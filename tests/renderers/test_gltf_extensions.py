"""Extensions: those that move or hide something are applied, and the others are reported if they change the images."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_assets import COLLECTION, requires_collection
from tiny_gltf import CORNERS, FACES, TinyGltf, moving, pack_glb, split_glb

from renderers import gltf
from renderers.gltf.extensions import EXTENSIONS, GROUPS, page
from renderers.meshes import blender

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "assets" / "cases"

# "Ratified Khronos Extensions" in the registry, github.com/KhronosGroup/glTF/blob/main/extensions/README.md, and
# KHR_meshopt_compression.
RATIFIED = """
    KHR_animation_pointer KHR_draco_mesh_compression KHR_gaussian_splatting KHR_interactivity KHR_lights_punctual
    KHR_materials_anisotropy KHR_materials_clearcoat KHR_materials_dispersion KHR_materials_emissive_strength
    KHR_materials_ior KHR_materials_iridescence KHR_materials_sheen KHR_materials_specular KHR_materials_transmission
    KHR_materials_unlit KHR_materials_variants KHR_materials_volume KHR_mesh_quantization KHR_meshopt_compression
    KHR_node_hoverability KHR_node_selectability KHR_node_visibility KHR_texture_basisu KHR_texture_transform
    KHR_xmp_json_ld EXT_mesh_gpu_instancing EXT_meshopt_compression EXT_texture_webp
""".split()


def rolled(triangles: np.ndarray) -> list:
    """Triangles [F, 3, 3] in a canonical order; corners may be rotated within a triangle, which keeps the winding."""
    rounded = np.round(np.asarray(triangles, float), 4) + 0.0
    return sorted(min(np.roll(triangle, i, 0).tolist() for i in range(3)) for triangle in rounded)


def drawn(asset: gltf.Asset, animation: int | None = None, time: float = 0.0) -> np.ndarray:
    """All triangles with an area, [F, 3, 3]; those of mirrored parts are reversed, so that fronts have one winding."""
    pose, triangles = asset.pose(animation, time), []
    for part, mirrored in zip(asset.primitives, pose.mirrored, strict=True):
        corners = pose.positions[part.triangles]
        triangles.append(corners[:, ::-1] if mirrored else corners)
    corners = np.concatenate(triangles)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return corners[areas > 1e-12]


# --- the table ------------------------------------------------------------------------------------


def test_every_ratified_extension_is_in_the_table():
    assert set(RATIFIED) <= {extension.name for extension in GROUPS["Ratified by Khronos"]}
    assert sum(map(len, GROUPS.values())) == len(EXTENSIONS), "an extension is listed twice"
    for extension in EXTENSIONS.values():
        assert extension.effect and not (extension.note and extension.handling in ("drawn", "refused"))


def test_the_page_is_generated_from_the_table():
    assert (ROOT / "docs" / "gltf-extensions.md").read_text() == page()
    for extension in EXTENSIONS.values():
        assert f"| `{extension.name}`" in page()


@pytest.mark.parametrize("name", sorted(EXTENSIONS) + ["ACME_unheard_of"])
def test_a_required_extension_is_refused_or_loads_as_the_table_says(name):
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    tiny.json["extensionsUsed"] = tiny.json["extensionsRequired"] = [name]
    if name not in EXTENSIONS or EXTENSIONS[name].refused_if_required:
        with pytest.raises(gltf.UnsupportedGltf, match=name):
            gltf.load(tiny.glb())
    else:
        gltf.load(tiny.glb())


# --- notes ----------------------------------------------------------------------------------------


def with_material(**extensions) -> TinyGltf:
    tiny = TinyGltf()
    material = tiny.add("materials", extensions=extensions)
    tiny.scene(tiny.node(mesh=tiny.mesh(material=material)))
    return tiny


@pytest.mark.parametrize(
    ("name", "value", "without"),
    [
        ("KHR_materials_transmission", {"transmissionFactor": 0.9}, {"transmissionFactor": 0.0}),
        ("KHR_materials_volume", {"thicknessFactor": 1}, {}),
        ("KHR_materials_clearcoat", {"clearcoatFactor": 1}, {"clearcoatRoughnessFactor": 1}),
        ("KHR_materials_sheen", {"sheenColorFactor": [1, 0, 0]}, {"sheenRoughnessFactor": 0.5}),
        ("KHR_materials_specular", {"specularFactor": 0.5}, {"specularColorFactor": [1.0, 1.0, 1.0]}),
        ("KHR_materials_specular", {"specularTexture": {"index": 0}}, {"specularFactor": 1}),
        ("KHR_materials_ior", {"ior": 2.4}, {"ior": 1.45}),
        ("KHR_materials_iridescence", {"iridescenceFactor": 1}, {"iridescenceIor": 1.5}),
        ("KHR_materials_anisotropy", {"anisotropyStrength": 0.6}, {"anisotropyRotation": 1}),
        ("KHR_materials_dispersion", {"dispersion": 0.1}, {}),
        ("KHR_materials_diffuse_transmission", {"diffuseTransmissionFactor": 0.25}, {}),
    ],
)
def test_a_material_extension_is_noted_if_it_has_an_effect(name, value, without):
    assert gltf.load(with_material(**{name: value}).glb()).notes == (EXTENSIONS[name].sentence,)
    assert gltf.load(with_material(**{name: without}).glb()).notes == ()
    assert gltf.load(with_material(**{name: value, "KHR_materials_unlit": {}}).glb()).notes == ()


def test_the_words_of_a_note():
    tiny = with_material(
        KHR_materials_transmission={"transmissionFactor": 1}, ACME_glitter={}, KHR_materials_unlit={}
    )
    assert gltf.load(tiny.glb()).notes == ("ACME_glitter is ignored: the extension is unknown",)
    tiny = with_material(KHR_materials_transmission={"transmissionFactor": 1})
    sentence = "KHR_materials_transmission is ignored: transparent surfaces are drawn opaque"
    assert gltf.load(tiny.glb()).notes == (sentence,)


def test_only_what_is_drawn_is_noted():
    tiny = with_material()
    unused = tiny.add("materials", extensions={"KHR_materials_sheen": {"sheenColorFactor": [1, 1, 1]}})
    tiny.json["extensions"] = {"KHR_lights_punctual": {"lights": [{"type": "point"}]}}
    tiny.json["extensionsUsed"] = ["KHR_materials_sheen", "KHR_lights_punctual", "ACME_absent"]
    assert gltf.load(tiny.glb()).notes == (), "listed, but nothing drawn uses it"
    light = tiny.node(extensions={"KHR_lights_punctual": {"light": 0}})
    assert gltf.load(tiny.glb()).notes == (), "the lamp is in no scene"
    tiny.json["scenes"][0]["nodes"].append(light)
    assert gltf.load(tiny.glb()).notes == (EXTENSIONS["KHR_lights_punctual"].sentence,)
    tiny.json["nodes"][light]["extensions"]["KHR_node_visibility"] = {"visible": False}
    assert gltf.load(tiny.glb()).notes == (), "the lamp is hidden"
    tiny.json["meshes"][0]["primitives"][0]["material"] = unused
    assert gltf.load(tiny.glb()).notes == (EXTENSIONS["KHR_materials_sheen"].sentence,)


@pytest.mark.parametrize(
    "place",
    ["extensions", "scenes", "nodes", "meshes", "primitives", "materials", "textures", "images"],
)
def test_an_unknown_extension_is_noted_wherever_it_is(place):
    tiny = with_material()
    tiny.json["materials"][0] = {"normalTexture": {"index": 0, "extras": {"extensions": {"NOT_one": {}}}}}
    data = io.BytesIO()
    Image.new("RGB", (1, 1)).save(data, "PNG")
    tiny.json["textures"] = [{"source": 0}]
    tiny.json["images"] = [{"bufferView": tiny.view(data.getvalue())}]
    entry = {"ACME_x": {}}
    if place == "extensions":
        tiny.json["extensions"] = entry
    elif place == "primitives":
        tiny.json["meshes"][0]["primitives"][0]["extensions"] = entry
    else:
        tiny.json[place][0]["extensions"] = entry
    assert gltf.load(tiny.glb()).notes == ("ACME_x is ignored: the extension is unknown",)


def test_a_texture_in_a_format_that_is_not_read_is_noted():
    tiny = with_material()
    tiny.json["materials"][0]["pbrMetallicRoughness"] = {"baseColorTexture": {"index": 0}}
    tiny.json["textures"] = [{"extensions": {"EXT_texture_avif": {"source": 0}}}]
    (note,) = gltf.load(tiny.glb()).notes
    assert note == "EXT_texture_avif is ignored: a texture without a fallback is left out"


# --- Draco ----------------------------------------------------------------------------------------


def test_draco_colours_are_divided_by_the_maximum_of_their_accessor():
    asset = gltf.load(CASES / "D02_draco_color_u16_normalized.glb")
    linear = asset.colors[0, :3]
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.round(255 * encoded).tolist() == [188, 137, 99]


def draco(positions, attribute, values, component: int, *, normalized: bool, points: int = 5126) -> TinyGltf:
    """A Draco mesh of two triangles with one attribute besides the positions."""
    library = pytest.importorskip("DracoPy")
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
    data = library.encode(positions, faces, preserve_order=True, generic_attributes={7: np.asarray(values)})
    unique = {item["unique_id"]: item for item in library.decode(data).attributes}
    keys = {attribute: 7, "POSITION": next(key for key in unique if key != 7)}
    tiny = TinyGltf()
    extension = {"bufferView": tiny.view(data), "attributes": keys}
    position = tiny.add(
        "accessors", componentType=points, count=4, type="VEC3", normalized=normalized and points != 5126
    )
    width = np.asarray(values).shape[1]
    other = tiny.add("accessors", componentType=component, count=4, type=f"VEC{width}", normalized=normalized)
    indices = tiny.add("accessors", componentType=5125, count=6, type="SCALAR")
    mesh = tiny.mesh(
        position,
        None,
        attributes={attribute: other, "NORMAL": tiny.accessor([[0, 0, 1]] * 4)},
        extensions={"KHR_draco_mesh_compression": extension},
        indices=indices,
    )
    tiny.scene(tiny.node(mesh=mesh))
    return tiny


SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])


@pytest.mark.parametrize(
    ("dtype", "component", "largest"), [(np.uint8, 5121, 255), (np.uint16, 5123, 65535)], ids=["u1", "u2"]
)
@pytest.mark.parametrize("attribute", ["TEXCOORD_0", "COLOR_0"])
def test_normalised_draco_attributes(attribute, dtype, component, largest):
    values = np.array([[0, 10, 200], [3, 255, 1], [7, 77, 177], [100, 0, 50]], dtype)
    values = values[:, : 2 if attribute == "TEXCOORD_0" else 3]
    tiny = draco(SQUARE.astype(np.float32), attribute, values, component, normalized=True)
    asset = gltf.load(tiny.glb())
    stored = asset.texcoords[:, 0] if attribute == "TEXCOORD_0" else asset.colors[:, :3]
    np.testing.assert_allclose(stored, values / largest, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "component", "largest"), [(np.uint8, 5121, 255), (np.uint16, 5123, 65535)], ids=["u1", "u2"]
)
def test_draco_weights_of_a_skin(dtype, component, largest):
    weights = (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.4, 0, 0], [0, 1, 0, 0]]) * largest).astype(dtype)
    tiny = draco(SQUARE.astype(np.float32), "WEIGHTS_0", weights, component, normalized=True)
    tiny.json["meshes"][0]["primitives"][0]["attributes"]["JOINTS_0"] = tiny.accessor(
        [[0, 1, 0, 0]] * 4, "u1"
    )
    joints = [tiny.node(), tiny.node()]
    tiny.json["nodes"][0]["skin"] = tiny.skin(joints)
    tiny.scene(0, *joints)
    tiny.animation((joints[1], "translation", [0, 1], [[0, 0, 0], [0, 0, 4]]))
    asset = gltf.load(tiny.glb())
    np.testing.assert_allclose(asset.positions(0, 1.0)[:, 2], [0, 4, 1.6, 4], atol=0.02)


@pytest.mark.parametrize(("normalized", "largest"), [(True, 32767), (False, 1)])
def test_quantised_draco_positions(normalized, largest):
    """Draco stores integers of 32 bits, which its decoder returns as floats; the accessor has 16."""
    positions = (SQUARE * 32767 - [0, 0, 5]).astype(np.int16)
    values = np.zeros((4, 2), np.uint8)
    tiny = draco(positions, "TEXCOORD_0", values, 5121, normalized=normalized, points=5122)
    result = gltf.load(tiny.glb()).pose(None, 0).positions
    np.testing.assert_allclose(result, positions / largest, rtol=1e-6)


# --- KHR_meshopt_compression ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["KHR_meshopt_compression", "EXT_meshopt_compression"])
@pytest.mark.parametrize("version", [0, 1])
def test_both_names_and_versions_of_meshopt_decode(name, version):
    meshopt = pytest.importorskip("meshoptimizer")
    from meshoptimizer._loader import lib

    points = (np.random.default_rng(0).normal(size=(40, 3))).astype(np.float32)
    lib.meshopt_encodeVertexVersion(version)
    try:
        data = bytes(meshopt.encode_vertex_buffer(points, 40, 12))
    finally:
        lib.meshopt_encodeVertexVersion(0)
    assert data[0] == 0xA0 + version
    tiny = TinyGltf()
    view = tiny.view(data)
    packed = dict(tiny.json["bufferViews"][view], count=40, byteStride=12, mode="ATTRIBUTES")
    tiny.json["bufferViews"][view] |= {"buffer": 1, "byteLength": 480, "extensions": {name: packed}}
    tiny.json["buffers"] = [{}, {"byteLength": 480, "extensions": {name: {"fallback": True}}}]
    tiny.json["extensionsRequired"] = [name]
    tiny.add("accessors", bufferView=view, componentType=5126, count=40, type="VEC3")
    faces = np.arange(39)
    tiny.scene(tiny.node(mesh=tiny.mesh(0, faces)))
    np.testing.assert_array_equal(gltf.load(tiny.glb()).pose(None, 0).positions, points[:39])


def encoded_color(rgba, bits: int, dtype: str) -> np.ndarray:
    """Encode colours [n, 4] in 0-1 with the filter COLOR: the inverse of the formulas of the specification."""
    r, g, b, a = np.round(np.asarray(rgba) * (2**bits - 1)).astype(int).T
    co = (r - b) // 2
    t = b + co
    cg = (g - t) // 2
    y = t + cg  # reversible up to one unit
    alpha = a >> 1 | 1 << (bits - 1)
    return np.stack([y, co, cg, alpha], 1).astype(dtype)


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u1", 6), ("<u2", 16), ("<u2", 12), ("<u2", 8)])
def test_the_colour_filter(dtype, bits):
    meshopt = pytest.importorskip("meshoptimizer")
    size = np.dtype(dtype).itemsize
    colours = np.random.default_rng(1).uniform(size=(36, 4))
    colours[:3] = [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0.5]]
    stored = encoded_color(colours, bits, dtype)
    data = bytes(meshopt.encode_vertex_buffer(stored.view(f"V{4 * size}").reshape(-1), 36, 4 * size))
    tiny = TinyGltf()
    view = tiny.view(data)
    packed = dict(
        tiny.json["bufferViews"][view], count=36, byteStride=4 * size, mode="ATTRIBUTES", filter="COLOR"
    )
    tiny.json["bufferViews"][view]["extensions"] = {"KHR_meshopt_compression": packed}
    colour = tiny.add(
        "accessors",
        bufferView=view,
        componentType=5121 if size == 1 else 5123,
        count=36,
        type="VEC4",
        normalized=True,
    )
    points = tiny.accessor(np.random.default_rng(2).normal(size=(36, 3)))
    attributes = {"COLOR_0": colour, "NORMAL": tiny.accessor([[0, 0, 1]] * 36)}
    tiny.scene(tiny.node(mesh=tiny.mesh(points, np.arange(36), attributes=attributes)))
    result = gltf.load(tiny.glb()).colors
    step = 1 / (2**bits - 1)
    np.testing.assert_allclose(result[:, :3], colours[:, :3], atol=2.6 * step)
    np.testing.assert_allclose(result[:, 3], colours[:, 3], atol=2.6 * step)


def test_the_colour_filter_on_values_computed_by_hand():
    """K = 8: Y 100, Co 20, Cg -10 give R 130, G 90, B 90; alpha 0b1_0000001 → 0b00000011 = 3."""
    from renderers.gltf.compression import _decode_color

    stored = np.array([[100, 20, 246, 0x81]], np.uint8)
    np.testing.assert_array_equal(_decode_color(stored, 1, 4), [[130, 90, 90, 3]])
    # K = 4 in 16 bits: full scale is 15; Y 10, Co -2, Cg 1 give 7, 11, 11; alpha 0b1_101 → 0b1011 = 11.
    stored = np.array([[10, 65534, 1, 0b1101]], np.uint16)
    expected = np.round(np.array([[7, 11, 11, 11]]) * 65535 / 15)
    np.testing.assert_array_equal(_decode_color(stored.view(np.uint8), 1, 8), expected)


# --- EXT_mesh_gpu_instancing ----------------------------------------------------------------------


def instanced(translation=None, rotation=None, scale=None, **node) -> TinyGltf:
    """A tetrahedron with instances at a node that moves along X."""
    tiny = TinyGltf()
    attributes = {
        name: tiny.accessor(values)
        for name, values in (("TRANSLATION", translation), ("ROTATION", rotation), ("SCALE", scale))
        if values is not None
    }
    extensions = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    index = tiny.node(**({"mesh": tiny.mesh()} | node), extensions=extensions)
    tiny.scene(index)
    tiny.animation((index, "translation", [0, 1], [[0, 0, 0], [10, 0, 0]]))
    return tiny


def test_three_cubes_are_drawn():
    asset = gltf.load(CASES / "V03_gpu_instancing_used.glb")
    centres = asset.pose(None, 0).positions.reshape(3, 24, 3).mean(1)
    assert sorted(np.round(centres[:, 0], 4).tolist()) == [-2, 0, 2] and asset.notes == ()
    assert len(drawn(asset)) == 36


def test_instances_are_transformed_before_the_node():
    half = np.sqrt(0.5)
    translation, scale = [[1, 0, 0], [0, 5, 0]], [[1, 1, 1], [2, 3, 4]]
    tiny = instanced(translation, [[0, 0, 0, 1], [0, 0, half, half]], scale)
    tiny.json["nodes"][0]["scale"] = [2, 2, 2]
    asset = gltf.load(tiny.glb())
    second = CORNERS * [2, 3, 4] @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + [
        0,
        5,
        0,
    ]  # a quarter turn about Z
    for time in (0.0, 0.5):
        expected = np.concatenate([CORNERS + [1, 0, 0], second]) * 2 + [10 * time, 0, 0]
        faces = np.concatenate([FACES, FACES + 4])
        assert rolled(drawn(asset, 0, time)) == rolled(expected[faces])


def test_instances_below_an_animated_parent_and_of_normalised_integers():
    tiny = instanced(rotation=[[0, 0, 0, 1]])
    attributes = tiny.json["nodes"][0]["extensions"]["EXT_mesh_gpu_instancing"]["attributes"]
    attributes["ROTATION"] = tiny.accessor([[0, 0, 0, 127], [0, 127, 0, 0]], "i1", normalized=True)
    parent = tiny.node(children=[0])
    tiny.json["scenes"][0]["nodes"] = [parent]
    tiny.animation((parent, "scale", [0, 1], [[1, 1, 1], [3, 3, 3]]))
    expected = np.concatenate([CORNERS, CORNERS * [-1, 1, -1]])[np.concatenate([FACES, FACES + 4])]
    asset = gltf.load(tiny.glb())
    assert rolled(drawn(asset, 1, 1.0)) == rolled(expected * 3)


@pytest.mark.parametrize("smooth", [False, True])
def test_mirrored_instances_keep_their_outside_outside(smooth):
    """Signed volume and normals of a mirrored copy point outward, for a mesh with normals and one without."""
    tiny = instanced([[0, 0, 0], [9, 0, 0]], scale=[[1, 1, 1], [-1, 1, 1]])
    if smooth:
        normals = CORNERS - CORNERS.mean(0)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        tiny.json["meshes"][0]["primitives"][0]["attributes"]["NORMAL"] = tiny.accessor(normals)
    asset = gltf.load(tiny.glb())
    triangles = drawn(asset)
    for copy in np.split(triangles, 2):
        centred = copy - copy.mean((0, 1))
        assert np.einsum("fi,fi->", centred[:, 0], np.cross(centred[:, 1], centred[:, 2])) == pytest.approx(
            6.0
        )
    pose = asset.pose(None, 0)
    copies = np.split(pose.positions, 2), np.split(pose.normals, 2)
    for points, normals in zip(*copies, strict=True):
        assert ((points - points.mean(0)) * normals).sum(1).min() > 0


def test_morph_targets_apply_to_every_instance():
    tiny = instanced([[0, 0, 0], [5, 0, 0]], scale=[[1, 1, 1], [2, 2, 2]])
    primitive = tiny.json["meshes"][0]["primitives"][0]
    primitive["targets"] = [{"POSITION": tiny.accessor([[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]])}]
    tiny.animation((0, "weights", [0, 1], [0, 1]))
    shape = CORNERS + [[0, 0, 0], [0, 0, 0], [0, 0.5, 0], [0, 0, 0]]
    expected = np.concatenate([shape, shape * 2 + [5, 0, 0]])[np.concatenate([FACES, FACES + 4])]
    assert rolled(drawn(gltf.load(tiny.glb()), 1, 0.5)) == rolled(expected)


def test_instances_of_a_skinned_mesh_and_of_unequal_counts_are_refused():
    tiny = instanced([[0, 0, 0], [5, 0, 0]])
    tiny.json["meshes"][0]["primitives"][0]["attributes"] |= {
        "JOINTS_0": tiny.accessor([[0, 0, 0, 0]] * 4, "u1"), "WEIGHTS_0": tiny.accessor([[1, 0, 0, 0]] * 4)
    }  # fmt: skip
    gltf.load(tiny.glb())  # without a skin, the joints are not used
    tiny.json["nodes"][0]["skin"] = tiny.skin([tiny.node()])
    with pytest.raises(gltf.UnsupportedGltf, match="skin and EXT_mesh_gpu_instancing"):
        gltf.load(tiny.glb())
    with pytest.raises(gltf.GltfError, match="equal counts"):
        gltf.load(instanced([[0, 0, 0]], scale=[[1, 1, 1], [1, 1, 1]]).glb())


def test_instances_count_towards_the_limits_before_anything_is_read():
    tiny = instanced([[0, 0, 0]])
    tiny.json["accessors"][0]["count"] = 10**9
    with pytest.raises(gltf.GltfError, match="vertices, expected at most"):
        gltf.load(tiny.glb())


def test_custom_attributes_alone_do_not_make_copies():
    tiny = instanced()
    attributes = tiny.json["nodes"][0]["extensions"]["EXT_mesh_gpu_instancing"]["attributes"]
    attributes["_ID"] = tiny.accessor([1, 2, 3])
    assert len(drawn(gltf.load(tiny.glb()))) == 4


# --- KHR_node_visibility --------------------------------------------------------------------------


def hidden(visible: bool = False) -> dict:
    return {"KHR_node_visibility": {"visible": visible}}


def test_a_hidden_quad_is_not_drawn():
    asset = gltf.load(CASES / "V01_node_visibility_used.glb")
    assert [primitive.node for primitive in asset.primitives] == [0] and asset.notes == ()
    assert np.ptp(asset.pose(None, 0).positions[:, 2]) == 0


@pytest.mark.parametrize(
    ("root", "child", "shown"), [(True, True, 2), (True, False, 1), (False, True, 0), (False, False, 0)]
)
def test_a_hidden_parent_hides_its_children(root, child, shown):
    tiny = TinyGltf()
    mesh = tiny.mesh()
    below = tiny.node(mesh=mesh, extensions=hidden(child))
    above = tiny.node(mesh=mesh, children=[below], extensions=hidden(root))
    other = tiny.node(mesh=mesh, translation=[9, 0, 0], extensions={"KHR_node_visibility": {}})
    tiny.scene(above, other)
    assert len(gltf.load(tiny.glb()).primitives) == shown + 1
    tiny.json["scenes"][0]["nodes"] = [above]
    if not shown:
        with pytest.raises(gltf.GltfError, match="no mesh that is visible"):
            gltf.load(tiny.glb())


def test_a_hidden_joint_still_moves_its_skin():
    tiny = TinyGltf()
    joint = tiny.node(extensions=hidden(), translation=[0, 7, 0])
    joints = {"JOINTS_0": tiny.accessor([[0] * 4] * 4, "u1"), "WEIGHTS_0": tiny.accessor([[1, 0, 0, 0]] * 4)}
    node = tiny.node(mesh=tiny.mesh(attributes=joints), skin=tiny.skin([joint]))
    tiny.scene(joint, node)
    assert rolled(drawn(gltf.load(tiny.glb()))) == rolled((CORNERS + [0, 7, 0])[FACES])


def point(
    tiny: TinyGltf, pointer: str, times, values, interpolation="LINEAR", dtype="f4", animation=0
) -> None:
    """Add a KHR_animation_pointer channel."""
    owner = tiny.json["animations"][animation]
    sampler = {
        "input": tiny.accessor(times),
        "output": tiny.accessor(values, dtype),
        "interpolation": interpolation,
    }
    owner["samplers"].append(sampler)
    target = {"path": "pointer", "extensions": {"KHR_animation_pointer": {"pointer": pointer}}}
    owner["channels"].append({"sampler": len(owner["samplers"]) - 1, "target": target})


def blinking() -> TinyGltf:
    """A tetrahedron that stays; a second one 9 m beside it is hidden at rest, and shown from 1 s to 2 s."""
    tiny = TinyGltf()
    mesh = tiny.mesh()
    below = tiny.node(mesh=mesh)
    tiny.scene(tiny.node(mesh=mesh), tiny.node(children=[below], translation=[9, 0, 0], extensions=hidden()))
    tiny.add("animations", samplers=[], channels=[])
    pointer = "/nodes/2/extensions/KHR_node_visibility/visible"
    point(tiny, pointer, [0, 1, 2], [[0], [255], [0]], "STEP", "u1")
    return tiny


def test_visibility_can_be_animated():
    asset = gltf.load(blinking().glb())
    assert [len(drawn(asset, 0, time)) for time in (-1, 0, 0.99, 1, 1.5, 2, 3)] == [4, 4, 4, 8, 8, 4, 4]
    assert len(drawn(asset)) == 4 and asset.notes == ()
    pose = asset.pose(0, 0.5).positions
    np.testing.assert_allclose(
        pose.max(0), CORNERS.max(0), err_msg="what is hidden must not affect the framing"
    )
    np.testing.assert_allclose(asset.pose(0, 1.5).positions.max(0), CORNERS.max(0) + [9, 0, 0])
    assert (asset.animations[0].start, asset.animations[0].end) == (0, 2)


def test_animated_visibility_of_parents_children_and_moving_nodes():
    tiny = blinking()
    tiny.json["nodes"][0]["extensions"] = hidden()  # the child: hidden whatever its parent does
    assert [len(drawn(gltf.load(tiny.glb()), 0, time)) for time in (0, 1.5)] == [4, 4]
    tiny = blinking()
    tiny.json["nodes"][1]["extensions"] = hidden(True)
    point(tiny, "/nodes/1/extensions/KHR_node_visibility/visible", [0, 1.5], [[1], [0]], "STEP", "u1")
    point(tiny, "/nodes/2/translation", [0, 2], [[0, 0, 0], [0, 20, 0]])
    asset = gltf.load(tiny.glb())
    assert [len(drawn(asset, 0, time)) for time in (0.5, 1, 1.75, 2)] == [4, 8, 4, 0]
    assert rolled(drawn(asset, 0, 1.75)) == rolled((CORNERS + [0, 17.5, 0])[FACES])
    assert len(drawn(asset)) == 4


# --- KHR_animation_pointer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("translation", [[0, 0, 0], [1, 2, 3]]),
        ("scale", [[1, 1, 1], [2, 3, 4]]),
        ("rotation", [[0, 0, 0, 1], [0, 0.6, 0, 0.8]]),
    ],
)
@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP"])
def test_pointers_to_node_transforms_equal_plain_channels(path, values, interpolation):
    plain = gltf.load(moving(path, [0, 1], values, interpolation).glb())
    tiny = moving(path, [0, 1], values, interpolation)
    tiny.json["animations"] = [{"samplers": [], "channels": []}]
    point(tiny, f"/nodes/0/{path}", [0, 1], values, interpolation)
    asset = gltf.load(tiny.glb())
    assert asset.animations[0].channels == 1 and asset.notes == ()
    for time in (0, 0.3, 1):
        np.testing.assert_array_equal(asset.pose(0, time).positions, plain.pose(0, time).positions)


def morphed(pointer: str, times, values, **node) -> TinyGltf:
    """A mesh with two targets, which raise vertex 1 by 1 in Y and vertex 2 by 1 in Z."""
    tiny = TinyGltf()
    targets = [
        {"POSITION": tiny.accessor(np.eye(4)[:, 1:2] * [0, 1, 0])},
        {"POSITION": tiny.accessor(np.eye(4)[:, 2:3] * [0, 0, 1])},
    ]
    mesh = tiny.mesh(targets=targets)
    tiny.scene(tiny.node(mesh=mesh, **node), tiny.node(mesh=mesh, translation=[9, 0, 0], weights=[0, 0]))
    tiny.add("animations", samplers=[], channels=[])
    point(tiny, pointer, times, values)
    return tiny


@pytest.mark.parametrize(
    ("pointer", "values", "first", "second"),
    [
        ("/nodes/0/weights", [0, 0.25, 1, 0.75], [0.5, 0.5], [0, 0]),
        ("/nodes/0/weights/1", [0, 1], [0.125, 0.5], [0, 0]),
        ("/nodes/1/weights/0", [0, 1], [0.125, 0], [0.5, 0]),
        ("/meshes/0/weights", [0, 0, 1, 0.5], [0.5, 0.25], [0, 0]),
        ("/meshes/0/weights/0", [1, 0], [0.5, 0], [0, 0]),
    ],
)
def test_pointers_to_morph_weights(pointer, values, first, second):
    """Weights of the mesh do not apply to the second node, which has its own."""
    tiny = morphed(pointer, [0, 1], values)
    tiny.json["meshes"][0]["weights"] = [0.125, 0]
    pose = gltf.load(tiny.glb()).pose(0, 0.5).positions
    expected = []
    for x, weights in ((0, first), (9, second)):
        corners = CORNERS + [[0, 0, 0], [0, weights[0], 0], [0, 0, weights[1]], [0, 0, 0]] + [x, 0, 0]
        expected.append(corners[FACES])
    assert rolled(pose.reshape(-1, 3, 3)) == rolled(np.concatenate(expected))


@pytest.mark.parametrize(
    ("pointer", "subject"),
    [
        ("/materials/0/pbrMetallicRoughness/baseColorFactor", "materials"),
        ("/materials/0/emissiveFactor", "materials"),
        ("/materials/1/emissiveFactor", None),
        ("/cameras/0/perspective/yfov", "cameras"),
        ("/extensions/KHR_lights_punctual/lights/0/color", "lights"),
        ("/nodes/0/extensions/ACME_x/y", "properties other"),
        ("/nodes/0/translation/1", "properties other"),
        ("nonsense", "properties other"),
        ("/nodes/99/translation", None),
        ("/nodes/0/weights/7", None),
    ],
)
def test_other_pointers_are_ignored_with_a_note(pointer, subject):
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    tiny.json["materials"] = [{}, {}]
    tiny.json["meshes"][0]["primitives"][0]["material"] = 0
    point(tiny, pointer, [0, 1], [[0, 0, 0], [1, 1, 1]])
    asset = gltf.load(tiny.glb())
    assert asset.animations[0].channels == 1
    if subject is None:
        assert asset.notes == ()
    else:
        (note,) = asset.notes
        assert note.startswith(f"KHR_animation_pointer is ignored for {subject}")


def test_the_same_property_twice_is_refused():
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    point(tiny, "/nodes/0/translation", [0, 1], [[0, 0, 0], [2, 0, 0]])
    with pytest.raises(gltf.GltfError, match="second channel"):
        gltf.load(tiny.glb())


@requires_collection
def test_a_collected_file_with_pointers_to_nodes_lights_and_materials():
    path = COLLECTION / "unsupported/24_animation_pointer/24_animation_pointer.gltf"
    asset = gltf.load(path)
    subjects = {note.split(" for ")[1].split()[0].rstrip(",") for note in asset.notes if "pointer" in note}
    assert subjects == {"materials", "lights", "cameras"}
    root = json.loads(path.read_text())
    channels = root["animations"][0]["channels"]
    pointers = [c["target"]["extensions"]["KHR_animation_pointer"]["pointer"] for c in channels]
    users = sum(node.get("mesh") == 33 for node in root["nodes"])  # of the only mesh whose weights are driven
    assert "/meshes/33/weights" in pointers and users == 2
    assert asset.animations[0].channels == sum(p.startswith("/nodes/") for p in pointers) + users == 25


def test_the_cases_are_drawn_the_same_without_the_extension_in_use():
    """The control: without the extension, the instanced and the hidden case draw one cube and two quads."""
    for name, extension, parts, triangles in (
        ("V03_gpu_instancing_used.glb", "EXT_mesh_gpu_instancing", 1, 12),
        ("V01_node_visibility_used.glb", "KHR_node_visibility", 2, 4),
    ):
        root, binary = split_glb((CASES / name).read_bytes())
        for node in root["nodes"]:
            node.get("extensions", {}).pop(extension, None)
        asset = gltf.load(pack_glb(json.dumps(root).encode(), binary))
        assert len(asset.primitives) == parts and len(drawn(asset)) == triangles


# --- Blender's importer as a reference ------------------------------------------------------------

TRIANGLES_IN_BLENDER = """
import sys, json, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[-1])
bpy.context.scene.frame_set(0)
triangles = []
for instance in bpy.context.evaluated_depsgraph_get().object_instances:
    if instance.object.type == "MESH" and instance.show_self:
        mesh = instance.object.to_mesh()
        mesh.calc_loop_triangles()
        for triangle in mesh.loop_triangles:
            points = [instance.matrix_world @ mesh.vertices[i].co for i in triangle.vertices]
            triangles.append([[p.x, p.z, -p.y] for p in points])
print("RESULT" + json.dumps(triangles))
"""


@pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`")
def test_instances_are_where_blender_places_them(tmp_path):
    """Random instances at a node with a rotated, unevenly scaled and mirrored parent."""
    rng = np.random.default_rng(3)
    turns = rng.normal(size=(5, 4))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    tiny = instanced(rng.normal(size=(5, 3)), turns, rng.uniform(0.5, 2, size=(5, 3)))
    del tiny.json["animations"]
    tiny.json["nodes"][0] |= {"rotation": [0, 0.6, 0, 0.8], "translation": [1, 2, 3]}
    tiny.json["scenes"][0]["nodes"] = [tiny.node(children=[0], rotation=[0.6, 0, 0, 0.8], scale=[-1, 2, 3])]
    tiny.json["extensionsUsed"] = tiny.json["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    file, script = tmp_path / "instances.glb", tmp_path / "triangles.py"
    file.write_bytes(tiny.glb())
    script.write_text(TRIANGLES_IN_BLENDER)
    done = subprocess.run(
        [str(blender.find()), str(script), str(file)], capture_output=True, text=True, timeout=300
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    expected = np.array(json.loads(line.removeprefix("RESULT")))
    asset = gltf.load(file)
    result = asset.pose(None, 0).positions[asset.primitives[0].triangles]
    assert expected.shape == (20, 3, 3)
    distance = np.abs(np.sort(result, 1)[:, None] - np.sort(expected, 1)[None]).max((2, 3))
    assert distance.min(0).max() < 1e-4 and distance.min(1).max() < 1e-4
