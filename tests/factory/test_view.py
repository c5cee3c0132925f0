"""The dataset browser without a browser: index, pages, videos, refusals, export, and the command."""

from __future__ import annotations

import http.client
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import fsspec
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer
from synthetic_index import HOSTILE, ROWS, table
from tiny_dataset import VIEWS, grow

import factory
import factory.curate
import factory.render
import factory.view
from factory.browser.catalogue import Catalogue
from factory.browser.index import FACETS, STORED, Index, Query, parse_query
from factory.browser.server import SCRIPTS, STYLES, asset
from factory.dataset.schema import DESCRIPTIONS
from zoo.errors import OptionError
from zoo.viewer.serving import byte_range


def ask(running, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET request."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def discs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "discs"
    grow(root, 0, 8, shard=3, title=HOSTILE, author=HOSTILE, caption="")
    grow(
        root, 8, 12, licence="CC0-1.0", source="creatures", caption="a <b>disc</b> that rolls", quality="high"
    )
    return root


@pytest.fixture(scope="module")
def running(discs):
    with factory.browse(discs, open_browser=False, block=False) as server:
        yield server


# --- the index -----------------------------------------------------------------------------------


def test_a_query_finds_what_a_loop_finds():
    rows = table(1000)
    index, listed = Index(rows), rows.to_pylist()
    for row in listed:
        row["species"] = row["asset_uid"].split("-")[1] if row["source"] == "creatures" else ""
    queries = [
        Query(),
        Query(text="HOPS 3"),
        Query(text="left kangaroo"),
        Query({"species": ["fox", "bird"]}),
        Query({"species": [""], "split": ["test"]}, "author 15"),
        Query({"licence": ["CC0-1.0"], "quality": ["high", ""], "source": ["creatures"]}, page=1, size=7),
        Query({"licence": ["no such"]}),
        Query(text="3\nauthor"),
    ]
    for query in queries:
        words = query.text.lower().split()

        def texts(row: dict) -> str:
            return "\n".join(
                row[n] for n in ("title", "author", "caption", "animation_name", "asset_uid", "clip_id")
            )

        found = [row for row in listed if all(word in texts(row).lower() for word in words)]
        kept = [row for row in found if all(row[name] in v for name, v in query.values.items() if v)]
        matches = index.find(query)
        begin = query.page * query.size
        assert matches.total == len(kept)
        assert [index.cards([row])[0]["clip_id"] for row in matches.rows] == [
            row["clip_id"] for row in kept[begin : begin + query.size]
        ]
        for name in FACETS:  # counts leave out the facet's own filter
            others = [row for row in found if all(row[n] in v for n, v in query.values.items() if n != name)]
            expected = {
                value: sum(row[name] == value for row in others) for value in {r[name] for r in others}
            }
            assert matches.facets[name] == expected


def test_a_hundred_thousand_rows_are_filtered_in_time():
    index = Index(table(ROWS))
    queries = [
        Query(),
        Query(text="kangaroo 3 left"),
        Query({"licence": ["CC0-1.0"], "species": ["fox"]}, "hops"),
    ]
    for query in queries:
        started = time.process_time()
        matches = index.find(query)
        assert time.process_time() - started < 0.5 and matches.total > 0
    assert index.size_bytes < 100e6
    print(f"index of {ROWS} rows: {index.size_bytes / 1e6:.0f} MB")


def test_malformed_queries_are_refused():
    for bad in ({"page": "-1"}, {"page": "x"}, {"size": "0"}, {"size": "9999"}, {"q": "a" * 201}, {"split": "train"},
                {"split": "[1]"}, {"split": "[" * 5000}, {"page": "٣"}, {"page": "9" * 30}):  # fmt: skip
        with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected"):
            parse_query(bad)
    assert parse_query({"split": '["a", ""]', "other": "x"}).values == {"split": ("a", "")}


# --- the server ------------------------------------------------------------------------------------


def test_cards_and_facets(running):
    status, headers, body = ask(running, "/clips?q=rolls&licence=" + quote('["CC0-1.0"]'))
    answer = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert answer["total"] == 4 and answer["clips"] == 12 and answer["complete"]
    assert [card["row"] for card in answer["cards"]] == [8, 9, 10, 11]
    assert {each["value"]: each["count"] for each in answer["facets"]["quality"]} == {"high": 4}
    assert (
        answer["cards"][0]["caption"] == "a <b>disc</b> that rolls"
    )  # a text; the page never reads it as HTML


def test_the_page_of_a_clip_has_all_columns(running, discs):
    clip = factory.load_clips(discs)[9]
    answer = json.loads(ask(running, "/clip?row=9")[2])
    columns = {each["name"]: each["value"] for each in answer["columns"]}
    assert list(columns) == factory.load_clips(discs).columns
    assert columns["licence"] == "CC0-1.0" and json.loads(columns["K"]) == clip.metadata["K"]
    assert all(each["about"] == DESCRIPTIONS[each["name"]] for each in answer["columns"])
    assert answer["attribution"] == clip.metadata["attribution"]
    assert sorted(answer["views"]) == list(range(VIEWS)) and answer["azimuths"] == sorted(answer["azimuths"])
    words = shlex.split(answer["command"])
    assert words[:5] == ["python", "-m", "factory.curate", "rerender", clip.clip_id]
    assert words[words.index("--data") + 1] == str(discs) and "--asset" in words  # it is no creature


def test_videos_are_those_of_the_shards(running, discs):
    stored = factory.load_clips(discs).read_row(5, ["view_01"])["view_01"]["bytes"]
    status, headers, body = ask(running, "/video?row=5&view=1")
    assert (status, headers["Content-Type"], body) == (200, "video/mp4", stored)
    status, headers, body = ask(running, "/video?row=5&view=1", Range="bytes=100-199")
    assert (status, body, headers["Content-Range"]) == (206, stored[100:200], f"bytes 100-199/{len(stored)}")
    assert ask(running, "/video?row=5&view=1", Range=f"bytes={len(stored)}-")[0] == 416


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", None), ("bytes=0-", (0, 10)), ("bytes=3-5", (3, 6)), ("bytes=-4", (6, 10)), ("bytes=-99", (0, 10)),
     ("bytes=7-99", (7, 10)), ("bytes=10-", (10, 10)), ("bytes=0-1,4-5", None), ("lines=1-2", None), ("bytes=-", None),
     ("bytes=" + "9" * 5000 + "-", None)],
)  # fmt: skip
def test_ranges(header, expected):
    assert byte_range(header, 10) == expected


