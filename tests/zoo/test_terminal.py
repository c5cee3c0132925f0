"""Text of other people on a terminal."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

import zoo
from zoo.__main__ import main
from zoo.console import describe
from zoo.terminal import printable, printable_lines

HOSTILE = {
    "clear the screen": "\x1b[2J",
    "set the title": "\x1b]0;owned\x07",
    "one-byte CSI": "\x9b31m",
    "line break": "a\nrendered     99 clips",
    "return": "a\rrendered",
    "line separator": "a\u2028b\u2029c\x85d",
    "backspace": "safe\x08\x08evil",
    "null": "\x00",
    "delete": "\x7f",
    "right-to-left override": "gl\u202ebpj.exe",
    "isolate": "\u2066a\u2069",
    "zero width": "a\u200bb\ufeff",
    "tag characters": "\U000e0041",
    "a byte that is no UTF-8": os.fsdecode(b"caf\xe9"),
    "vertical tab and form feed": "a\x0b\x0cb",
}
HARMLESS = ("Füchsin", "龍", "قط", "👩‍🚀", "a\u00a0b", "C:\\models\\fox.glb", "100 %", "e\u0301")


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_obeyed(name):
    shown = printable(HOSTILE[name])
    assert shown.isprintable() and shown.encode() and shown != HOSTILE[name]
    assert printable_lines(f"first\n{HOSTILE[name]}").split("\n")[0] == "first"


@pytest.mark.parametrize("text", HARMLESS)
def test_scripts_and_emoji_stay(text):
    assert printable(text) == text


def test_it_is_escaped_as_in_python():
    assert printable("a\x1b[2J\n\u202e\udce9") == "a\\x1b[2J\\n\\u202e\\udce9"
    assert printable_lines("a\nb\r\x1b") == "a\nb\\r\\x1b"


def test_errors_of_the_zoo():
    error = FileNotFoundError(2, "No such file or directory", "a\x1b[2J\nb.glb")
    assert describe(error) == "a\\x1b[2J\\nb.glb: No such file or directory"
    assert describe(ValueError("a \x1b[2J b\n\u202e")) == "a \\x1b[2J b \\u202e"


def test_names_and_cards_of_models(capsys, tmp_path, monkeypatch):
    """A registry is a folder, and a card comes with a model."""
    hostile = "".join(HOSTILE.values())
    name = zoo.publish("bundled:dimo/kangaroo", "local:dimo/egg", home=tmp_path)
    folder = tmp_path / "models" / "dimo" / "x\x1b[2J\ny" / "refs"
    folder.mkdir(parents=True)
    (folder / "main").touch()
    assert main(["list", "--home", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "dimo/x\\x1b[2J\\ny\n" in shown and "\x1b" not in shown

    real = zoo.info(name, home=tmp_path)
    card = {"title": hostile, "summary": hostile, "license": hostile}
    fake = dataclasses.replace(real, card=card, metrics={"protocol": hostile, "mean": {hostile: 1.0}})
    monkeypatch.setattr("zoo.commands.info", lambda *arguments, **options: fake)
    for options in ([], ["--json"]):
        assert main(["info", "dimo/egg", *options]) == 0
        shown = capsys.readouterr().out
        assert shown.encode() and all(line.isprintable() for line in shown.split("\n")), options
    assert json.loads(shown)["card"] == card  # escaped, not changed
