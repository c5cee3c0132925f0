"""Sources: which models a folder holds, whose they are, and when one has changed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pytest
from sample_assets import BUNDLED, COLLECTION, requires_collection
from tiny_gltf import TinyGltf, moving

from factory.assets.record import AssetRecord
from factory.sources import SourceError, open_source
from factory.sources.opening import AssetCache
from renderers import gltf


def model() -> bytes:
    return moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]]).glb()


def records(folder: Path) -> dict[str, AssetRecord]:
    return {record.uid: record for record in open_source(str(folder)).list()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models at several depths among other files."""
    for name in ("b.glb", "a.GLB", "deep/er/c.gltf", "two words.glb"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(model() + name.encode())
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "folder.glb").mkdir()
    return tmp_path


# --- what is listed -------------------------------------------------------------------------------


def test_models_are_found_at_any_depth_in_a_stable_order(folder):
    uids = [record.uid for record in open_source(str(folder)).list()]
    assert sorted(uids) == ["a.GLB", "b.glb", "deep/er/c.gltf", "two words.glb"]
    assert uids == [record.uid for record in open_source(f"file://{folder}").list()]


def test_one_file_is_a_source_too(folder):
    (record,) = open_source(str(folder / "b.glb")).list()
    assert record.uid == "b.glb"
    assert open_source(str(folder / "b.glb")).fetch(record).read_bytes() == (folder / "b.glb").read_bytes()


def test_a_record_is_fetched_by_its_location_alone(folder):
    for record in open_source(str(folder)).list():
        restored = AssetRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert restored == record
        assert open_source(record.location).fetch(restored) == folder / record.uid


def test_a_relative_path_is_found_from_elsewhere(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (record, *_) = open_source(folder.name).list()
    monkeypatch.chdir("/")
    assert open_source(record.location).fetch(record).is_file()


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere'.*no such file or folder"):
        open_source(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("uri", ["gopher://models", "objects://x", "://x"])
def test_an_unknown_scheme_is_an_error_that_names_the_known(uri):
    with pytest.raises(SourceError, match=r"is not a source; expected creatures://"):
        open_source(uri)


def test_a_file_that_has_gone_since_is_an_error(folder):
    source = open_source(str(folder))
    record = records(folder)["b.glb"]
    (folder / "b.glb").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.glb: .* is gone"):
        source.fetch(record)


# --- content addresses ----------------------------------------------------------------------------


def test_fingerprint_of_a_glb_is_its_sha256(folder):
    expected = hashlib.sha256((folder / "b.glb").read_bytes()).hexdigest()
    assert records(folder)["b.glb"].fingerprint == f"sha256:{expected}"


def external_gltf(folder: Path) -> tuple[Path, Path]:
    """A .gltf whose buffer is a file beside it, with a space in its name."""
    tiny: TinyGltf = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    part = folder / "data 1.bin"
    part.write_bytes(tiny.binary)
    tiny.json["buffers"] = [{"byteLength": len(tiny.binary), "uri": "data%201.bin"}]
    file = folder / "model.gltf"
    file.write_text(json.dumps(tiny.json))
    return file, part


def test_fingerprint_of_a_gltf_covers_the_files_it_names(tmp_path):
    file, part = external_gltf(tmp_path)
    gltf.load(file)  # it is a model
    before = records(tmp_path)["model.gltf"].fingerprint
    assert before == records(tmp_path)["model.gltf"].fingerprint
    (tmp_path / "unrelated.bin").write_bytes(b"1")
    assert before == records(tmp_path)["model.gltf"].fingerprint
    data = bytearray(part.read_bytes())
    data[0] ^= 1
    part.write_bytes(data)
    changed = records(tmp_path)["model.gltf"].fingerprint
    assert changed != before
    file.write_text(file.read_text() + " ")
    assert records(tmp_path)["model.gltf"].fingerprint not in (before, changed)


def test_fingerprint_reads_nothing_outside_the_folder(tmp_path):
    """Naming a file elsewhere, a host or a device changes nothing: the reader refuses those."""
    (tmp_path / "secret.bin").write_bytes(b"1")
    inner = tmp_path / "inner"
    inner.mkdir()
    for uri in ("../secret.bin", str(tmp_path / "secret.bin"), "http://host/x.bin", "data:,x", "absent.bin"):
        (inner / "model.gltf").write_text(json.dumps({"buffers": [{"uri": uri}]}))
        expected = hashlib.sha256((inner / "model.gltf").read_bytes()).hexdigest()
        assert records(inner)["model.gltf"].fingerprint == f"sha256:{expected}"


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"[]", b"null", b'{"buffers": 3}', b'{"buffers": [3]}', b'{"buffers": null}']
)
def test_what_is_no_gltf_is_listed_with_a_fingerprint(tmp_path, text):
    """It must reach the reader, whose error names the fault, and must not stop the listing."""
    (tmp_path / "broken.gltf").write_bytes(text)
    assert records(tmp_path)["broken.gltf"].fingerprint == "sha256:" + hashlib.sha256(text).hexdigest()