def test_nothing_else_can_be_read(running, discs):
    (discs / "secret.txt").write_text("SECRET")
    for path in (
        "/secret.txt", "/../secret.txt", "/page/../secret.txt", "/page/..%2f..%2fsecret.txt", "/page/browser.html",
        "/%2e%2e/etc/passwd", "//etc/passwd", "/data/train/part-00000.parquet", "/page/", "/page/server.py",
        "/_factory/shards/x", "/contact_sheet.png/../secret.txt", "/page/%00", "/\\..\\secret.txt",
    ):  # fmt: skip
        status, _, body = ask(running, path)
        assert status == 404 and b"SECRET" not in body, path
    for path in ("/video?row=../secret.txt&view=0", "/video?row=99&view=0", "/video?row=0&view=2", "/video?row=0",
                 "/video?row=0&view=-1", "/clip?row=1e3", "/clip?row=12", "/clip", "/clips?page=-1"):  # fmt: skip
        status, _, body = ask(running, path)
        assert (status == 400 and b"expected" in body) or b"has no view" in body, path
    assert ask(running, "/contact_sheet.png")[0] == 404  # this dataset has none
    for name in (*SCRIPTS, *STYLES):
        status, headers, body = ask(running, f"/page/{name}")
        assert (
            status == 200
            and body.decode() == asset(name)
            and "default-src 'none'" in headers["Content-Security-Policy"]
        )


def test_other_hosts_need_a_token(discs):
    with factory.browse(discs, host="0.0.0.0", open_browser=False, block=False) as running:
        assert "?token=" in running.url
        token = running.url.partition("=")[2]
        for path in (
            "/",
            "/clips",
            "/clip?row=0",
            "/video?row=0&view=0",
            "/report",
            "/page/browser.js",
            "/?token=no",
        ):
            assert ask(running, path)[0] == 403, path
        status, headers, _ = ask(running, f"/?token={token}")
        assert status == 303
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert ask(running, "/clips", Cookie=cookie)[0] == 200
    with factory.browse(discs, open_browser=False, block=False) as running:
        assert ask(running, "/", Host="evil.example")[0] == 403  # DNS rebinding
        assert ask(running, "/clips", **{"Sec-Fetch-Site": "cross-site"})[0] == 403


