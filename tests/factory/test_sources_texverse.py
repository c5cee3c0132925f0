"""TexVerse in its published layout on a loopback hub: two dataset repositories and a list on GitHub."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from seeded_objaverse import uid_of
from sketchfab_server import SketchfabServer, annotation
from tiny_gltf import moving

import factory.render
from factory import load_clips
from factory.assets import AssetRecord, Selection
from factory.sources import SourceError, downloads, open_source, texverse
from factory.sources.downloads import DeadLink
from renderers import gltf
from renderers.meshes import blender

HUB = "/huggingface.co/datasets/YiboZhang2001"
IDS = "/raw.githubusercontent.com/yiboz2001/TexVerse/main/metadata/TexVerse-Animation_id_list.txt"
SMALL = ("--resolution", "16", "--num-frames", "4", "--fps", "4", "--max-animations", "1", "--views", "4")
A, B, C, D, E = (uid_of(f"texverse {name}") for name in "abcde")


def model(x: float = 1.0) -> bytes:
    return moving("translation", [0, 1], [[0, 0, 0], [x, 0, 0]]).glb()


def archive(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        for name, data in files.items():
            content.writestr(name, data)
    return stream.getvalue()


def metadata(**changes: object) -> dict:
    """An entry of metadata.json."""
    return {
        "name": "Dragon",
        "description": 'It {flies}, "roars" and \\ lands.',
        "user": "ada",
        "user_display": "Ada L.",
        "tags": ["dragon", "Animated"],
        "license": "CC Attribution",
        "animation": 2,
        "isRigged": True,
        "faceCount": 500,
        "glb_paths": ["glbs/glbs_2k/000-001/x_2048.glb"],
        **changes,
    }


class TexVerse:
    """A small TexVerse on a server."""

    def __init__(self, server: SketchfabServer) -> None:
        self.server = server
        self.ids: list[str] = []
        self.paths: list[str] = []
        self.entries: dict[str, object] = {}

    def add(
        self, uid: str, files: Mapping[str, bytes] | None, now: dict | None = None, **changes: object
    ) -> None:
        """Add a model: its archive (None for one that could not be obtained) and what Sketchfab says of it now."""
        self.ids.append(uid)
        self.entries[uid] = metadata(**changes)
        if files is not None:
            self.paths.append(f"models/000-0{len(self.paths):02d}/{uid}.zip")
            self.server.static[f"{HUB}/TexVerse-Skeleton-Animation/resolve/main/{self.paths[-1]}"] = archive(
                files
            )
        if now is not None:
            self.server.models[uid] = annotation(uid, **now)

    def publish(self) -> None:
        still = {uid_of("still"): metadata(animation=0, name="Chair")}
        lines = [f"models/000-000/{uid_of('still')}.zip", "", "models/readme.txt", *self.paths]
        self.server.static |= {
            IDS: "\n".join(self.ids).encode() + b"\n",
            f"{HUB}/TexVerse-Skeleton-Animation/resolve/main/model_paths.txt": "\n".join(lines).encode(),
            f"{HUB}/TexVerse/resolve/main/metadata.json": json.dumps({**still, **self.entries}).encode(),
        }


@pytest.fixture
def collection(tmp_path, monkeypatch):
    with SketchfabServer() as server:
        for name, value in server.variables(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(downloads, "_BACK_OFF_S", 0.001)
        yield TexVerse(server)


def listed(uri: str = "texverse") -> dict[str, AssetRecord]:
    return {record.uid: record for record in open_source(uri).list()}


def test_animated_models_are_listed_with_their_licences(collection):
    collection.add(A, {"source/a.glb": model()}, name="Büro 東京")
    collection.add(
        B, {"source/b.glb": model()}, license="CC Attribution-NonCommercial-NoDerivs", tags=["NoAI"]
    )
    collection.add(C, None)
    collection.entries[D] = "nonsense"
    collection.ids += [D, "no uid"]
    collection.paths.append(f"models/000-009/{D}.zip")
    collection.add(E, {}, license="CC0 Public Domain", animation=True, user_display=None, faceCount="many")
    collection.publish()
    records = listed()
    a, b, e = records[A], records[B], records[E]
    assert (a.source, a.title, a.author, a.licence) == ("texverse", "Büro 東京", "Ada L.", "CC-BY-4.0")
    assert (a.animations, a.faces, a.tags, a.noai, a.unsettled) == (
        2,
        500,
        ("dragon", "animated"),
        "unknown",
        True,
    )
    assert a.source_url == f"https://sketchfab.com/3d-models/{A}" and not a.fault and not a.is_local
    assert (b.licence, b.noai) == ("CC-BY-NC-ND-4.0", "yes")
    assert (e.licence, e.author, e.animations, e.faces) == ("CC0-1.0", "ada", None, None)
    assert {uid: record.fault for uid, record in records.items() if record.fault} == {
        C: "dead: its original file is not in the collection",
        D: "malformed: no metadata",
        "no uid": "malformed: no uid",
    }
    assert list(listed()) == list(records) and uid_of("still") not in records
    assert list(listed(f"texverse://{B}")) == [B]


def test_a_model_named_by_its_uid_need_not_be_in_the_list_of_animated_ones(collection):
    """The repository also has the rigged models."""
    collection.add(A, {"source/a.glb": model()})
    collection.ids.clear()
    collection.publish()
    assert [record.fault for record in listed(f"texverse://{A}").values()] == [""]
    with pytest.raises(SourceError, match="'dragon' is no TexVerse uid"):
        open_source("texverse://dragon")


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"source/a.glb": model(3)}, "a.glb"),
        ({"textures/x.png": b"x", "source/deep/b.glb": model(2), "source/a.GLB": model(3)}, "a.GLB"),
        ({"source/small.glb": model(2), "source/large.glb": model(3) + b"\0" * 64}, "large.glb"),
        (
            {"source/a.fbx": b"fbx", "source/a.blend": b"blend", "source/a.gltf": b"{}", "a.glb": model(3)},
            "a.glb",
        ),
        ({"__MACOSX/source/._a.glb": b"", "source/._b.glb": b"", "source/a.glb": model(3)}, "a.glb"),
        ({"source/a.zip": archive({"nested/a.glb": model(3)}), "textures/x.png": b"x"}, "a.glb"),
        ({"source/a.zip": archive({"a.obj": b""}), "source/b.zip": archive({"b.glb": model(3)})}, "b.glb"),
    ],
)
def test_the_model_is_found_in_its_archive(collection, files, name):
    collection.add(A, files)
    collection.publish()
    record = listed()[A]
    file = open_source(record.location).fetch(record)
    assert file.name == name and file.read_bytes().startswith(model(3))
    count = len(collection.server.requests)
    assert open_source(record.location).fetch(record) == file
    assert len(collection.server.requests) == count, "it is cached"


def test_a_gltf_keeps_the_files_beside_it(collection):
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    document = tiny.json | {"buffers": [{"byteLength": len(tiny.binary), "uri": "bin/data.bin"}]}
    collection.add(
        A, {"source/m.gltf": json.dumps(document).encode(), "source/bin/data.bin": bytes(tiny.binary)}
    )
    collection.publish()
    record = listed()[A]
    assert len(gltf.load(open_source(record.location).fetch(record)).animations) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            archive({"source/a.max": b"x", "source/b.7z": b"y", "textures/t.png": b""}),
            r"no model to read .*\(7z, max\)",
        ),
        (archive({"textures/t.png": b""}), r"no model to read in its archive \(no model\)"),
        (archive({"source/a.zip": archive({"inner.zip": archive({"a.glb": model()})})}), r"\(zip\)"),
        (archive({"source/a.zip": b"no zip"}), "its archive cannot be unpacked"),
        (b"<html>quota exceeded</html>", "its archive cannot be unpacked"),
        (archive({"../../outside.glb": model()}), "no model"),
    ],
)
def test_an_archive_without_a_model_is_dead_with_its_reason(collection, tmp_path, data, reason):
    collection.add(A, {})
    collection.server.static[f"{HUB}/TexVerse-Skeleton-Animation/resolve/main/{collection.paths[0]}"] = data
    collection.publish()
    record = listed()[A]
    with pytest.raises(DeadLink, match=reason):
        open_source(record.location).fetch(record)
    assert not list(tmp_path.rglob("outside.glb"))


@pytest.mark.parametrize("path", ["../x.zip", f"models/{B}.zip", "models/x.glb", ""])
def test_a_location_with_another_path_is_refused(collection, path):
    with pytest.raises(SourceError, match="is no path of TexVerse"):
        open_source(f"texverse://{A}?path={path}").fetch(AssetRecord(A, "texverse", "", ""))


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_metadata_is_read_as_a_stream(tmp_path, monkeypatch, piece):
    """Truth: json.loads."""
    monkeypatch.setattr(texverse, "_PIECE", piece)
    entries = {
        A: metadata(),
        'q"\\{}[]:,': [1, {"a": "}"}],
        "é東": None,
        "n": 12,
        "f": -1.5e3,
        "e": {},
        "t": True,
    }
    for text in (
        json.dumps(entries),
        json.dumps(entries, indent=1, ensure_ascii=False),
        " {} \n",
        '{"a" : 1 }',
    ):
        file = tmp_path / "metadata.json"
        file.write_text(text, "utf-8")
        assert dict(texverse._entries(file)) == json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": {"b": 1}', '{"a": {"b": 1}, ', '{"a" 1}', "{1: 2}", "<html>", "{" * 9]
)
def test_damaged_metadata_is_a_sentence_and_is_downloaded_again(collection, text):
    collection.add(A, {"source/a.glb": model()})
    collection.publish()
    good = collection.server.static[f"{HUB}/TexVerse/resolve/main/metadata.json"]
    collection.server.static[f"{HUB}/TexVerse/resolve/main/metadata.json"] = text.encode()
    with pytest.raises(SourceError, match=r"metadata\.json is no JSON object .*; run the command again"):
        listed()
    collection.server.static[f"{HUB}/TexVerse/resolve/main/metadata.json"] = good
    assert list(listed()) == [A]


def test_rendering_asks_sketchfab_and_leaves_out_no_derivatives_with_the_reason(collection, tmp_path, capsys):
    nd = {"slug": "by-nd", "label": "CC Attribution-NoDerivs"}
    collection.add(A, {"source/a.glb": model()}, now={})
    collection.add(B, {"source/b.glb": model(2)}, now={}, license="CC Attribution-NonCommercial-NoDerivs")
    collection.add(C, {"source/c.glb": model(3)}, now={"license": nd})  # its author has changed the licence
    collection.add(D, {"source/d.glb": model(4)}, now={"tags": [{"slug": "noai"}]})
    collection.add(E, {"source/e.glb": model(5)})  # gone from Sketchfab
    collection.publish()
    command = ["--source", "texverse", *SMALL, "--workers", "0", "--json"]
    assert factory.render.main([*command, "--out", str(tmp_path / "out")]) == 0
    result = json.loads(capsys.readouterr().out)
    forbidden = "is not in the policy research: it forbids derivatives, which renderings are"
    assert result["rendered"] == 1 and result["filtered"] == {
        f"licence: CC-BY-NC-ND-4.0 {forbidden} (--allow-no-derivatives takes it)": 1,
        f"licence: CC-BY-ND-4.0 {forbidden} (--allow-no-derivatives takes it)": 1,
        "noai: the author forbids AI use": 1,
    }
    assert result["dead"] == {"gone from Sketchfab, HTTP 404": 1}
    (clip,) = load_clips(tmp_path / "out")
    assert (clip.metadata["asset_uid"], clip.metadata["source"]) == (A, "texverse")
    assert clip.metadata["attribution"].startswith('"Dragon" by Ada L., licence: CC-BY-4.0')

    assert factory.render.main([*command, "--out", str(tmp_path / "asked"), "--allow-no-derivatives"]) == 0
    assert json.loads(capsys.readouterr().out)["rendered"] == 3
    assert {clip.metadata["asset_uid"] for clip in load_clips(tmp_path / "asked")} == {A, B, C}


def test_selection_reads_the_listed_metadata(collection):
    collection.add(A, {"source/a.glb": model()}, faceCount=10**7)
    collection.add(B, {"source/b.glb": model()}, license="CC Attribution-NonCommercial")
    collection.publish()
    reasons = [Selection(policy="commercial", max_faces=1000).reason(record) for record in listed().values()]
    assert reasons == ["more than 1000 faces", "licence: CC-BY-NC-4.0 is not in the policy commercial"]


# --- FBX, with its textures elsewhere in the archive ------------------------------------------------

_TEXTURED_FBX = """
import sys, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[-3])
image = bpy.data.images.load(sys.argv[-1])
for material in bpy.data.materials:
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    shader = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
bpy.ops.export_scene.fbx(filepath=sys.argv[-2], bake_anim_simplify_factor=0.0, path_mode="ABSOLUTE")
"""


@pytest.mark.blender
@pytest.mark.slow
@pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`")
def test_an_fbx_is_converted_with_the_textures_of_its_archive(collection, tmp_path):
    import subprocess

    tiny = moving("translation", [0, 1], [[0, 0, 0], [2, 1, 0]])
    tiny.add("materials", pbrMetallicRoughness={"metallicFactor": 0})
    tiny.json["meshes"][0]["primitives"][0]["material"] = 0
    (tmp_path / "elsewhere").mkdir()
    source, fbx = tmp_path / "a.glb", tmp_path / "a.fbx"
    image = tmp_path / "elsewhere" / "Scales.png"
    source.write_bytes(tiny.glb())
    Image.fromarray(np.full((4, 4, 3), (200, 40, 90), np.uint8)).save(image)
    script = tmp_path / "export.py"
    script.write_text(_TEXTURED_FBX)
    program = str(blender.find())
    start = [program] if Path(program).name.startswith("python") else [program, "--background", "--python"]
    arguments = ["--"] if len(start) > 1 else []
    subprocess.run(
        [*start, script, *arguments, source, fbx, image], check=True, capture_output=True, timeout=200
    )
    texture = image.read_bytes()
    image.unlink()
    image.parent.rmdir()
    collection.add(A, {"source/Dragon.fbx": fbx.read_bytes(), "textures/Scales.png": texture})
    collection.publish()
    record = listed()[A]
    asset = gltf.load(open_source(record.location).fetch(record))
    assert len(asset.animations) == 1
    (material,) = asset.materials
    assert material.base_color_texture is not None
    np.testing.assert_array_equal(material.base_color_texture.image[0, 0, :3], (200, 40, 90))
