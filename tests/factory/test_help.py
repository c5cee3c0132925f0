"""`--help` explains every option of every command."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import MAINS

import factory.sources.creatures.__main__

EVERY_MAIN = {**MAINS, "creatures": factory.sources.creatures.__main__.main}
OLD_SPELLINGS = {"positional"}  # arguments of version 0.1 that work with a notice


class _Parsed(Exception):
    """Carries the parser of a command."""


def parser_of(main, monkeypatch) -> argparse.ArgumentParser:
    def parse_args(parser: argparse.ArgumentParser, *arguments: object) -> None:
        raise _Parsed(parser)

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(_Parsed) as parsed:
            main([])
    return parsed.value.args[0]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def unexplained(parser: argparse.ArgumentParser) -> list[str]:
    """Options without help."""
    return [
        f"{each.prog}: {' '.join(action.option_strings) or action.dest}"
        for each in parsers(parser)
        for action in each._actions
        if not isinstance(action, argparse._SubParsersAction)
        and (not (action.help or "").strip() or action.help == argparse.SUPPRESS)
        and action.dest not in OLD_SPELLINGS
    ]


@pytest.mark.parametrize("name", EVERY_MAIN)
def test_every_option_has_help(name, monkeypatch, capsys):
    parser = parser_of(EVERY_MAIN[name], monkeypatch)
    assert unexplained(parser) == []
    for each in parsers(parser):
        text = each.format_help()  # a stray % in a help text would fail here
        assert all(
            option in text
            for action in each._actions
            if action.help != argparse.SUPPRESS
            for option in action.option_strings
        )


def test_every_command_is_among_them():
    from factory.__main__ import COMMANDS

    assert set(COMMANDS) <= set(EVERY_MAIN)


def test_an_option_without_help_is_seen():
    parser = argparse.ArgumentParser(prog="example")
    command = parser.add_subparsers().add_parser("sub")
    command.add_argument("--bare")
    command.add_argument("--blank", help=" ")
    command.add_argument("--hidden", help=argparse.SUPPRESS)
    command.add_argument("--told", help="what it does")
    assert [line.split(": ")[1] for line in unexplained(parser)] == ["--bare", "--blank", "--hidden"]


def test_no_help_imports_what_takes_seconds():
    """All commands in one new interpreter: their help is there before torch, Ray and the model libraries would be."""
    code = (
        "import contextlib, io, sys\n"
        "from commands import MAINS\n"
        "calls = [*((name, main, ['--help']) for name, main in MAINS.items())]\n"
        "calls += [(f'train {family}', MAINS['train'], [family, '--help']) for family in ('dimo', 'mvvdm')]\n"
        "for name, main, arguments in calls:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):\n"
        "        main(arguments)\n"
        "    assert 'usage' in shown.getvalue(), name\n"
        "    slow = {'torch', 'ray', 'transformers', 'diffusers', 'datasets', 'numba', 'cv2'} & set(sys.modules)\n"
        "    assert not slow, (name, slow)\n"
    )
    support = Path(__file__).parents[1] / "support"
    environment = {**os.environ, "PYTHONPATH": str(support)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=support.parent
    )
    assert result.returncode == 0, result.stderr