def test_hostile_texts_are_texts(running):
    body = ask(running, "/")[2]
    assert b"<script>alert" not in body
    for path in ("/clips", "/clip?row=0"):
        body = ask(running, path)[2].decode()
        content = json.dumps(json.loads(body), ensure_ascii=False)
        assert not any(ord(c) < 32 or c == "\u202e" for c in content)
    assert len(json.loads(ask(running, "/clips")[2])["cards"][0]["title"]) == 300
    assert len(json.loads(ask(running, "/clip?row=0")[2])["columns"][7]["value"]) > 10_000


def test_the_motion_report_opens(running):
    status, headers, body = ask(running, "/report")
    text = body.decode()
    assert status == 200 and "quality" in text and "12 clips" in text and "<script" not in text
    assert "style-src 'sha256-" in headers["Content-Security-Policy"]


def test_first_clips_are_there_before_the_index(discs, monkeypatch):
    import threading

    go = threading.Event()
    clips = factory.load_clips(discs)
    whole = clips.table
    monkeypatch.setattr(clips, "table", lambda columns=None: go.wait(20) and whole(columns))
    catalogue = Catalogue(clips, "discs")
    index, is_complete = catalogue.index(patience_s=0.01)
    assert not is_complete and len(index) == 12
    go.set()
    index, is_complete = catalogue.index(patience_s=20)
    assert is_complete and index.cards([3]) == Index(whole(STORED)).cards([3])


def test_a_damaged_shard_is_a_sentence(discs, monkeypatch):
    clips = factory.load_clips(discs)

    def damaged(columns=None):
        raise factory.DatasetError("part-00001.parquet cannot be read")

    monkeypatch.setattr(clips, "table", damaged)
    with factory.browse(clips, open_browser=False, block=False) as running:
        status, _, body = ask(running, "/clips")
        assert (status, body) == (400, b"part-00001.parquet cannot be read")


def test_a_url_is_shown(discs):
    memory = fsspec.filesystem("memory")
    for path in discs.rglob("data/*/*.parquet"):
        memory.pipe(f"/view-test/{path.relative_to(discs)}", path.read_bytes())
    try:
        with factory.browse("memory://view-test", open_browser=False, block=False) as running:
            assert json.loads(ask(running, "/clips")[2])["total"] == 12
            assert ask(running, "/video?row=0&view=0")[2][4:8] == b"ftyp"
    finally:
        memory.rm("/view-test", recursive=True)


# --- the export and the command ------------------------------------------------------------------


def js(path: Path) -> object:
    """The JSON in a script of an export."""
    return json.loads(path.read_text().partition(" = ")[2].rstrip(";\n"))


def test_an_export_has_the_pages_of_the_server(discs, tmp_path, capsys):
    out = tmp_path / "pages"
    argv = [str(discs), "--export", str(out), "--quiet"]
    assert factory.view.main(argv) == 0 and factory.view.main(argv) == 0  # an earlier export is replaced
    assert capsys.readouterr().out.splitlines()[-1] == f"open {out / 'index.html'}"
    clips = factory.load_clips(discs)
    index, pages = js(out / "data/index.js"), js(out / "data/clips-0.js")
    assert index["clips"] == len(pages) == 12 and len(index["texts"]) == 12
    catalogue = Catalogue(clips, str(discs))
    assert pages[9] == catalogue.page(9) and index["cards"] == catalogue.index(20)[0].cards(range(12))
    assert len(list((out / "videos").iterdir())) == 12 * VIEWS
    assert (out / "videos/5-1.mp4").read_bytes() == clips.read_row(5, ["view_01"])["view_01"]["bytes"]
    html = (out / "index.html").read_text()
    assert html.index("data/index.js") < html.index("page/static.js") < html.index("page/browser.js")
    assert "://" not in html and "<script>" not in html.replace("&lt;script&gt;", "")
    facet = index["facets"]["licence"]
    assert [facet["values"][code] for code in facet["codes"]] == ["CC-BY-4.0"] * 8 + ["CC0-1.0"] * 4


