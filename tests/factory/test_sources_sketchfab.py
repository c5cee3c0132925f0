"""Sketchfab through its API: what is listed, what is fetched with a token, what authors forbid."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from seeded_objaverse import uid_of
from sketchfab_server import SketchfabServer, annotation
from tiny_gltf import moving

from factory.assets.licences import UNKNOWN
from factory.sources import SourceError, downloads, open_source, sketchfab
from factory.sources.downloads import DeadLink, DownloadError
from factory.sources.sketchfab import forbids_ai, licence_of
from renderers import gltf

UIDS = sorted(uid_of(name) for name in "abcde")
A, B = UIDS[:2]
MODEL = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])


@pytest.fixture
def server(tmp_path, monkeypatch):
    with SketchfabServer() as server:
        for name, value in server.variables(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(downloads, "_BACK_OFF_S", 0.001)
        monkeypatch.setattr(sketchfab, "_unreachable_until", {})
        server.models = {uid: annotation(uid) for uid in UIDS}
        yield server


def listed(uri: str) -> list:
    return list(open_source(uri).list())


def fetch(record) -> Path:
    return open_source(record.location).fetch(record)


def archive(**extra: bytes) -> bytes:
    """As Sketchfab packs glTF: scene.gltf, scene.bin, textures."""
    json_ = MODEL.json | {"buffers": [{"byteLength": len(MODEL.binary), "uri": "scene.bin"}]}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as content:
        content.writestr("scene.gltf", json.dumps(json_))
        content.writestr("scene.bin", bytes(MODEL.binary))
        for name, data in extra.items():
            content.writestr(name, data)
    return target.getvalue()


def test_models_by_uid_are_asked_about_when_they_are_listed(server):
    server.models[B] = annotation(B, tags=[{"name": "NoAI", "slug": "noai"}], isDownloadable=True)
    a, b, gone = listed(f"sketchfab://{A},{B},{'0' * 32}")
    assert (a.title, a.author, a.licence, a.noai) == (f"Model {A[:4]}", "Ada L.", "CC-BY-4.0", "no")
    assert a.noai_checked_at and not a.unsettled and (a.animations, a.faces) == (1, 500)
    assert b.noai == "yes"
    assert gone.fault == "dead: gone from Sketchfab, HTTP 404"


def test_a_search_goes_through_all_its_pages(server):
    server.models[A]["isDownloadable"] = False
    records = listed("sketchfab://search?q=robot")
    assert [record.uid for record in records] == UIDS
    assert records[0].fault == "dead: not downloadable" and all(record.unsettled for record in records)
    asked = server.requests[0].path
    assert "q=robot" in asked and "animated=true" in asked and "downloadable=true" in asked
    assert open_source(records[1].location).check(records[1]).noai == "no"


def test_a_search_follows_no_link_to_another_host(server, monkeypatch):
    pages = [json.dumps({"results": [annotation(A)], "next": "http://127.0.0.1:9/v3/search"}).encode()]
    monkeypatch.setattr(server, "_search", lambda query: pages[0])
    assert len(listed("sketchfab")) == 1


def test_a_glb_is_fetched_with_the_token_once(server):
    server.files[A] = {"glb": MODEL.glb(), "gltf": b"not asked for"}
    (a,) = listed(f"sketchfab://{A}")
    first = fetch(a)
    before = len(server.requests)
    assert fetch(a) == first and first.read_bytes() == MODEL.glb() and len(server.requests) == before
    tokens = {request.headers.get("Authorization") for request in server.asked("/media/")}
    assert tokens == {None}, "the token is for the API, not for the host of the files"


def test_an_archive_is_unpacked(server):
    server.files[A] = {
        "gltf": archive(**{"textures/x.png": b"x", "../../evil": b"x", "/abs": b"x", "a\\..\\b": b"x"})
    }
    (a,) = listed(f"sketchfab://{A}")
    file = fetch(a)
    assert len(gltf.load(file).animations) == 1
    names = {path.relative_to(file.parent).as_posix() for path in file.parent.rglob("*") if path.is_file()}
    assert names == {"scene.gltf", "scene.bin", "textures/x.png"}
    assert fetch(a) == file


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", archive()[:300]])
def test_an_archive_that_is_none_is_dead(server, data):
    server.files[A] = {"gltf": data}
    with pytest.raises(DeadLink, match="archive"):
        fetch(listed(f"sketchfab://{A}")[0])


def test_links_that_expire_are_asked_for_again(server):
    server.files[A] = {"glb": MODEL.glb()}
    (a,) = listed(f"sketchfab://{A}")
    server.lifetime = -1.0

    def misbehave(request):
        if "/media/" in request.path:
            server.lifetime = 300.0
        return None

    server.misbehave = misbehave
    assert fetch(a).read_bytes() == MODEL.glb()
    assert len(server.asked("/media/")) == 2


def test_what_may_not_be_downloaded_is_dead(server):
    (a,) = listed(f"sketchfab://{A}")
    with pytest.raises(DeadLink, match="no download from Sketchfab, HTTP 403"):
        fetch(a)
    server.files[A] = {"usdz": b"x"}
    with pytest.raises(DeadLink, match="no glTF to download"):
        fetch(a)


def test_without_a_token_or_with_a_wrong_one_a_sentence_says_what_to_do(server, monkeypatch):
    server.files[A] = {"glb": MODEL.glb()}
    (a,) = listed(f"sketchfab://{A}")
    monkeypatch.setenv("SKETCHFAB_API_TOKEN", "wrong")
    with pytest.raises(DownloadError, match="does not accept the token in SKETCHFAB_API_TOKEN"):
        fetch(a)
    monkeypatch.delenv("SKETCHFAB_API_TOKEN")
    with pytest.raises(DownloadError, match="set SKETCHFAB_API_TOKEN"):
        fetch(a)
    with pytest.raises(SourceError, match="set SKETCHFAB_API_TOKEN"):
        listed(f"sketchfab://{A}")
    with pytest.raises(SourceError, match="is no Sketchfab uid"):
        open_source("sketchfab://..")


def test_an_api_out_of_reach_is_not_asked_again_for_a_while(server):
    (a,) = listed("sketchfab://search?q=x")[:1]
    server.misbehave = lambda request: "drop"
    before = len(server.requests)
    for _ in range(3):
        with pytest.raises(DownloadError):
            open_source(a.location).check(a)
    assert len(server.requests) - before == 5


@pytest.mark.parametrize(
    "said", [None, [], {}, {"tags": None}, {"tags": "x"}, {"license": 3, "tags": [[], None, {"slug": 3}]}]
)
def test_answers_that_make_no_sense_settle_nothing_wrongly(server, said):
    server.models[A] = said
    (record,) = listed(f"sketchfab://{A}")
    assert record.uid == A and record.licence == UNKNOWN
    assert record.noai == (
        "no" if isinstance(said, dict) and isinstance(said.get("tags"), list) else "unknown"
    )


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("by-nc-sa", "CC-BY-NC-SA-4.0"),
        ("st", "LicenseRef-Sketchfab-Standard"),
        ("ed", "LicenseRef-Sketchfab-Editorial"),
        ("free-st", "LicenseRef-Sketchfab-Free-Standard"),
        ("Free Standard", "LicenseRef-Sketchfab-Free-Standard"),
        ({"label": "Editorial"}, "LicenseRef-Sketchfab-Editorial"),
        ({"slug": None, "label": "CC Attribution-NoDerivs"}, "CC-BY-ND-4.0"),
        ({"fullName": "Creative Commons Attribution-ShareAlike"}, "CC-BY-SA-4.0"),
        ({"slug": 3, "label": ["x"]}, UNKNOWN),
        (None, UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_licences_as_sketchfab_says_them(said, licence):
    assert licence_of(said) == licence


def test_no_ai_however_it_is_spelt():
    assert all(forbids_ai((word,)) for word in ("noai", "no-ai", "no ai", "no_ai"))
    assert not any(forbids_ai((word,)) for word in ("ai", "piano-air", "noair"))
