"""Reports of commands: counts over all runs, failures by reason, interruption, hostile texts, files of others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import factory.render
from cluster import Ledger, Outcome, Stage, Task, run, task_key
from factory.run_report import RunReport, read_runs
from zoo.export.html.report import MARK, Report, chart, embedded, facts, frame, gallery, table, video

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe \x1b[2J" + "B" * 10_000


@dataclass
class CountStage(Stage):
    """Ends task n as its name says."""

    def process(self, task: Task) -> Outcome:
        kind = task.payload["kind"]
        if kind == "stop":
            raise KeyboardInterrupt
        return Outcome(kind, reason="" if kind == "done" else f"{kind} because of {HOSTILE}")


def tasks(*kinds: str) -> list[Task]:
    return [Task(task_key(f"{n}", kind), {"kind": kind}, f"task {n}") for n, kind in enumerate(kinds)]


def reported(out: Path, *kinds: str, notices: list | None = None, **fields) -> None:
    """One run of a command with a report."""
    ledger = Ledger(out)
    sink = [] if notices is None else notices
    with RunReport(
        "factory.count", ledger, ("CountStage",), ["--out", HOSTILE], sink.append, **fields
    ) as report:
        run(CountStage(), tasks(*kinds), ledger, workers=0)
        report.result = "the table"


def cell(page: str, label: str) -> str:
    return re.search(rf'<th scope="row">{label}</th><td>([^<]*)</td>', page)[1]


def test_counts_are_those_of_all_runs(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        reported(tmp_path, "done", "done", "filtered", "stop", "done")
    page = (tmp_path / "report-count.html").read_text()
    assert "interrupted; the same command resumes" in page and "the table" not in page
    assert (cell(page, "tasks done"), cell(page, "left out"), cell(page, "runs")) == ("2", "1", "1")
    reported(tmp_path, "done", "done", "filtered", "quarantined", "done", "done")
    page = (tmp_path / "report-count.html").read_text()
    assert "finished" in page and "the table" in page
    assert [cell(page, label) for label in ("tasks done", "left out", "given up", "runs")] == [
        "4",
        "1",
        "1",
        "2",
    ]
    assert page.count("because of") == 2 and "given up" in page and "<polyline" in page
    runs = read_runs(Ledger(tmp_path), ("CountStage",))
    assert [run.state for run in runs] == ["interrupted", "finished"] and sum(
        run.resolved for run in runs
    ) == 6
    assert cell(page, "tasks done") == str(sum(run.counts["done"] for run in runs[-1:]))


def test_an_error_is_reported_and_raised(tmp_path):
    with (
        pytest.raises(ValueError, match="broken"),
        RunReport("factory.count", Ledger(tmp_path), (), [], print),
    ):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []  # nothing was begun
    ledger = Ledger(tmp_path)
    with pytest.raises(ValueError), RunReport("factory.count", ledger, ("CountStage",), [], print):
        run(CountStage(), tasks("done"), ledger, workers=0)
        raise ValueError(f"broken {HOSTILE}")
    page = (tmp_path / "report-count.html").read_text()
    assert "stopped with an error: broken" in page


def test_a_run_without_new_work_leaves_the_report_alone(tmp_path):
    """Also one that fails before it begins: a mistake changes nothing in the output."""
    reported(tmp_path, "done")
    file = tmp_path / "report-count.html"
    before = file.stat().st_mtime_ns
    with pytest.raises(ValueError), RunReport("factory.count", Ledger(tmp_path), ("CountStage",), [], print):
        raise ValueError("a mistake")
    with RunReport("factory.count", Ledger(tmp_path), ("CountStage",), [], print) as report:
        report.result = "nothing new"
    assert file.stat().st_mtime_ns == before
    reported(tmp_path, "done", "done")
    assert file.stat().st_mtime_ns > before


def test_hostile_texts_are_texts(tmp_path):
    reported(tmp_path, "quarantined", "filtered")
    page = (tmp_path / "report-count.html").read_text()
    assert "<script" not in page and "<img" not in page and "\u202e" not in page and "\x1b" not in page
    assert page.count("</style>") == 1 and "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_file_of_somebody_else_stays(tmp_path):
    reported(tmp_path, "done")
    (tmp_path / "report-count.html").write_text("mine")
    notices: list[str] = []
    reported(tmp_path, "done", "done", notices=notices)
    assert (tmp_path / "report-count.html").read_text() == "mine"
    assert notices == [f"{tmp_path}/report-count.html is not a report of this program, so it stays as it is"]


def test_pictures_are_bounded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    figure = frame(noise, HOSTILE)
    count = 0

    def pictures():
        nonlocal count
        while True:
            count += 1
            yield figure

    reported(tmp_path, "done", pictures=pictures)
    page = (tmp_path / "report-count.html").read_text()
    assert 1 <= page.count("<img") == count - 1 and len(page) < 3_300_000


def test_damaged_progress_files_are_left_out(tmp_path):
    reported(tmp_path, "done")
    (tmp_path / "_factory/progress/0.json").write_text("{")
    assert len(read_runs(Ledger(tmp_path), ("CountStage",))) == 1


# --- the page -------------------------------------------------------------------------------------------


def test_parts_of_a_page():
    assert table(("a",), []) == "" and facts({"a": None, "b": ""}) == "" and gallery([]) == ""
    assert embedded(b"no picture") == ""
    page = Report("T", "lead")
    page.add("empty", "", "")
    page.add("full", table(("n", "<b>"), [(1234, 0.123456), ("<i>", True)], {1: "bad"}))
    html = page.html()
    assert MARK in html[:200] and "empty" not in html and "1,234" in html and "0.1235" in html
    assert '<tr class="bad"><td>&lt;i&gt;</td><td>True</td></tr>' in html and "&lt;b&gt;" in html
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    assert video(frames, 8.0, "<x>").startswith('<figure><video src="data:video/mp4;base64,')


def test_the_chart_has_its_points():
    svg = chart([(0, 0), (1, 10), (4, 20)], "about", "h", "tasks")
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', svg)[1].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=1e-3) and (y1 - y0) / (y2 - y0) == pytest.approx(
        0.5
    )
    assert y2 < y0  # upwards
    assert chart([(0, 0)], "", "", "") == "" and chart([(0, 0), (0, 1)], "", "", "") == ""
    many = chart([(n, n) for n in range(10_000)], "", "", "")
    assert many.count(",") < 300 and many.index("632.0,") > 0


def test_all_pages_have_the_same_colours():
    """The pages have style sheets of their own; colours of one name are the same in all."""
    sheets = {"zoo.export.html": ("look.css", "page.css"), "zoo.viewer.page": ("viewer.css",),
              "zoo.evaluation": ("leaderboard.css",)}  # fmt: skip
    colours: dict[tuple[str, int], set[str]] = {}
    for package, names in sheets.items():
        for name in names:
            blocks = re.findall(r":root \{([^}]*)\}", files(package).joinpath(name).read_text())
            assert len(blocks) == 2  # light, dark
            for scheme, block in enumerate(blocks):
                for colour, value in re.findall(r"(--\w+): (#\w+)", block):
                    colours.setdefault((colour, scheme), set()).add(value)
    assert len(colours) >= 14 and all(len(values) == 1 for values in colours.values()), colours


def test_a_rendering_has_its_report(tmp_path):
    argv = "--source creatures://bird --resolution 16 --num-frames 4 --fps 4 --views 2 --max-animations 1 --workers 0"
    more = ["--quiet", "--renderer", "cpu", "--out", str(tmp_path / "out")]
    assert factory.render.main([*argv.split(), *more]) == 0
    page = (tmp_path / "out/report-render.html").read_text()
    assert "rendered     1 clips of 1 assets" in page and "data:image/webp" in page
    assert cell(page, "tasks done") == "2" and "creatures://bird" in page