# --- licences beside the models -------------------------------------------------------------------


def test_csv_table(folder):
    (folder / "LICENSES.csv").write_text(
        "file,license,author,title,url\r\n"
        'a.GLB,CC-BY 4.0,"Ada, Byron",A,https://example.org/a\r\n'
        "two words.glb,CC0,,Two,\r\n"
        "deep/,MIT,Deep,,\r\n"
    )
    found = records(folder)
    a = found["a.GLB"]
    assert (a.licence, a.author, a.title, a.source_url) == (
        "CC-BY-4.0",
        "Ada, Byron",
        "A",
        "https://example.org/a",
    )
    assert (found["two words.glb"].licence, found["two words.glb"].title) == ("CC0-1.0", "Two")
    assert (found["deep/er/c.gltf"].licence, found["deep/er/c.gltf"].author) == ("MIT", "Deep")
    assert (found["b.glb"].licence, found["b.glb"].author) == ("unknown", "")


def test_csv_table_with_a_byte_order_mark_and_a_line_break(folder):
    text = 'file,license,author\nb.glb,MIT,"Bee\nSmith"\n'
    (folder / "LICENCES.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert (records(folder)["b.glb"].licence, records(folder)["b.glb"].author) == ("MIT", "Bee\nSmith")


def test_markdown_table(folder):
    (folder / "LICENSES.md").write_text(
        "# Models\n\nWords before.\n\n"
        "| File | Licence (SPDX) | Author | Link |\n|:---|---|:-:|--:|\n"
        "| b.glb (was bee.glb) | CC BY-SA 3.0 | B | https://example.org/b |\n"
        "| `two words.glb` | CC0 | | |\n"
        "| deep/er/ | MIT OR Apache-2.0 | D | |\n"
    )
    found = records(folder)
    b = found["b.glb"]
    assert (b.licence, b.author, b.source_url) == ("CC-BY-SA-3.0", "B", "https://example.org/b")
    assert found["two words.glb"].licence == "CC0-1.0"
    assert found["deep/er/c.gltf"].licence == "MIT OR Apache-2.0"


@pytest.mark.parametrize("text", ["", "no table", "file,license\n", "a,b,c\n1,2\n", "\x00\n,,,\n"])
@pytest.mark.parametrize("name", ["LICENSES.csv", "LICENSES.md"])
def test_a_table_that_says_nothing_leaves_licences_unknown(folder, name, text):
    (folder / name).write_text(text)
    assert {record.licence for record in records(folder).values()} == {"unknown"}


def test_the_table_of_the_bundled_models():
    """The models committed to this repository are CC0 and have an author."""
    found = records(BUNDLED)
    assert {uid: record.licence for uid, record in found.items()} == {
        "greenman.glb": "CC0-1.0",
        "knight.glb": "CC0-1.0",
    }
    assert found["knight.glb"].author == "Kay Lousberg" and all(record.author for record in found.values())


@requires_collection
def test_the_table_of_the_collected_models():
    found = records(COLLECTION)
    expected = {
        "phoenix_bird.glb": "CC-BY-4.0",
        "Fox.glb": "CC0-1.0 AND CC-BY-4.0",
        "KayKit_Knight.glb": "CC0-1.0",
        "MorphStressTest.glb": "CC-BY-4.0",
        "box_sparse.glb": "MIT OR Apache-2.0",
        "01_cs_rotate/01_cs_rotate.gltf": "Apache-2.0",
        "03_all_animations/03_all_animations.gltf": "Apache-2.0",
        "bad/RecursiveNodes.gltf": "BSD-3-Clause",
    }
    assert {uid: found[uid].licence for uid in expected} == expected
    assert found["KayKit_Knight.glb"].author == "Kay Lousberg"
    assert "unknown" not in {record.licence for record in found.values()}
    assert all(record.author for record in found.values())


# --- names and neighbours -------------------------------------------------------------------------


def test_a_gltf_may_use_a_neighbouring_folder_of_the_source(tmp_path):
    """The same texture folder for several models; a worker opens the record by its location alone."""
    source = tmp_path / "source"
    (source / "models" / "crab").mkdir(parents=True)
    (source / "Buffers").mkdir()
    file, part = external_gltf(source / "models" / "crab")
    part.rename(source / "Buffers" / "data 1.bin")
    file.write_text(file.read_text().replace("data%201.bin", "..\\\\..\\\\buffers\\\\data%201.bin"))
    (record,) = open_source(str(source)).list()
    asset, _ = AssetCache().open(AssetRecord.from_json(json.loads(json.dumps(record.to_json()))))
    assert asset.num_vertices == 12
    (source / "Buffers" / "data 1.bin").write_bytes(b"changed")
    assert next(iter(open_source(str(source)).list())).fingerprint != record.fingerprint
    (alone,) = open_source(str(file)).list()  # the file as the source: its folder is all there is
    with pytest.raises(gltf.GltfError, match="is outside the asset's folder"):
        AssetCache().open(alone)


def test_a_neighbouring_folder_outside_the_source_is_refused(tmp_path):
    source = tmp_path / "source"
    (source / "models").mkdir(parents=True)
    file, part = external_gltf(source / "models")
    part.rename(tmp_path / "data 1.bin")
    file.write_text(file.read_text().replace("data%201.bin", "../../data%201.bin"))
    (record,) = open_source(str(source)).list()
    with pytest.raises(gltf.GltfError, match="is outside the source's folder"):
        AssetCache().open(record)
    # Only the records of a folder name a path inside it.
    for other in (replace(record, source="manifest"), replace(record, uid="a/b/c/model.gltf")):
        assert open_source(record.location).root(other) is None


NAMES = [
    b"caf\xe9.glb",
    b"d\xff/fox.glb",
    b"\xc3.glb",
    b"caf\xe9/\xff\xfe.gltf",
    "grün.glb".encode(),
    b"100%.glb",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_not_utf8(tmp_path, name):
    source = os.path.join(os.fsencode(tmp_path), b"source", name)
    os.makedirs(os.path.dirname(source))
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    Path(os.fsdecode(source)).write_bytes(tiny.glb())
    table = b'file,licence,author\n"' + name + b'",CC0-1.0,Ann\n'
    (tmp_path / "source" / "LICENSES.csv").write_bytes(table)
    (record,) = open_source(str(tmp_path / "source")).list()
    assert (record.licence, record.author) == ("CC0-1.0", "Ann")
    assert unquote_to_bytes(record.uid) == name or record.uid.encode() == name
    sent = AssetRecord.from_json(json.loads(json.dumps(record.to_json()).encode()))
    asset, _ = AssetCache().open(sent)
    asset.name.encode()
    assert asset.num_vertices == 12 and pa.array([record.uid]).to_pylist() == [record.uid]
    Path(os.fsdecode(source)).write_bytes(b"glTF broken")
    with pytest.raises(gltf.GltfError) as error:
        AssetCache().open(sent)
    str(error.value).encode()
    Path(os.fsdecode(source)).unlink()
    with pytest.raises(FileNotFoundError) as gone:
        open_source(str(tmp_path / "source")).fetch(sent)
    str(gone.value).encode()


def test_two_names_with_one_spelling_stay_apart(tmp_path):
    for name in (b"caf\xe9.glb", b"caf%E9.glb"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(model())
    assert sorted(record.uid for record in open_source(str(tmp_path)).list()) == ["caf%E9.glb", "caf%E9.glb~"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_manifest_lists_names_that_are_not_utf8(tmp_path, suffix):
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.glb"))).write_bytes(model())
    lines = {
        ".csv": b"file,title\ncaf\xe9.glb,Caf\xe9\n",
        ".jsonl": b'{"file": "caf\xe9.glb", "title": "Caf\xe9"}\n',
    }
    (tmp_path / f"list{suffix}").write_bytes(lines[suffix])
    (record,) = open_source(str(tmp_path / f"list{suffix}")).list()
    assert (record.fault, record.uid, record.title) == ("", "caf\ufffd.glb", "Caf\ufffd")
    asset, _ = AssetCache().open(AssetRecord.from_json(json.loads(json.dumps(record.to_json()))))
    assert asset.animations
