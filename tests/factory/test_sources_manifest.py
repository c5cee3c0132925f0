"""Manifests, web addresses, and which records are taken."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from sketchfab_server import SketchfabServer
from tiny_gltf import moving

from factory.assets.record import AssetRecord
from factory.assets.sanitize import address, number, sha256, tags, text
from factory.assets.selection import Selection
from factory.sources import SourceError, open_source

MODEL = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]]).glb()
SUM = hashlib.sha256(MODEL).hexdigest()
URL = "https://models.example/fox.glb"
FOX = {
    "uid": "fox-1",
    "title": "Fox",
    "author": "Ada",
    "licence": "CC BY 4.0",
    "source_url": "https://models.example/fox",
    "sha256": SUM,
    "noai": "no",
    "noai_checked_at": "2026-01-02",
    "animations": 2,
    "faces": 100,
}


def listed(path: Path) -> list[AssetRecord]:
    return list(open_source(str(path)).list())


# --- manifests ----------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "fox.glb").write_bytes(MODEL)
    lines = [
        {"path": "models/fox.glb", "license": "MIT", "tags": ["Animal", "fox"]},
        {**FOX, "url": URL},
        {"location": str(tmp_path / "models" / "fox.glb")},
    ]
    file = tmp_path / "list.jsonl"
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)), "utf-8")
    local, remote, bare = listed(file)
    assert (local.uid, local.licence, local.tags) == ("models/fox.glb", "MIT", ("animal", "fox"))
    assert local.fingerprint == bare.fingerprint == remote.fingerprint == f"sha256:{SUM}"
    assert local.is_local and local.unsettled and not remote.is_local and not remote.unsettled
    assert (remote.uid, remote.title, remote.author, remote.licence) == ("fox-1", "Fox", "Ada", "CC-BY-4.0")
    assert (remote.noai, remote.noai_checked_at, remote.animations, remote.faces) == (
        "no",
        "2026-01-02",
        2,
        100,
    )
    assert open_source(local.location).fetch(local).read_bytes() == MODEL


def test_a_table(tmp_path):
    (tmp_path / "fox.glb").write_bytes(MODEL)
    with (tmp_path / "list.csv").open("w", newline="") as target:
        writer = csv.DictWriter(target, ["file", "License", "author", "tags", "noai"])
        writer.writeheader()
        writer.writerow(
            {"file": "fox.glb", "License": "CC0", "author": "Ada, B.", "tags": "a; b", "noai": "Yes"}
        )
        target.write("\n,,,\n")
    (record,) = listed(tmp_path / "list.csv")
    assert (record.licence, record.author, record.tags, record.noai) == (
        "CC0-1.0",
        "Ada, B.",
        ("a", "b"),
        "yes",
    )


def test_lines_that_make_no_sense_are_counted(tmp_path):
    written = ["no json", "[]", "{}", "3", '{"path": 3}', '{"path": "gone.glb"}', '{"path": "\\u0000"}']
    written += ['{"url": "ftp://x/y"}', '{"path": "' + "x" * 5000 + '"}', '{"path": "\\ud800"}']
    written += ['{"path": "/dev/zero"}', '{"faces": ' + "9" * 5000 + "}"]
    (tmp_path / "list.jsonl").write_text("\n".join(written))
    faults = Counter(record.fault for record in listed(tmp_path / "list.jsonl"))
    assert faults == {
        "malformed: no location": 6,
        "dead: no such file": 5,
        "malformed: no such scheme": 1,
    }
    (tmp_path / "list.csv").write_text('path,title\n"' + "x" * 200_000 + '",t\ngone.glb,t\n')
    assert {record.fault for record in listed(tmp_path / "list.csv")} <= set(faults)


def test_a_web_address_is_a_source(tmp_path, monkeypatch):
    with SketchfabServer() as server:
        for name, value in server.variables(tmp_path).items():
            monkeypatch.setenv(name, value)
        server.static["/models.example/fox.glb"] = MODEL
        (record,) = open_source(URL).list()
        assert open_source(record.location).fetch(record).read_bytes() == MODEL
        (tmp_path / "list.jsonl").write_text(json.dumps({"url": URL, "sha256": SUM}))
        (known,) = listed(tmp_path / "list.jsonl")
        open_source(known.location).fetch(known)
        assert len(server.requests) == 1
    with pytest.raises(SourceError, match="expected a web address"):
        open_source("https://")


# --- selection ----------------------------------------------------------------------------------------


def record(uid: str = "a", **changes) -> AssetRecord:
    values = {"location": URL, "fingerprint": f"url:{uid}", "licence": "CC-BY-4.0", "noai": "no"}
    return AssetRecord(uid, "manifest", **{**values, **changes})


@pytest.mark.parametrize(
    ("selection", "changes", "reason"),
    [
        (Selection(), {}, ""),
        (Selection(), {"fault": "dead: no such file"}, "dead: no such file"),
        (Selection(animated=True), {"animations": 0}, "not animated"),
        (Selection(animated=True), {"animations": 2}, ""),
        (Selection(animated=True), {"animations": None}, ""),
        (Selection(max_faces=100), {"faces": 101}, "more than 100 faces"),
        (Selection(max_faces=100), {"faces": 100}, ""),
        (Selection(max_faces=100), {"faces": None}, ""),
        (Selection(tags=("Fox", "dog")), {"tags": ("fox",)}, ""),
        (Selection(tags=("fox",)), {"tags": ("dog",)}, "none of the tags"),
        (Selection(licences=("CC0-1.0",)), {}, "licence: CC-BY-4.0 was not asked for"),
        (Selection(licences=("CC0-1.0",)), {"licence": "unknown", "unsettled": True}, ""),
        (Selection(licences=("CC0-1.0",)), {"licence": "unknown"}, "licence: unknown was not asked for"),
        (
            Selection(policy="permissive-only"),
            {"licence": "CC-BY-SA-4.0"},
            "not in the policy permissive-only",
        ),
        # What others publish has to be known; what lies here is the user's own affair.
        (Selection(), {"licence": "unknown"}, "--allow-unknown-licence"),
        (Selection(), {"noai": "unknown"}, "--allow-unknown-noai"),
        (Selection(), {"noai": "unknown", "unsettled": True}, ""),
        (Selection(), {"licence": "unknown", "noai": "unknown", "location": "/models/a.glb"}, ""),
        (Selection(), {"noai": "yes", "location": "/models/a.glb"}, "forbids AI"),
        (Selection(policy="any"), {"licence": "CC-BY-ND-4.0", "noai": "unknown"}, ""),
        (Selection(), {"licence": "CC-BY-ND-4.0"}, "not in the policy research: it forbids derivatives"),
        (Selection(allow_no_derivatives=True), {"licence": "CC-BY-ND-4.0"}, ""),
        (Selection(policy="commercial"), {"licence": "CC-BY-ND-3.0"}, "--allow-no-derivatives takes it"),
    ],
)
def test_what_is_taken_and_why_not(selection, changes, reason):
    found = selection.reason(record(**changes))
    assert reason in found and bool(reason) == bool(found)


def test_a_sample_is_drawn_by_the_seed_and_stays_when_the_source_grows():
    records = [record(str(number)) for number in range(200)]
    left_out: list[str] = []
    drawn = list(Selection(sample=20, seed=1).apply(iter(records), left_out.append))
    assert len(drawn) == 20 and left_out == ["not in the sample"] * 180
    assert drawn == sorted(drawn, key=lambda r: int(r.uid)), "in the order of the source"
    assert drawn == list(Selection(sample=20, seed=1).apply(records, left_out.append))
    others = list(Selection(sample=20, seed=2).apply(records, left_out.append))
    assert drawn != others
    more = list(
        Selection(sample=20, seed=1).apply([*records, *(record(f"n{i}") for i in range(20))], left_out.append)
    )
    assert len(set(more) & set(drawn)) >= 15
    assert len(list(Selection(sample=500).apply(records, left_out.append))) == 200


# --- what strangers write -----------------------------------------------------------------------------

ANYTHING = [
    None,
    True,
    3,
    -1,
    2.5,
    float("nan"),
    float("inf"),
    10**400,
    10**5000,
    "",
    "x",
    "\ud800",
    "a\x00b",
]
ANYTHING += [[], {}, [[]], b"x", "𝕏" * 5000]


@pytest.mark.parametrize("read", [text, number, address, tags, sha256])
def test_readers_take_anything(read):
    chaos = random.Random(0)
    for value in [
        *ANYTHING,
        *([chaos.choice(ANYTHING)] * 3 for _ in range(50)),
        {"slug": [1]},
        [{"name": "\ud800"}],
    ]:
        json.dumps(read(value)).encode()
        repr(read(value)).encode("utf-8")


def test_text_is_one_visible_line():
    assert text(" a\n\tb\x00c\u202egnp.exe \ud83d\ude00") == "a b c gnp.exe"
    assert text("x" * 1000) == "x" * 299 + "…" and len(text("𝕏" * 10**6)) == 300
    assert text("<b>\u200d</b>") == "<b>\u200d</b>"  # escaping is for whoever writes HTML
    assert text(7) == "7" and text(True) == text([]) == ""


def test_addresses_are_addresses():
    assert address(" https://example.org/a?b=c#d ") == "https://example.org/a?b=c#d"
    bad_ones = (
        "javascript:alert(1)",
        "https://",
        "http://a b",
        "http://[",
        "https://x\n.org",
        "https://x/<s>",
        "//x",
    )
    for bad in (*bad_ones, "x" * 3000):
        assert address(bad) == ""


def test_numbers_are_counts():
    assert [number(value) for value in (3, "12", 4.0, 0)] == [3, 12, 4, 0]
    assert [number(value) for value in (-1, "x", 2.5, True, None, 10**13, "٣")] == [None] * 7
