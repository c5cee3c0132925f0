"""File names, titles and motions of other people: on the terminal, in progress, in errors, in cards and tables."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from tiny_dataset import grow
from tiny_gltf import moving

import factory.render
from cluster import Record, Report, StageError, Task
from factory import load_clips
from factory.assets.tombstones import Tombstone
from factory.clips.plan import ClipRecipe
from factory.clips.report import summary
from factory.clips.review import duplicate_lines, report, tombstone_line
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult, Tally
from factory.console import OutputOptions, ProgressDisplay, Status, notice, print_result, run_command
from factory.dataset.pages.card import card_files
from factory.motion_videos.run import SubjectVideos
from factory.motion_videos.run import summary as motion_summary
from factory.sources import SourceError
from factory.training.leaderboard import aligned, markdown
from renderers.meshes import RenderSettings

markdown_it = pytest.importorskip("markdown_it", reason="renders the card as a web page would")

EVIL = "fox\x1b[2J\x9b31m\u202eblg.\u2066\x07\r\nrendered     99 clips of 99 assets\u2028"
MARKUP = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) | `a` ![x](http://evil/x.png) @me <!-- \n\n# Title\n---"


def assert_harmless(text: str, lines: int | None = None) -> None:
    shown = text.split("\n")
    assert all(line.isprintable() for line in shown), text
    assert not any(line.startswith("rendered     99") for line in shown), text
    assert lines is None or len(shown) == lines, text


def test_the_closing_table():
    tally = Tally(
        planned=2, rendered=2, assets=2, renderers={EVIL}, quarantined={EVIL: f"{EVIL}: torn {EVIL}"}
    )
    tally.rejected = Counter({EVIL: 1})
    tally.filtered = Counter({f"licence {EVIL}": 1})
    tally.dead = Counter({EVIL: 2})
    tally.seconds = Counter(render=1.0)
    stage = RenderStage(ClipRecipe(), RenderSettings(), "opengl", 0.0)
    shown = summary(RenderResult(Report(wall_s=1.0, workers=1), tally, []), stage)
    assert_harmless(shown, lines=12)
    assert "fox\\x1b[2J\\x9b31m\\u202eblg." in shown


def test_a_folder_with_such_names_end_to_end(capsys, tmp_path):
    """A file system allows every byte but / and NUL."""
    folder = tmp_path / "models"
    folder.mkdir()
    good = moving("rotation", [0, 1], [[0, 0, 0, 1], [0, 1, 0, 0]])
    good.json["animations"][0]["name"] = EVIL
    (folder / "torn\x1b[2J\nrendered     99 clips\u202e.glb").write_bytes(good.glb()[:100])
    (folder / "good\x1b[2J\n.glb").write_bytes(good.glb())
    command = [
        "--source",
        str(folder),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--resolution",
        "16",
    ]
    command += ["--num-frames", "2", "--fps", "2", "--views", "2"]
    for options in ([], ["--dry-run"], ["--json"]):
        assert factory.render.main([*command, *options]) == 0
        shown = capsys.readouterr()
        assert_harmless(shown.out)
        assert_harmless(shown.err)
        assert "torn" in shown.out
    for name in ("README.md", "ATTRIBUTION.md"):
        assert_harmless((tmp_path / "out" / name).read_text())
    for file in (tmp_path / "out/_factory/runs").iterdir():
        assert_harmless(file.read_text())


@pytest.mark.parametrize("output", [OutputOptions(), OutputOptions(json=True)])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, output, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    status = Status("steps", 1, 2, 3.0, facts={"stage": EVIL, EVIL: 1}, details={EVIL: EVIL, "a": "b"})
    with ProgressDisplay(output, stream) as display:
        display.update(lambda: status)
    shown = re.sub(r"\x1b\[\d+A\x1b\[J", "", stream.getvalue())  # the display's own
    assert shown and shown.count("\n") == (1 if output.json else 3)
    assert_harmless(shown)


@pytest.mark.parametrize("error", [SourceError, OSError, ValueError])
def test_errors_and_notices(capsys, error):
    def action() -> int:
        notice(EVIL)
        raise error(EVIL)

    assert run_command("factory.render", action, errors=(error,)) == 1
    shown = capsys.readouterr().err
    assert_harmless(shown, lines=3)


def test_the_lines_of_a_stages_error_stay(capsys):
    def action() -> int:
        raise StageError("it cannot start:\n  first\n  second \x1b[2J")

    assert run_command("factory.render", action) == 1
    assert capsys.readouterr().err == "factory.render: it cannot start:\n  first\n  second \\x1b[2J\n"


def test_a_result_is_not_obeyed(capsys):
    print_result(OutputOptions(), "ours\n" + EVIL.replace("\n", ""), {})
    assert_harmless(capsys.readouterr().out, lines=3)
    print_result(OutputOptions(json=True), "", {"name": EVIL, "surrogate": os.fsdecode(b"\xe9")})
    shown = capsys.readouterr().out
    assert_harmless(shown, lines=2)
    assert json.loads(shown)["name"] == EVIL


def test_motions_and_models():
    videos = [
        SubjectVideos(EVIL, fault=EVIL),
        SubjectVideos(EVIL, Path(EVIL), motions=2, rejected=Counter({EVIL: 1}), quarantined={EVIL: EVIL}),
    ]
    assert_harmless(motion_summary(videos), lines=4)
    assert_harmless(aligned([["model"], [EVIL]]), lines=2)
    table = markdown([["model", "worst motion"], [EVIL, MARKUP]])
    assert_harmless(table, lines=4)
    assert "<img" not in table and "[x](" not in table and table.splitlines()[2].count(" | ") == 1


def test_reviews_of_a_dataset(tmp_path):
    root = tmp_path / "dataset"
    evil = {"source": "web", "quality": EVIL, "motion_signature": [100] * 91}
    grow(root, 0, 1, asset_uid=EVIL, asset_sha256="0" * 64, split="train", **evil)
    grow(root, 1, 2, asset_uid=f"{EVIL}2", asset_sha256="1" * 64, split="test", **evil)
    (tmp_path / "deny.txt").write_text(f"x{'a' * 31} bench\x1b[2J\n")
    for line in report(str(root), [str(tmp_path / "deny.txt")]):
        assert_harmless(line.lstrip("\n"), lines=1)
    assert "\\x1b[2J" in list(duplicate_lines(load_clips(root).table()))[1]  # they are alike
    assert_harmless(tombstone_line(Tombstone(EVIL, EVIL, EVIL, "2026-01-01T00:00:00Z")), lines=1)


def test_a_dataset_without_measurements_is_reviewed(tmp_path):
    """Rendered with `--quality off`."""
    grow(tmp_path, 0, 2, motion_signature=None)
    assert list(duplicate_lines(load_clips(tmp_path).table())) == [
        "pairs of similar assets: 0, 0 of them in different splits"
    ]


@pytest.mark.parametrize("text", [EVIL, MARKUP])
def test_cards_show_it_and_neither_markdown_nor_html_obeys(tmp_path, text):
    root = tmp_path / "dataset"
    columns = ("title", "author", "licence", "attribution", "source", "caption_origin", "quality", "noai")
    grow(root, 0, 1, **dict.fromkeys(columns, text), source_url="javascript:alert(1)", animation_name=text)
    parser = markdown_it.MarkdownIt("gfm-like", {"html": True, "linkify": False})
    for name, data in card_files(root).items():
        page = data.decode()
        assert_harmless(page)
        front, _, body = page.rpartition("\n---\n\n") if name == "README.md" else ("", "", page)
        assert text not in front and "Title" not in front and "rendered" not in front
        shown = parser.render(body)
        assert "&lt;img src=x" in shown or text is EVIL
        assert not re.search(r"<img[^>]*(onerror|evil)|<a[^>]*javascript|<h\d>[^<]*Title|<!--|<script", shown)


def test_a_record_with_such_a_label_is_counted():
    tally = Tally()
    record = Record("k", EVIL, "quarantined", reason=EVIL)
    payload = {"asset": {"uid": EVIL, "source": "folder", "location": "x", "fingerprint": "sha256:0"}}
    tally.add(Task("k", payload, EVIL), record)
    assert tally.quarantined == {EVIL: EVIL}
