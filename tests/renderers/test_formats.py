"""Files of other formats are recognised by their first bytes, and glTF is never taken for one of them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from factory.sources.creatures import build
from renderers import gltf


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"content")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.glb"), io.BytesIO())
    return stream.getvalue()


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def cube(kind: str) -> bytes:
    """A cube as written by trimesh, which is not ours."""
    data = trimesh.creation.box().export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


# Name of the file, its first bytes, words of the explanation.
FILES = [
    ("a.fbx", b"Kaydara FBX Binary  \x00\x1a\x00", "an FBX file: convert it to .glb"),
    ("a.glb", b"Kaydara FBX Binary  \x00\x1a\x00", "an FBX file"),
    ("a.fbx", b"; FBX 7.4.0 project file\n; ----\n\nFBXHeaderExtension:  {\n", "an FBX file"),
    ("a.fbx", b"\nFBXHeaderExtension:  {\n\tFBXHeaderVersion: 1003\n", "an FBX file"),
    ("a.blend", b"BLENDER-v404RENDH", "a Blender file: open it in Blender and export it"),
    ("a.blend", b"BLENDER17-01v0500", "a Blender file"),
    ("a.blend", gzip.compress(b"BLENDER-v279"), "a Blender file"),
    ("a.blend", b"\x28\xb5\x2f\xfd\x04\x00", "a Blender file"),
    ("a.glb", b"\x28\xb5\x2f\xfd\x04\x00", "a zstd archive or a compressed Blender file"),
    ("a.glb.gz", gzip.compress(b"glTF"), "a gzip archive"),
    ("a.usdc", b"PXR-USDC\0\0\0", "a USD file (binary)"),
    ("a.usd", b"#usda 1.0\n(\n)\n", "a USD file (text)"),
    ("a.usdz", zipped("a.usdc"), "a USDZ package"),
    ("a.glb", zipped("a.usda"), "a USDZ package"),
    ("a.zip", zipped("scene.gltf"), "a zip archive: unpack it and use the .glb or .gltf file inside"),
    ("a.3mf", zipped("3D/3dmodel.model"), "a 3MF package"),
    ("a.obj", cube("obj"), "a Wavefront OBJ file: OBJ has no animation"),
    ("a.obj", b"# Blender 4.1\nmtllib a.mtl\no Cube\nv 1.0 1.0 -1.0\nv 1.0 -", "a Wavefront OBJ file"),
    ("a.stl", cube("stl_ascii"), "an STL file"),
    ("a.stl", cube("stl"), "an STL file"),
    ("a.ply", cube("ply"), "a PLY file"),
    ("a.ply", trimesh.creation.box().export(file_type="ply", encoding="ascii"), "a PLY file"),
    ("a.dae", b'<?xml version="1.0"?>\n<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema">', "a COLLADA"),
    ("a.3ds", b"MM\x10\x00\x00\x00\x02\x00\x0a\x00\x00\x00\x03\x00\x00\x00", "a 3D Studio file"),
    ("a.abc", b"Ogawa\xff\x00\x01", "an Alembic file"),
    ("a.bvh", b"HIERARCHY\nROOT Hips\n", "a BVH motion file"),
    ("a.wrl", b"#VRML V2.0 utf8\n", "an X3D or VRML file"),
    ("a.glb", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "a Git LFS pointer"),
    ("a.glb", b"\r\n<!DOCTYPE html>\n<html lang=en><title>404", "an HTML page"),
    ("a.gltf", b"<html><head><title>Sign in</title>", "an HTML page"),
    ("a.glb", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
    ("a.gltf", b'{"error": "rate limit exceeded", "code": 429}', "a JSON document, but not glTF"),
    ("a.gltf", b"[1, 2, 3]", "a JSON document, but not glTF"),
    ("a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive"),
    ("a.rar", b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
    ("a.tar", tarred(), "a tar archive"),
    ("a.png", picture("PNG"), "a PNG picture"),
    ("a.jpg", picture("JPEG"), "a JPEG picture"),
    ("a.webp", picture("WEBP"), "a WebP picture"),
    ("a.pdf", b"%PDF-1.7\n", "a PDF document"),
    ("a.ma", b"//Maya ASCII 2020 scene\nrequires maya;", "an Autodesk Maya file: export it from Maya"),
    ("a.glb", b"FOR8\0\0\0\0\0\0\0\0MayaHEAD", "an Autodesk Maya file"),
    ("a.max", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an Autodesk 3ds Max file"),
    ("a.glb", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an OLE document, as 3ds Max and Office"),
    ("a.c4d", b"QC4DC4D6" + bytes(30), "a Cinema 4D file"),
    ("a.lwo", b"FORM\0\0\0\0LWO2", "a LightWave file"),
    ("a.x", b"xof 0303txt 0032", "a DirectX model"),
    ("a.pmx", b"PMX \0\0\0@", "a MikuMikuDance model"),
    ("a.glb", b"b3dm\1\0\0\0" + bytes(20) + b"glTF", "a Cesium 3D tile"),
    ("a.drc", b"DRACO\2\2\1\1\0\0", "a bare Draco mesh"),
    ("a.step", b"ISO-10303-21;\nHEADER;", "a CAD drawing"),
    ("a.off", b"OFF\n8 6 0\n0 0 0\n", "an OFF mesh"),
    ("a.abc", b"\x89HDF\r\n\x1a\n", "an Alembic or other HDF5 file"),
    ("a.glb", b"\0\0\0\x20ftypisom", "an MP4 video"),
    ("a.glb", b"\0\0\0\x20ftypavif", "an AVIF or HEIF picture"),
    ("a.glb", b"\xabKTX 20\xbb\r\n\x1a\n", "a KTX texture"),
    ("a.glb", b"\x7fELF\2\1\1", "a program"),
    ("a.dae", '<?xml version="1.0" encoding="utf-16"?><COLLADA>'.encode("utf-16"), "a COLLADA file"),
    ("a.glb", b"\xef\xbb\xbf<!-- saved from url=(0031)https://host/ -->\n<HTML>", "an HTML page"),
    ("a.glb", gzip.compress(b"glTF\2\0\0\0"), "a gzip archive or a compressed Blender file"),
    ("a.glb", zipped("fox.glb"), "a zip archive: unpack it"),
    ("a.glb", b"", "an empty file"),
    ("a.glb", bytes(4096), "a file of zeros, as an unfinished download leaves it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "words"), FILES, ids=[f"{name}-{words}" for name, _, words in FILES]
)
def test_another_format_is_named_with_what_to_do(name, data, words, tmp_path):
    (tmp_path / name).write_bytes(data)
    for source, given in ((tmp_path / name, None), (data, name)):
        with pytest.raises(gltf.GltfError) as caught:
            gltf.load(source, name=given)
        assert f"{name}: not a glTF file: this is {words}" in str(caught.value)


def test_gltf_is_not_taken_for_another_format():
    glb = build("robot", 3)
    assert gltf.identify(glb[:4096]) is None
    text = json.dumps({"asset": {"version": "2.0"}})
    for prefix in ("", " \n", "\ufeff"):
        assert gltf.identify((prefix + text).encode(), "a.gltf") is None
    with pytest.raises(gltf.GltfError, match="the scene has no mesh"):  # read as glTF
        gltf.load(text.encode()[:1] + b" " + text.encode()[1:])


@pytest.mark.parametrize(
    "data", [b"v", b"\x00\x01\x02\x03", b"hello world", b"\xff\xfe\x00\x01", b"{", b"glTF"]
)
def test_what_is_not_recognised_is_not_named(data):
    kind = gltf.identify(data, "a.glb")
    assert kind is None or data == b"v"


def test_recognising_never_raises():
    rng = np.random.default_rng(0)
    for data in [*(d for _, d, _ in FILES), *(rng.bytes(300) for _ in range(300))]:
        for cut in (0, 1, 2, 5, 9, 29, 31, 100, 260):
            gltf.identify(data[:cut] if isinstance(data, bytes) else data.encode()[:cut], "x.zip")


def test_the_suffix_names_the_formats_of_a_folder():
    assert str(gltf.format_of_suffix("walk.FBX")).startswith("this is an FBX file")
    assert gltf.format_of_suffix("fox.glb") is None and gltf.format_of_suffix(str(Path("obj"))) is None