def test_a_part_of_a_dataset_is_exported(discs, tmp_path):
    page = factory.export_browser(discs, tmp_path / "few", limit=2, views=1)
    assert js(page.parent / "data/index.js")["clips"] == 2
    assert {path.name for path in (page.parent / "videos").iterdir()} == {"0-0.mp4", "1-0.mp4"}


def test_other_files_are_not_replaced(discs, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OptionError, match="has other files"):
        factory.export_browser(discs, tmp_path)
    with pytest.raises(OptionError, match="is a file"):
        factory.export_browser(discs, tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_wrong_arguments_of_browse(discs):
    for bad, said in (({"port": -1}, "port"), ({"port": 70000}, "port"), ({"host": 5}, "host"), ({"token": 5}, "token"),
                      ({"open_browser": 1}, "open_browser"), ({"block": "no"}, "block")):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=f"browse: {said}"):
            factory.browse(discs, **{"open_browser": False, "block": False} | bad)
    with pytest.raises(OptionError, match="--token"):
        factory.browse(discs, token="short", open_browser=False, block=False)
    for bad in ({"limit": 0}, {"views": 1.5}):
        with pytest.raises((TypeError, ValueError), match=f"export_browser: {next(iter(bad))}"):
            factory.export_browser(discs, "nowhere", **bad)


# --- rendering again ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bird(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bird") / "clips"
    argv = "--source creatures://bird --resolution 32 --num-frames 3 --views 2 --max-animations 1 --workers 0 --quiet"
    assert factory.render.main([*argv.split(), "--renderer", "cpu", "--out", str(out)]) == 0
    return out


def test_the_command_of_a_clip_renders_it_again(bird, tmp_path, monkeypatch, capsys):
    clips = factory.load_clips(bird)
    words = shlex.split(Catalogue(clips, str(bird)).page(0)["command"])
    monkeypatch.chdir(tmp_path)
    assert words[:3] == ["python", "-m", "factory.curate"] and factory.curate.main(words[3:]) == 0
    assert "4 of 4 columns of pixels have the bytes of the dataset" in capsys.readouterr().out
    again = pq.read_table("again.parquet").to_pylist()[0]
    assert again == clips.read_row(0, clips.schema.names)


def test_another_file_is_not_rendered(bird, discs, tmp_path, capsys):
    clip = factory.load_clips(bird)[0]
    other = tmp_path / "other.glb"
    other.write_bytes(b"glTF")
    argv = ["rerender", clip.clip_id, "--data", str(bird), "--to", str(tmp_path / "x.parquet")]
    assert factory.curate.main([*argv, "--asset", str(other)]) == 1
    assert f"rendered from a file with {clip.metadata['asset_sha256']}" in capsys.readouterr().err
    argv = ["rerender", "0" * 16, "--data", str(discs), "--to", str(tmp_path / "x.parquet")]
    assert factory.curate.main(argv) == 1 and "as --asset" in capsys.readouterr().err
    assert (
        factory.curate.main(["rerender", "none", *argv[2:]]) == 1
        and "no clip 'none'" in capsys.readouterr().err
    )
    assert not (tmp_path / "x.parquet").exists()


# --- a hub -------------------------------------------------------------------------------------------

ON_HUB = """
import json, sys, urllib.request
import factory
from factory.dataset.release import publish
publish(sys.argv[1], "hub:org/discs")
with factory.browse("hub:org/discs", open_browser=False, block=False) as running:
    get = lambda path: urllib.request.urlopen(running.url + path).read()
    print(json.dumps([json.loads(get("clips"))["total"], get("video?row=3&view=1").hex()[8:16],
                      json.loads(get("clip?row=3"))["command"]]))
"""


@pytest.mark.slow
def test_a_hub_dataset_is_shown(tmp_path):
    root = tmp_path / "discs"
    grow(root, 0, 6)
    with HubServer(tmp_path / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-P", "-c", ON_HUB, str(root)], env=hub.environment(tmp_path / "home"), text=True,
            capture_output=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    total, kind, command = json.loads(done.stdout.splitlines()[-1])
    assert (total, bytes.fromhex(kind)) == (6, b"ftyp") and "--data hub:org/discs" in command
