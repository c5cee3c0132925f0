"""The console that all factory commands share: options, progress, results and errors."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

import factory.__main__
import factory.curate
import factory.publish
import factory.render
import zoo.__main__
from cluster import Interrupted, Report, StageError, StorageError
from factory.clips.plan import ClipRecipe
from factory.console import (
    OutputOptions,
    ProgressDisplay,
    Status,
    add_options,
    option,
    print_result,
    read_options,
    rename_flags,
    run_command,
)
from factory.motion_videos import options as motion_options
from factory.motion_videos.plan import MotionRecipe
from zoo.errors import ZooError


@dataclass(frozen=True)
class Example:
    out: str = option(help="where to")
    names: tuple[str, ...] = option(("a", "b"), "some names", flags=("--called",))
    count: int | None = option(None, "how many", at_least=1)
    share: float = option(0.5, "a fraction of 100%", more_than=0, at_most=1)
    loud: bool = option(False, "say more")
    kind: str = option("x", "which", choices=("x", "y"))


def parse(*argv: str) -> Example:
    parser = argparse.ArgumentParser()
    add_options(parser, Example)
    return read_options(parser.parse_args(argv), Example)


# --- options -------------------------------------------------------------------------------------------


def test_absent_flags_are_the_dataclasss_defaults():
    assert parse("--out", "o") == Example("o", ("a", "b"), None, 0.5, False, "x")


def test_flags_are_read_by_the_fields_types():
    argv = [
        "--out",
        "o",
        "--names",
        "c",
        "--called",
        "d",
        "e",
        "--count",
        "3",
        "--share",
        "1",
        "--loud",
        "--kind",
        "y",
    ]
    assert parse(*argv) == Example("o", ("c", "d", "e"), 3, 1.0, True, "y")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "the following arguments are required: --out"),
        (["--out", "o", "--count", "0"], "argument --count: expected at least 1, got 0"),
        (["--out", "o", "--count", "two"], "argument --count: invalid int value: 'two'"),
        (["--out", "o", "--share", "0"], "argument --share: expected more than 0, got 0"),
        (["--out", "o", "--share", "1.5"], "argument --share: expected at most 1, got 1.5"),
        (["--out", "o", "--share", "nan"], "argument --share: expected a finite number, got nan"),
        (["--out", "o", "--kind", "z"], "invalid choice: 'z'"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_the_help_has_each_default_and_survives_a_percent_sign(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "some names (default: a b)" in text and "a fraction of 100% (default: 0.5)" in text


def test_a_preset_stands_where_a_flag_is_absent():
    parser = argparse.ArgumentParser()
    add_options(parser, Example, preset=True)
    base = Example("preset", ("p",), 7, 0.1, True, "y")
    assert read_options(parser.parse_args(["--out", "o", "--count", "2"]), Example, base) == Example(
        "o", ("p",), 2, 0.1, True, "y"
    )


def test_old_spellings_work_with_a_notice(capsys):
    assert rename_flags(["--old", "1", "--old=2", "old"], {"--old": "--new"}) == [
        "--new",
        "1",
        "--new=2",
        "old",
    ]
    notices = capsys.readouterr().err.splitlines()
    assert len(notices) == 2 and "--old is called --new now" in notices[0]


def test_every_recipe_flag_has_a_help_text():
    for recipe, texts in (
        (ClipRecipe, factory.render.RECIPE_HELP),
        (MotionRecipe, motion_options.RECIPE_HELP),
    ):
        assert set(texts) == {each.name for each in fields(recipe)}


COMMANDS = [
    ["render"], ["motions"], ["train", "dimo"], ["train", "mvvdm"], ["curate", "report"], ["curate", "duplicates"],
    ["curate", "takedown"], ["curate", "caption"], ["publish"], ["status"], ["view"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_flag_of_every_command_has_a_help_text(command, monkeypatch, capsys):
    bare = []
    add = argparse._ActionsContainer.add_argument

    def watched(container, *names, **settings):
        if names[0].startswith("-") and not settings.get("help"):
            bare.append(names[0])
        return add(container, *names, **settings)

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", watched)
    with pytest.raises(SystemExit) as stop:
        factory.__main__.main([*command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and bare == []
    assert "--quiet" in text and "--json" in text


def test_every_command_and_the_zoos_are_listed_by_one_line_each(capsys):
    assert factory.__main__.main([]) == 0
    listing = capsys.readouterr().out
    assert all(
        f"  {name} " in listing
        for name in ("render", "motions", "train", "curate", "publish", "status", "view")
    )
    assert zoo.__main__.main([]) == 0 and "sample" in capsys.readouterr().out
    assert factory.__main__.main(["dance"]) == 2
    assert "'dance' is not a command; expected one of render, motions" in capsys.readouterr().err


def test_the_console_script_runs_factory_and_zoo():
    script = Path(sys.executable).with_name("menagerie")
    listing = subprocess.run([script], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "  render " in listing and "  zoo " in listing
    models = subprocess.run([script, "zoo", "list"], capture_output=True, text=True, timeout=60, check=True)
    assert "dimo/kangaroo" in models.stdout


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (factory.curate.main, ["report", "--out", "nowhere"]),
        (factory.publish.main, ["nowhere", "--to", "local:target"]),
    ],
)
def test_the_spellings_of_the_version_before_reach_the_command(main, argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("note: ") and "nowhere" in errors and "Traceback" not in errors


# --- progress ------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STATUS = Status("clips", 3, 8, 12.0, growing=True, facts={"assets": 2}, details={"fox": "starting"})


def test_elsewhere_than_on_a_terminal_progress_is_a_line_now_and_then():
    stream = io.StringIO()
    with ProgressDisplay(stream=stream) as display:
        display.update(lambda: STATUS)
        display.update(lambda: pytest.fail("not due for another ten seconds"))
    assert stream.getvalue() == "[   12 s] clips 3/8+, assets 2\n  fox  starting\n"


def test_on_a_terminal_the_bar_is_redrawn_and_removed(monkeypatch):
    monkeypatch.setattr("factory.console.REDRAW_EVERY_S", 0.0)
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    with ProgressDisplay(stream=stream) as display:
        display.update(lambda: STATUS)
        display.update(lambda: STATUS)
    drawn, redrawn, rest = stream.getvalue().split("\x1b[2A\x1b[J")
    assert drawn == redrawn and "3/8" in drawn and "fox  starting" in drawn and rest == ""
    assert all(len(line) <= 60 for line in drawn.splitlines())


def test_quiet_and_json_progress():
    stream = Terminal()
    with ProgressDisplay(OutputOptions(quiet=True), stream) as display:
        display.update(lambda: pytest.fail("quiet"))
    assert stream.getvalue() == ""
    with ProgressDisplay(OutputOptions(json=True), stream) as display:
        display.update(lambda: STATUS)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line) == {
        "event": "progress", "unit": "clips", "done": 3, "total": 8, "seconds": 12.0, "growing": True,
        "facts": {"assets": 2}, "details": {"fox": "starting"},
    }  # fmt: skip


# --- results and errors --------------------------------------------------------------------------------


def test_a_result_is_a_table_or_one_json_object(capsys):
    print_result(OutputOptions(), "the table", {"clips": 3})
    print_result(OutputOptions(json=True), "the table", {"clips": 3, "folder": Path("x")})
    table, line = capsys.readouterr().out.splitlines()
    assert table == "the table" and json.loads(line) == {"event": "result", "clips": 3, "folder": "x"}


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (StageError("no renderer"), 1, "command: no renderer"),
        (StorageError("disk full"), 1, "command: disk full"),
        (ZooError("no model"), 1, "command: no model"),
        (FileNotFoundError("no such dataset"), 1, "command: no such dataset"),
        (KeyboardInterrupt(), 130, "the same command resumes"),
        (Interrupted(Report()), 130, "stopped after 0 tasks"),
    ],
)
def test_errors_become_a_sentence_and_an_exit_code(error, code, text, capsys):
    def action() -> int:
        raise error

    assert run_command("command", action, errors=(FileNotFoundError,)) == code
    assert text in capsys.readouterr().err
    assert run_command("command", action, errors=(FileNotFoundError,), json_errors=True) == code
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "error" and text in event["message"]


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command("command", lambda: 1 // 0)


def test_a_whole_command_speaks_json(tmp_path, capsys):
    assert factory.render.main(["--out", str(tmp_path / "out"), "--source", "nowhere", "--json"]) == 1
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "error" and "nowhere" in event["message"]


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (
            "gs://bucket/data",
            "gs://bucket/data: its driver is missing here (Please install gcsfs to access Google",
        ),
        ("nosuch://x", "nosuch://x: expected a path or a URL that fsspec opens, Protocol not known: nosuch"),
    ],
)
@pytest.mark.parametrize("command", ["render", "motions"])
def test_an_output_that_cannot_be_opened_is_an_error_in_a_sentence(command, out, words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # whatever is installed here
    arguments = {"render": ["--source", "creatures://bird"], "motions": ["--objects", "creatures://bird"]}[
        command
    ]
    assert factory.__main__.main([command, "--out", out, *arguments]) == 1
    assert words in capsys.readouterr().err
