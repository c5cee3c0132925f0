"""Files that break the letter of glTF but whose meaning is certain load with the right values; others are refused."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_assets import CASES
from tiny_gltf import CORNERS, FACES, TinyGltf, moving, pack_glb, split_glb

from renderers import gltf

PIXELS = np.array([[[200, 30, 10], [0, 255, 0]], [[7, 7, 250], [255, 255, 255]]], np.uint8)


def textured(data: bytes | None = None, uri: str | None = None) -> TinyGltf:
    """A moving tetrahedron whose base colour texture is an embedded image, or a URI."""
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    tiny.add("images", **({"uri": uri} if uri is not None else {"bufferView": tiny.view(data)}))
    tiny.add("textures", source=0)
    tiny.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": 0}, "metallicFactor": 0})
    tiny.json["meshes"][0]["primitives"][0]["material"] = 0
    return tiny


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def base_colour(asset: gltf.Asset) -> np.ndarray | None:
    texture = asset.materials[0].base_color_texture
    return None if texture is None else texture.image[..., :3]


# --- JSON -----------------------------------------------------------------------------------------


def with_nulls(value):
    """Every optional member of the objects below, as null."""
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    if isinstance(value, dict):
        absent = dict.fromkeys(
            ("name", "extras", "extensions", "children", "skin", "camera", "mesh", "mode", "material", "targets",
             "weights", "matrix", "rotation", "scale", "translation", "byteStride", "byteOffset", "sparse",
             "normalized", "interpolation", "wrapS", "magFilter", "texCoord", "alphaMode", "alphaCutoff",
             "doubleSided", "emissiveFactor", "normalTexture", "metallicFactor", "baseColorFactor", "uri", "skins",
             "cameras", "extensionsUsed", "extensionsRequired", "generator", "sampler")
        )  # fmt: skip
        return absent | {key: with_nulls(item) for key, item in value.items()}
    return value


def without(value, key: str):
    if isinstance(value, list):
        return [without(item, key) for item in value]
    if isinstance(value, dict):
        return {name: without(item, key) for name, item in value.items() if name != key}
    return value


def as_floats(value):
    """Write all integers as 3.0."""
    if isinstance(value, list):
        return [as_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: as_floats(item) for key, item in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def assert_same(a: gltf.Asset, b: gltf.Asset) -> None:
    for time in (0.0, 0.4, 1.0):
        assert np.array_equal(a.positions(0, time), b.positions(0, time))
    assert np.array_equal(base_colour(a), base_colour(b))
    assert a.notes == b.notes == ()


@pytest.mark.parametrize("change", [with_nulls, as_floats, lambda root: with_nulls(as_floats(root))])
def test_nulls_are_absent_and_integers_may_be_written_as_floats(change):
    root, binary = split_glb(textured(encoded("PNG")).glb())
    changed = change(root)
    changed["asset"] = {"version": "2.0", "copyright": None}
    assert_same(
        gltf.load(pack_glb(json.dumps(root).encode(), binary)),
        gltf.load(pack_glb(json.dumps(changed).encode(), binary)),
    )


def test_required_members_may_not_be_null():
    root, binary = split_glb(textured(encoded("PNG")).glb())
    for collection, key in (("accessors", "count"), ("accessors", "type"), ("bufferViews", "byteLength")):
        changed = json.loads(json.dumps(root))
        changed[collection][0][key] = None
        with pytest.raises(gltf.GltfError):
            gltf.load(pack_glb(json.dumps(changed).encode(), binary))
    root["scenes"][0]["nodes"].append(None)
    with pytest.raises(gltf.GltfError, match="expected indices, got null"):
        gltf.load(pack_glb(json.dumps(root).encode(), binary))


LISTS = {
    "nodes": lambda root: root["nodes"],
    "meshes": lambda root: root["meshes"],
    "accessors": lambda root: root["accessors"],
    "animations": lambda root: root["animations"],
    "samplers": lambda root: root["animations"][0]["samplers"],
    "channels": lambda root: root["animations"][0]["channels"],
    "materials": lambda root: root["materials"],
    "images": lambda root: root["images"],
    "skins": lambda root: root.setdefault("skins", []),
    "scenes": lambda root: root["scenes"],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_null_in_a_list_keeps_its_place_and_is_an_error_only_if_it_is_used(name):
    tiny = textured(encoded("PNG"))
    expected = gltf.load(tiny.glb())
    LISTS[name](tiny.json).append(None)
    assert_same(gltf.load(tiny.glb()), expected)


def test_a_null_that_is_used_is_refused():
    for name, user in (("meshes", "nodes"), ("accessors", "meshes"), ("images", "textures")):
        tiny = textured(encoded("PNG"))
        tiny.json[name][0] = None
        with pytest.raises(gltf.GltfError):
            gltf.load(tiny.glb())
        assert tiny.json[user]


@pytest.mark.parametrize("place", ["nodes", "materials", "meshes", "asset"])
def test_empty_lists_for_empty_objects(place):
    """Some languages have one type for both."""
    tiny = textured(encoded("PNG"))
    expected = gltf.load(tiny.glb())
    owner = tiny.json[place] if place == "asset" else tiny.json[place][0]
    owner |= {"extensions": [], "extras": []}
    assert_same(gltf.load(tiny.glb()), expected)
    owner["extensions"] = ["KHR_x"]
    if place in ("nodes", "materials"):
        with pytest.raises(gltf.GltfError, match="expected an object"):
            gltf.load(tiny.glb())


def test_enumerations_in_lower_case():
    tiny = textured(encoded("PNG"))
    tiny.json["materials"][0]["alphaMode"] = "blend"
    tiny.json["animations"][0]["samplers"][0]["interpolation"] = "step"
    asset = gltf.load(tiny.glb())
    assert asset.materials[0].alpha_mode == "BLEND" and asset.positions(0, 0.9)[0].tolist() == [0, 0, 0]
    for mode in ("glass", 5, ["BLEND"]):
        tiny.json["materials"][0]["alphaMode"] = mode
        with pytest.raises(gltf.GltfError, match="alphaMode"):
            gltf.load(tiny.glb())


def test_text_that_is_not_utf_8(folder):
    """A name written in Latin-1 is shown with "?", and a file keeps its name of bytes."""
    (folder / "caf\udce9.png").write_bytes(encoded("PNG"))
    tiny = textured(uri="caf\u00e9.png")
    tiny.json["animations"][0]["name"] = "course \u00e0 pied"
    tiny.json["buffers"] = [{"byteLength": len(tiny.binary)}]
    text = json.dumps(tiny.json, ensure_ascii=False).encode("latin-1")
    (folder / "a.glb").write_bytes(pack_glb(text, bytes(tiny.binary)))
    asset = gltf.load(folder / "a.glb")
    assert np.array_equal(base_colour(asset), PIXELS) and asset.animations[0].name == "course ? pied"


@pytest.mark.parametrize("padding", [b"\0", b"\n\0", b"\0 \0", b" \t\r\n"])
def test_json_chunks_with_any_padding(padding):
    root, binary = split_glb(textured(encoded("PNG")).glb())
    assert gltf.load(pack_glb(json.dumps(root).encode() + padding, binary)).animations


def test_numbers_that_are_no_integers_are_refused():
    for value in (5126.5, "5126", True, [5126]):
        tiny = textured(encoded("PNG"))
        tiny.json["accessors"][0]["componentType"] = value
        with pytest.raises(gltf.GltfError, match="componentType"):
            gltf.load(tiny.glb())


def test_the_version_may_be_a_number():
    for version in (2, 2.0):
        tiny = textured(encoded("PNG"))
        tiny.json["asset"] = {"version": version}
        assert gltf.load(tiny.glb()).animations
    tiny.json["asset"] = {"version": 1.0}
    with pytest.raises(gltf.UnsupportedGltf, match=r"convert it to glTF 2\.0"):
        gltf.load(tiny.glb())


def test_names_with_lone_surrogates_can_be_encoded():
    tiny = textured(encoded("PNG"))
    tiny.json["animations"][0]["name"] = "jump\ud83d"
    tiny.json["asset"]["copyright"] = "\udce9"
    asset = gltf.load(tiny.glb())
    assert (asset.animations[0].name, asset.metadata["copyright"]) == ("jump?", "?")


# --- URIs -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """source/model, source/textures and a secret beside the source."""
    for name in ("source/model/maps", "source/textures", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside" / "t.png").write_bytes(encoded("PNG"))
    return tmp_path / "source" / "model"


def load_uri(folder: Path, uri: str, root: Path | None = None) -> gltf.Asset:
    (folder / "a.gltf").write_bytes(textured(uri=uri).gltf())
    return gltf.load(folder / "a.gltf", root=root)


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("maps/t.png", "maps\\t.png"),
        ("maps/t.png", ".\\maps\\t.png"),
        ("maps/t.png", "maps%5Ct.png"),
        ("maps/t.png", "maps//t.png"),
        ("maps/t.png", "../model/maps/t.png"),
        ("maps/t.png", "Maps/T.PNG"),
        ("maps/Skin Diffuse.PNG", "maps/skin%20diffuse.png"),
        ("maps/100%25.png", "maps/100%25.png"),
        ("maps/100%.png", "maps/100%25.png"),
        ("maps/100%.png", "maps/100%.png"),
        ("maps/a#1.png", "maps/a#1.png"),
        ("maps/a?.png", "maps/a?.png"),
        ("maps/t.png", "maps/t.png?version=2"),
        ("maps/caf\u00e9.png", "maps/caf%C3%A9.png"),
        ("maps/caf\u00e9.png", "maps/" + unicodedata.normalize("NFD", "caf\u00e9.png")),
        ("maps/" + unicodedata.normalize("NFD", "\u00c9t\u00e9.png"), "maps/\u00e9t\u00e9.png"),
        ("maps/caf\udce9.png", "maps/caf%E9.png"),
        ("maps/sub dir/t.png", "maps\\sub%20dir\\t.png"),
        ("maps/t.png", " maps/t.png\r\n"),
        ("maps/t.png", "maps/t.png\0"),
        ("maps/a b.png", "maps/a+b.png"),
        ("maps/a+b.png", "maps/a+b.png"),
        ("maps/a b.png", "maps/a%2520b.png"),
        ("maps/a%20b.png", "maps/a%2520b.png"),
        ("maps/caf\u00e9.png", "maps/caf%E9.png"),
        ("maps/caf%C3%A9.png", "maps/caf\u00e9.png"),
        ("maps/a%20b.png", "maps/a b.png"),
    ],
)
def test_uris_as_they_are_written(folder, file, uri):
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(encoded("PNG"))
    asset = load_uri(folder, uri)
    assert np.array_equal(base_colour(asset), PIXELS) and asset.notes == ()


def test_an_exact_name_is_preferred_and_an_ambiguous_one_refused(folder):
    (folder / "maps" / "T.png").write_bytes(encoded("PNG"))
    (folder / "maps" / "t.PNG").write_bytes(b"other")
    assert np.array_equal(base_colour(load_uri(folder, "maps/T.png")), PIXELS)
    with pytest.raises(gltf.GltfError, match=r"t\.png is not a file"):
        load_uri(folder, "maps/t.png")


def test_a_neighbouring_folder_inside_the_root(folder):
    source = folder.parent
    (source / "textures" / "t.png").write_bytes(encoded("PNG"))
    for uri in ("../textures/t.png", "..\\Textures\\t.png", "../textures/../textures/t.png"):
        assert np.array_equal(base_colour(load_uri(folder, uri, source)), PIXELS)
        with pytest.raises(gltf.GltfError, match="is outside the asset's folder"):
            load_uri(folder, uri)
    (source / "link").symlink_to(folder.parent.parent / "outside")
    (folder / "link.png").symlink_to(folder.parent.parent / "outside" / "t.png")
    outside = (
        "../../outside/t.png", "..\\..\\outside\\t.png", "../link/t.png", "../LINK/t.png", "link.png",
        "%2e%2e/%2e%2e/outside/t.png", "..%5c..%5coutside%5ct.png", "../../OUTSIDE/t.png", "../../outside/t.png?x",
        "../../outside/t.png\0",
    )  # fmt: skip
    for uri in outside:
        with pytest.raises(gltf.GltfError, match="is outside the source's folder"):
            load_uri(folder, uri, source)
    for uri in (
        "%252e%252e/%252e%252e/outside/t.png",
        " ../../outside/t.png",
        "%2520/../../../outside/t.png",
    ):
        with pytest.raises(gltf.GltfError, match=r"is not a file|is outside"):
            load_uri(folder, uri, source)
    absolute = (
        str(source / "textures" / "t.png"),
        "\\\\host\\t.png",
        "C:\\t.png",
        "file:///t.png",
        "%5c%5ch%5ct.png",
    )
    for uri in absolute:
        with pytest.raises(gltf.GltfError, match="not a path relative to the asset"):
            load_uri(folder, uri, source)


def test_folders_outside_the_root_are_not_listed(folder, monkeypatch):
    listed = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(Path(path)) or listdir(path))
    with pytest.raises(gltf.GltfError, match="outside"):
        load_uri(folder, "../../outside/absent.png", folder.parent)
    assert all(path.is_relative_to(folder.parent) for path in listed)


def test_long_names_are_refused_with_a_short_message(folder):
    """The system refuses a component of more than 255 bytes and a path of more than 4096."""
    for uri in ("a" * 300 + ".png", "maps/" * 2000 + "t.png", "x data:image/png;base64," + "A" * 100_000):
        with pytest.raises(gltf.GltfError) as caught:
            load_uri(folder, uri)
        assert len(str(caught.value)) < 600


PNG = encoded("PNG")
BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + "\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)),
        "data:image/png;base64," + "\r\n\t ".join(BASE64[i : i + 7] for i in range(0, len(BASE64), 7)),
        "data:image/png;base64," + BASE64.rstrip("="),
        "data:image/png;base64," + base64.urlsafe_b64encode(PNG).decode(),
        "data:image/png;base64," + base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        "DATA:image/png;BASE64," + BASE64,
        "data:image/png;charset=utf-8;base64," + BASE64.replace("=", "%3D").replace("+", "%2B"),
        "data:;base64," + BASE64 + "==",
        "data: image/png ; Base64 ," + BASE64,
        "data:image/png;base64;charset=utf-8," + BASE64,
        " \n data:image/png;base64, " + BASE64 + "\n",
        "data:image/png;base64," + BASE64 + "\0",
        "data:base64," + BASE64,
    ],
)
def test_loose_base64(uri):
    assert any(mark in BASE64 for mark in "+/")
    assert np.array_equal(base_colour(gltf.load(textured(uri=uri).glb())), PIXELS)


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64,A", "data:;base64,AA!A", "data:;base64,A=AA", "data:image/png"]
)
def test_damaged_base64_is_refused(uri):
    with pytest.raises(gltf.GltfError, match="data URI"):
        gltf.load(textured(uri=uri).glb())


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}), ("BMP", {}), ("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True}), ("GIF", {}),
    ],
)  # fmt: skip
def test_images_that_pillow_decodes(kind, options):
    asset = gltf.load(textured(encoded(kind, **options)).glb())
    assert np.array_equal(base_colour(asset), PIXELS) and asset.notes == ()


@pytest.mark.parametrize(
    "data",
    [
        b"DDS \x7c\0\0\0" + bytes(120), b"8BPS\0\1" + bytes(50), b"#?RADIANCE\n", b"<svg></svg>", b"hello", b"\0",
        PNG[:40], encoded("JPEG")[:100], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)  # fmt: skip
def test_a_texture_that_cannot_be_decoded_is_left_out_and_noted(data):
    tiny = textured(data)
    tiny.json["materials"][0]["normalTexture"] = {"index": 0}
    asset = gltf.load(tiny.glb())
    assert base_colour(asset) is None and asset.materials[0].normal_texture is None
    assert asset.notes == ("a texture is left out: its image cannot be decoded",)
    assert np.array_equal(asset.positions(0, 0.0)[asset.primitives[0].triangles], CORNERS[FACES])


@pytest.mark.parametrize("kind", ["BMP", "TGA", "TIFF", "GIF"])
def test_limits_apply_to_all_formats(kind):
    for limits in (gltf.Limits(texture_side=1), gltf.Limits(texture_pixels=3)):
        with pytest.raises(gltf.GltfError, match="pixels, "):
            gltf.load(textured(encoded(kind)).glb(), limits=limits)


def test_messages_contain_no_addresses(monkeypatch):
    from renderers.gltf import files

    for value in (io.BytesIO(), object(), test_limits_apply_to_all_formats, files.Path.cwd):
        assert "0x" not in files.reason(ValueError(f"cannot identify {value!r}"))
    assert files.reason(ValueError("cannot read <_io.BytesIO object at 0x7f00>")) == "cannot read _io.BytesIO"
    monkeypatch.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(MemoryError(f"{object()}")))
    with pytest.raises(gltf.GltfError) as error:
        gltf.load(textured(PNG).glb())
    assert "0x" not in str(error.value)


# --- lengths --------------------------------------------------------------------------------------


def glb_of(text: bytes, binary: bytes, sizes: tuple[int, int], length: int = 0) -> bytes:
    """A GLB with the given chunk lengths; `length` is added to that of the header."""
    chunks = (
        struct.pack("<II", sizes[0], 0x4E4F534A) + text + struct.pack("<II", sizes[1], 0x004E4942) + binary
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks) + length) + chunks


def padded_file() -> tuple[bytes, bytes, TinyGltf]:
    """JSON text and binary data, each with three bytes of padding at the end."""
    tiny = textured(PNG + bytes(-len(PNG) % 4))
    tiny.binary += b"\x07"
    tiny.json["bufferViews"].append({"buffer": 0, "byteOffset": len(tiny.binary) - 1, "byteLength": 1})
    root = tiny.json | {"buffers": [{"byteLength": len(tiny.binary)}]}
    root["asset"] = {"version": "2.0", "generator": ""}
    while len(json.dumps(root)) % 4 != 1:
        root["asset"]["generator"] += "x"
    return json.dumps(root).encode(), bytes(tiny.binary), tiny


@pytest.mark.parametrize("pad", [b" ", b"\0"])
@pytest.mark.parametrize("excluded", [(0, 0), (3, 0), (0, 3), (3, 3)])
@pytest.mark.parametrize("length", [-3, -1, 0, 1, 3])
def test_glb_lengths_that_are_off_by_padding(pad, excluded, length):
    text, binary, tiny = padded_file()
    sizes = (len(text) + 3 - excluded[0], len(binary) + 3 - excluded[1])
    data = glb_of(text + 3 * pad, binary + bytes(3), sizes, length)
    assert_same(gltf.load(data), gltf.load(tiny.glb()))


def test_a_glb_without_its_last_padding():
    text, binary, tiny = padded_file()
    for missing in (1, 2, 3):
        data = glb_of(text + b"   ", binary + bytes(3), (len(text) + 3, len(binary) + 3))[:-missing]
        assert_same(gltf.load(data), gltf.load(tiny.glb()))


def test_glb_lengths_that_are_off_by_more_are_refused():
    text, binary, _ = padded_file()
    good = (len(text) + 3, len(binary) + 3)
    for sizes, length in (
        ((good[0], good[1] + 4), 0),
        (good, 4),
        ((good[0] + 4, good[1]), 0),
        (good, -len(binary)),
    ):
        with pytest.raises(gltf.GltfError):
            gltf.load(glb_of(text + b"   ", binary + bytes(3), sizes, length))


@pytest.mark.parametrize("over", [1, 2, 3])
def test_views_and_buffers_a_few_bytes_over_the_data(over):
    tiny = textured(PNG)
    last = tiny.json["bufferViews"][-1]
    last["byteLength"] += over
    expected = gltf.load(textured(PNG).glb())
    root = tiny.json | {"buffers": [{"byteLength": len(tiny.binary)}]}
    uri = "data:;base64," + base64.b64encode(tiny.binary).decode()
    for declared in (len(tiny.binary), len(tiny.binary) + over):
        root["buffers"] = [{"byteLength": declared, "uri": uri}]
        assert_same(gltf.load(json.dumps(root).encode()), expected)


def test_views_buffers_and_accessors_with_missing_data_are_refused():
    for change in ("view", "buffer", "accessor"):
        tiny = textured(PNG)
        root = tiny.json | {"buffers": [{"byteLength": len(tiny.binary)}]}
        if change == "view":
            root["bufferViews"][-1]["byteLength"] += 4
        elif change == "buffer":
            root["buffers"][0]["byteLength"] += 4
        else:  # the last float of the last accessor is incomplete
            root["bufferViews"].append(dict(root["bufferViews"][0], byteOffset=len(tiny.binary) - 47))
            root["accessors"][0]["bufferView"] = len(root["bufferViews"]) - 1
        root["buffers"][0]["uri"] = "data:;base64," + base64.b64encode(tiny.binary).decode()
        with pytest.raises(gltf.GltfError, match="bytes"):
            gltf.load(json.dumps(root).encode())


# --- the files that were refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["U04_backslash/U04_backslash.gltf", "U12_data_newlines.gltf", "X15_nulls.glb", "T18_bmp.glb"]
)
def test_the_cases(name):
    asset = gltf.load(CASES / name)
    assert asset.notes == () and not asset.animations[0].fault
    assert base_colour(asset) is not None and np.ptp(asset.positions(0, 0.0), axis=0).tolist() == [2, 2, 0]
    assert np.abs(asset.positions(0, 1.0) - asset.positions(0, 0.0)).max() > 0.05
