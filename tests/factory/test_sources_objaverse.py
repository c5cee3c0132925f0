"""Objaverse 1.0 and XL from seeded caches in the real formats, with and without a network behind them."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from seeded_objaverse import SHARD, object_path, seed_objaverse, seed_xl, uid_of, xl_row
from sketchfab_server import SketchfabServer, annotation
from tiny_gltf import moving

from factory.sources import SourceError, downloads, open_source
from factory.sources.downloads import DeadLink, WrongChecksum
from renderers import gltf

A, B, C = (uid_of(name) for name in "abc")


def model(x: float = 1.0) -> bytes:
    return moving("translation", [0, 1], [[0, 0, 0], [x, 0, 0]]).glb()


def old(uid: str, **changes: object) -> dict:
    """An annotation of Objaverse 1.0: the licence is a slug."""
    return annotation(uid, **{"license": "by", **changes})


@pytest.fixture
def server():
    with SketchfabServer() as server:
        yield server


@pytest.fixture
def home(tmp_path, monkeypatch, server) -> Path:
    for name, value in server.variables(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(downloads, "_BACK_OFF_S", 0.001)
    return tmp_path


def listed(uri: str = "objaverse") -> list:
    return list(open_source(uri).list())


# --- Objaverse 1.0 ------------------------------------------------------------------------------------


def test_a_seeded_cache_needs_no_network(home, server):
    seed_objaverse(home, {A: old(A, license="by-nc", animationCount=3), B: old(B)}, {A: model()})
    a, b = listed()
    assert (a.uid, a.title, a.author, a.licence) == (A, f"Model {A[:4]}", "Ada L.", "CC-BY-NC-4.0")
    assert (a.animations, a.faces, a.tags, a.noai, a.unsettled) == (3, 500, ("robot",), "unknown", True)
    assert a.source_url == f"https://sketchfab.com/3d-models/{A}" and not a.fault and not b.fault
    file = open_source(a.location).fetch(a)
    assert file.read_bytes() == model() and server.requests == []


def test_the_package_reads_what_we_read(home):
    """Truth: the `objaverse` package itself, on the same folder, in a process of its own."""
    pytest.importorskip("objaverse")
    seed_objaverse(home, {A: old(A), B: old(B, name="Büro 東京")}, {A: model()})
    code = (
        "import json, objaverse; print(json.dumps([objaverse.load_annotations(objaverse.load_uids()), "
        f"objaverse.load_objects(['{A}'])]))"
    )
    said = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    records = {record.uid: record for record in listed()}
    assert {uid: entry["name"] for uid, entry in said[0].items()} == {
        uid: record.title for uid, record in records.items()
    }
    assert said[1][A] == str(open_source(records[A].location).fetch(records[A]))


def test_what_is_missing_is_fetched_from_the_endpoint(home, server):
    root = seed_objaverse(home, {A: old(A)}, {A: model()})
    where = "/huggingface.co/datasets/allenai/objaverse/resolve/main"
    for file in sorted(root.rglob("*.*")):
        server.static[f"{where}/{file.relative_to(root)}"] = file.read_bytes()
        file.unlink()
    server.misbehave = lambda request: "cut" if request.number % 2 else None
    (record,) = listed()
    assert open_source(record.location).fetch(record).read_bytes() == model()
    seen = len(server.requests)
    (record,) = listed()
    open_source(record.location).fetch(record)
    assert len(server.requests) == seen
    assert not list(root.rglob("*.*")), "the package's folder is not ours to write to"


def test_metadata_that_was_cut_off_is_noticed(home, server):
    """The package leaves such a file in its cache for ever."""
    root = seed_objaverse(home, {A: old(A)}, {})
    shard = root / "metadata" / f"{SHARD}.json.gz"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    where = f"/huggingface.co/datasets/allenai/objaverse/resolve/main/metadata/{SHARD}.json.gz"
    server.static[where] = whole
    assert [record.uid for record in listed()] == [A]
    server.static[where] = whole[:50]
    (home / "cache").rename(home / "another")
    with pytest.raises(SourceError, match=r"metadata/000-023.json.gz is no gzipped JSON"):
        listed()


def test_no_annotations_and_no_network_is_an_error_that_says_so(home, server):
    with pytest.raises(DeadLink, match=r"object-paths.json.gz: dead link \(HTTP 404\)"):
        listed()


def test_single_objects_need_their_own_shard_only(home):
    seed_objaverse(home, {A: old(A)}, {})
    root = seed_objaverse(home, {B: old(B)}, {}, shard="000-100")
    (root / "metadata" / f"{SHARD}.json.gz").unlink()
    assert [record.uid for record in listed(f"objaverse://{B}")] == [B]
    with pytest.raises(SourceError, match="is no Objaverse uid"):
        open_source("objaverse://../../etc")
    assert listed(f"objaverse://{C}")[0].fault == "malformed: no path in object-paths"


def test_every_record_is_listed_also_without_an_annotation(home):
    root = seed_objaverse(home, {A: old(A), B: "what", C: None}, {})
    paths = json.loads(gzip.decompress((root / "object-paths.json.gz").read_bytes()))
    paths |= {"../x": "glbs/000-023/../x.glb", uid_of("d"): 3, uid_of("e"): object_path(A)}
    (root / "object-paths.json.gz").write_bytes(gzip.compress(json.dumps(paths).encode()))
    faults = {record.uid: record.fault for record in listed()}
    assert len(faults) == 6 and faults[A] == ""
    assert faults[B] == faults[C] == "malformed: no annotation"
    assert {faults[uid] for uid in ("../x", uid_of("d"), uid_of("e"))} == {
        "malformed: no path in object-paths"
    }


def test_a_withdrawn_file_is_dead(home, server):
    seed_objaverse(home, {A: old(A)}, {})
    (record,) = listed()
    with pytest.raises(DeadLink) as caught:
        open_source(record.location).fetch(record)
    assert caught.value.reason == "HTTP 404"


def test_what_authors_allow_today_counts(home, server):
    seed_objaverse(home, {uid: old(uid) for uid in (A, B, C)}, {})
    server.models[A] = annotation(A, license={"label": "CC Attribution-NonCommercial", "slug": "by-nc"})
    server.models[B] = annotation(B, tags=[{"name": "NoAI", "slug": "noai"}])
    by_uid = {record.uid: record for record in listed()}
    a, b = (open_source(by_uid[uid].location).check(by_uid[uid]) for uid in (A, B))
    assert (a.licence, a.noai, a.unsettled) == ("CC-BY-NC-4.0", "no", False) and len(a.noai_checked_at) == 10
    assert b.noai == "yes"
    with pytest.raises(DeadLink, match="gone from Sketchfab, HTTP 404"):
        open_source(by_uid[C].location).check(by_uid[C])


# --- Objaverse-XL -------------------------------------------------------------------------------------

COMMIT = "https://github.com/ada/models/blob/0123456789abcdef"


def raw(path: str) -> str:
    return f"/raw.githubusercontent.com/ada/models/0123456789abcdef/{path}"


def test_rows_of_every_part_are_accounted_for(home):
    uid = A
    seed_objaverse(home, {uid: old(uid)}, {uid: model()})
    seed_xl(
        home,
        "github",
        [
            xl_row(f"{COMMIT}/a%20dir/fox.glb", model(), licence="MIT License"),
            xl_row(f"{COMMIT}/fox.gltf", b"{}", "gltf", "Other"),
            xl_row(f"{COMMIT}/fox.fbx", b"x", "fbx"),
            xl_row(f"{COMMIT}/fox.obj", b"x", "obj"),
            xl_row(f"{COMMIT}/fox.usdz", b"x", "usdz"),
            xl_row("https://github.com/ada", b"x"),
            xl_row(f"{COMMIT}/../../../fox.glb", b"x"),
            xl_row(None, b"x", sha256="abc"),
        ],
    )
    seed_xl(
        home,
        "sketchfab",
        [
            xl_row(f"https://sketchfab.com/3d-models/{uid}", model(), licence="by", source="sketchfab"),
            xl_row(f"https://sketchfab.com/3d-models/{B}", model(), licence="by-nc", source="sketchfab"),
        ],
    )
    seed_xl(
        home,
        "smithsonian",
        [
            xl_row(
                "https://3d-api.si.edu/content/document/3d_package:1/r/bone.glb",
                model(),
                licence="CC0",
                metadata='{"title": "A bone"}',
            ),
        ],
    )
    seed_xl(
        home,
        "thingiverse",
        [
            xl_row(
                "https://www.thingiverse.com/thing:1/fileId=2", b"x", "stl", "Creative Commons - Attribution"
            ),
        ],
    )
    records = listed("objaverse-xl")
    assert [record.fault for record in records] == [
        *("", "", "", "type obj: holds no animation", "type usdz: cannot be read"),
        *("malformed: no file on GitHub", "malformed: no file on GitHub", "malformed: no address"),
        *("", "malformed: no path in object-paths", "", "type stl: holds no animation"),
    ]
    fox, skull = records[0], records[8]
    assert (fox.licence, fox.author, fox.title, fox.noai) == ("MIT", "ada", "fox.glb", "unknown")
    assert fox.fingerprint == "sha256:" + hashlib.sha256(model()).hexdigest() and not fox.unsettled
    assert (skull.licence, skull.unsettled) == ("CC-BY-4.0", True)
    assert open_source(skull.location).fetch(skull).read_bytes() == model()
    bone = records[10]
    assert (bone.title, bone.author, bone.licence) == ("A bone", "Smithsonian Institution", "CC0-1.0")
    assert len(listed("objaverse-xl://smithsonian,thingiverse")) == 2
    with pytest.raises(SourceError, match="'gitlab' is no part of Objaverse-XL"):
        open_source("objaverse-xl://gitlab")


def test_a_file_on_github_comes_with_its_checksum(home, server):
    seed_xl(
        home, "github", [xl_row(f"{COMMIT}/a%20dir/fox.glb", model()), xl_row(f"{COMMIT}/b.glb", model(2))]
    )
    server.static[raw("a%20dir/fox.glb")] = model()
    server.static[raw("b.glb")] = model(3)
    fox, changed = listed("objaverse-xl://github")
    assert open_source(fox.location).fetch(fox).read_bytes() == model()
    with pytest.raises(WrongChecksum):
        open_source(changed.location).fetch(changed)


def test_a_file_in_git_lfs_is_fetched_from_where_it_is(home, server):
    rows = [xl_row(f"{COMMIT}/big.glb", model()), xl_row(f"{COMMIT}/unsummed.glb", sha256=None)]
    seed_xl(home, "github", rows)
    for name in ("big.glb", "unsummed.glb"):
        server.static[raw(name)] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        media = raw(name).replace("raw.githubusercontent.com", "media.githubusercontent.com/media")
        server.static[media] = model()
    for record in listed("objaverse-xl://github"):
        assert open_source(record.location).fetch(record).read_bytes() == model()


def test_a_gltf_comes_with_its_parts(home, server):
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    tiny.json["buffers"] = [{"byteLength": len(tiny.binary), "uri": "data/part%201.bin"}]
    text = json.dumps(tiny.json).encode()
    seed_xl(home, "github", [xl_row(f"{COMMIT}/x/m.gltf", text, "gltf")])
    server.static |= {raw("x/m.gltf"): text, raw("x/data/part%201.bin"): bytes(tiny.binary)}
    (record,) = listed("objaverse-xl://github")
    assert len(gltf.load(open_source(record.location).fetch(record)).animations) == 1
    del server.static[raw("x/data/part%201.bin")]
    (home / "cache").rename(home / "another")
    with pytest.raises(DeadLink) as caught:
        open_source(record.location).fetch(record)
    assert caught.value.reason == "a part of it is missing, HTTP 404"


@pytest.mark.parametrize(
    "uri", ["../x.bin", "/x.bin", "//evil/x.bin", "a/../../x", "http://e/x", "model.gltf", "%2e%2e/x"]
)
def test_parts_elsewhere_are_not_fetched(home, server, uri):
    text = json.dumps({"asset": {"version": "2.0"}, "buffers": [{"byteLength": 1, "uri": uri}]}).encode()
    seed_xl(home, "github", [xl_row(f"{COMMIT}/x/m.gltf", text, "gltf")])
    server.static[raw("x/m.gltf")] = text
    (record,) = listed("objaverse-xl://github")
    folder = open_source(record.location).fetch(record).parent
    assert [file.name for file in folder.rglob("*")] == ["model.gltf"] and len(server.requests) == 1


def test_a_table_that_was_cut_off_is_noticed(home, server):
    file = seed_xl(home, "smithsonian", [xl_row("https://3d-api.si.edu/a.glb", model())])
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    where = "/huggingface.co/datasets/allenai/objaverse-xl/resolve/main/smithsonian/smithsonian.parquet"
    server.static[where] = whole
    assert len(listed("objaverse-xl://smithsonian")) == 1
