"""What all commands share: flags made from dataclasses, one progress display, errors as sentences with an exit code.

A command describes its options as a frozen dataclass whose fields are made by `option`, adds them to a parser with
`add_options`, reads them back with `read_options`, and runs inside `run_command`. Nothing here knows any command.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import shutil
import sys
import time
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO, TypeVar

from cluster import Interrupted, StageError, StorageError
from zoo.console import close_broken_pipe, describe
from zoo.errors import OptionError, ZooError
from zoo.interrupts import INTERRUPTED, as_exceptions
from zoo.terminal import printable, printable_lines

# Exit codes, described in docs/cluster.md. Python's own for Ctrl-C and a closed pipe are 128 plus the signal.
OK, FAILED, USAGE, NOTHING = 0, 1, 2, 3
BROKEN_PIPE = 141
REDRAW_EVERY_S = 1.0  # on a terminal
PRINT_EVERY_S = 10.0  # elsewhere

# Their messages are written for users; a command adds its own in `run_command`.
_WITHOUT_DEFAULT = (dataclasses.MISSING, None, (), "")  # nothing to show in `--help`
_SENTENCES: tuple[type[Exception], ...] = (
    StageError,
    StorageError,
    ZooError,
    OSError,
    ImportError,
    MemoryError,
)

Options = TypeVar("Options")


# --- options -------------------------------------------------------------------------------------------


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    flags: Sequence[str] = (),
    choices: Sequence[Any] | None = None,
    metavar: str | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    more_than: float | None = None,
    parse: Callable[[str], Any] | None = None,
    joined: bool = False,
    empty: bool = False,
    show_default: bool = True,
) -> Any:
    """A field of an options dataclass, and how the command line spells it.

    Args:
        default: its value when the flag is absent; without one, the flag is required.
        help: one line for `--help`; the default is appended to it.
        flags: spellings beside the one made from the field's name (`track_points` is `--track-points`).
        choices: the values accepted.
        at_least, at_most, more_than: bounds of a number, checked when the command line is read.
        parse: text → value, instead of the conversion that the annotation implies.
        joined: a tuple given as one text, which `parse` splits; otherwise as several arguments.
        empty: a tuple may be given without any argument.
        show_default: append the default to the help.
    """
    settings = {
        "help": help,
        "flags": tuple(flags),
        "choices": choices,
        "metavar": metavar,
        "at_least": at_least,
        "at_most": at_most,
        "more_than": more_than,
        "parse": parse,
        "joined": joined,
        "empty": empty,
        "show_default": show_default,
    }
    return field(default=default, metadata={"option": settings})


@dataclass(frozen=True)
class OutputOptions:
    """How a command reports; every command has these options."""

    quiet: bool = option(False, "show no progress, only the result")
    json: bool = option(
        False, "print progress as one JSON object per line on stderr, the result as one on stdout"
    )


def add_options(
    parser: argparse._ActionsContainer,
    options: type,
    *,
    help: Mapping[str, str] | None = None,
    preset: bool = False,
) -> None:
    """Add one flag per field of a dataclass.

    Args:
        help: field → help, for a dataclass that does not belong to a command (a recipe).
        preset: say in the help that a preset may have another default.
    """
    hints = typing.get_type_hints(options)
    for each in dataclasses.fields(options):
        settings = dict(each.metadata.get("option", {}))
        text = (help or {}).get(each.name) or settings.get("help", "")
        names = [f"--{each.name.replace('_', '-')}", *settings.get("flags", ())]
        # An absent flag is None, and `read_options` puts the dataclass's default or the preset's value in its place.
        required = each.default is dataclasses.MISSING
        arguments: dict[str, Any] = {"dest": each.name, "required": required, "default": None}
        kind, many = _kind_of(hints[each.name])
        if kind is bool:
            arguments["action"] = "store_true"
        else:
            arguments["type"] = settings.get("parse") or _bounded(kind, settings)
            arguments["metavar"] = settings.get("metavar") or (
                None if settings.get("choices") else {int: "N", float: "X"}.get(kind, each.name.upper())
            )
            if settings.get("choices"):
                arguments["choices"] = settings["choices"]
            if many and not settings.get("joined"):
                arguments["nargs"] = "*" if settings.get("empty") else "+"
                arguments["action"] = "extend"
        if kind is not bool and settings.get("show_default", True) and each.default not in _WITHOUT_DEFAULT:
            shown = " ".join(map(str, each.default)) if isinstance(each.default, tuple) else each.default
            text += f" (default: {shown}{' unless the preset differs' if preset else ''})"
        parser.add_argument(*names, help=text.replace("%", "%%"), **arguments)


def read_options(args: argparse.Namespace, options: type[Options], base: Options | None = None) -> Options:
    """The parsed command line as an options dataclass.

    Args:
        base: whose values stand where a flag is absent, instead of the dataclass's defaults.
    Raises:
        OptionError: from the dataclass's own checks.
    """
    names = [each.name for each in dataclasses.fields(typing.cast(Any, options))]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return options(**given) if base is None else dataclasses.replace(typing.cast(Any, base), **given)
    except (TypeError, ValueError) as error:
        raise OptionError(str(error)) from None


def rename_flags(argv: Sequence[str] | None, renamed: Mapping[str, str]) -> list[str]:
    """Replace spellings of the version before by today's, each with a notice on stderr.

    Args:
        argv: None for the process's own. renamed: old flag → new flag.
    """
    result = []
    for argument in sys.argv[1:] if argv is None else argv:
        name, separator, value = str(argument).partition("=")
        if name in renamed:
            notice(
                f"{name} is called {renamed[name]} now; the old spelling will stop working in the next version"
            )
            argument = renamed[name] + separator + value
        result.append(str(argument))
    return result


def notice(text: str) -> None:
    """One line on stderr."""
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)


def _kind_of(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether the flag takes several: `tuple[str, ...]` is (str, True)."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def _bounded(kind: type, settings: Mapping[str, Any]) -> Callable[[str], Any]:
    """Text → a number within its bounds; argparse names the flag in front of the error."""
    at_least, at_most, more_than = (settings.get(bound) for bound in ("at_least", "at_most", "more_than"))
    if kind is not float and (kind is not int or at_least is at_most is more_than is None):
        return kind

    def convert(text: str) -> Any:
        value = kind(text)
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
        if at_least is not None and not value >= at_least:
            raise argparse.ArgumentTypeError(f"expected at least {at_least:g}, got {value:g}")
        if at_most is not None and not value <= at_most:
            raise argparse.ArgumentTypeError(f"expected at most {at_most:g}, got {value:g}")
        if more_than is not None and not value > more_than:
            raise argparse.ArgumentTypeError(f"expected more than {more_than:g}, got {value:g}")
        return value

    convert.__name__ = kind.__name__  # in argparse's message about text that is no number
    return convert


# --- progress ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """A moment of a long command.

    Attributes:
        unit: what is counted, in the plural ("clips"). done, total: how many; total None where it is not known yet.
        growing: whether `total` may still grow.
        facts: further counts, name → value, in the order shown.
        details: name → its state in words, one line each (trainings under way).
        seconds: since the start.
    """

    unit: str
    done: int
    total: int | None
    seconds: float
    growing: bool = False
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"event": "progress", **dataclasses.asdict(self)}

    def line(self) -> str:
        """ "[  12 s] clips 3/8+, assets 2, 2 workers, 14.2 clips/min"."""
        of = "" if self.total is None else f"/{self.total}{'+' if self.growing else ''}"
        facts = [f"{name} {value}" for name, value in self.facts.items()]
        return printable(f"[{self.seconds:5.0f} s] " + ", ".join([f"{self.unit} {self.done}{of}", *facts]))


Show = Callable[[Callable[[], Status]], None]  # `ProgressDisplay.update`, as the rooms receive it
Mode = Literal["bar", "lines", "json", "quiet"]


class ProgressDisplay:
    """A bar with details below it on a terminal, a line every 10 s elsewhere, JSON lines, or nothing.

    Use it as a context manager: on leaving, the bar is removed so that the result takes its place.
    """

    def __init__(self, output: OutputOptions | None = None, stream: TextIO | None = None) -> None:
        output = output or OutputOptions()
        self._stream = stream or sys.stderr
        terminal = self._stream.isatty()
        self.mode: Mode = (
            "json" if output.json else "quiet" if output.quiet else "bar" if terminal else "lines"
        )
        self._drawn = 0  # lines on the terminal
        self._next = 0.0

    def __enter__(self) -> ProgressDisplay:
        self._notices = _NoticeHandler(self)
        cluster_log = logging.getLogger("cluster")
        cluster_log.addHandler(self._notices)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("cluster").removeHandler(self._notices)
        self._clear()

    def notice(self, text: str) -> None:
        """Show one line above the progress, such as what a run is waiting for."""
        if self.mode == "quiet":
            return
        self._clear()
        print(
            json.dumps({"event": "notice", "message": text}) if self.mode == "json" else f"note: {text}",
            file=self._stream,
            flush=True,
        )

    def update(self, status: Callable[[], Status]) -> None:
        """Show a status if one is due; `status` is called only then, since making one may read files."""
        now = time.monotonic()
        if self.mode == "quiet" or now < self._next:
            return
        self._next = now + (REDRAW_EVERY_S if self.mode == "bar" else PRINT_EVERY_S)
        self._show(status())

    def _show(self, status: Status) -> None:
        if self.mode == "json":
            text = json.dumps(status.to_json())
        elif self.mode == "lines":
            text = "\n".join([status.line(), *_columns(status.details)])
        else:
            self._clear()
            width = shutil.get_terminal_size().columns
            lines = [_bar(status, width), *(line[:width] for line in _columns(status.details))]
            self._drawn = len(lines)
            text = "\n".join(lines)
        print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}A\x1b[J", end="", file=self._stream, flush=True)
        self._drawn = 0


class _NoticeHandler(logging.Handler):
    """Shows the notices of `cluster` in a progress display."""

    def __init__(self, display: ProgressDisplay) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.notice(record.getMessage())


def _bar(status: Status, width: int) -> str:
    from tqdm import tqdm

    facts = printable(", ".join(f"{name} {value}" for name, value in status.facts.items()))
    return tqdm.format_meter(
        status.done,
        status.total or None,
        status.seconds,
        ncols=width,
        prefix=status.unit,
        unit=f" {status.unit}",
        postfix=facts,
    )


def _columns(details: Mapping[str, str]) -> list[str]:
    lines = [(printable(name), printable(state)) for name, state in sorted(details.items())]
    width = max((len(name) for name, _ in lines), default=0)
    return [f"  {name:{width}}  {state}" for name, state in lines]


# --- results and errors --------------------------------------------------------------------------------


def print_result(output: OutputOptions, text: str, data: Mapping[str, Any]) -> None:
    """The result of a command on stdout: a table for people, or one JSON object."""
    shown = json.dumps({"event": "result", **data}, default=str) if output.json else printable_lines(text)
    print(shown, flush=True)


def run_command(
    name: str,
    action: Callable[[], int],
    *,
    errors: tuple[type[Exception], ...] = (),
    json_errors: bool = False,
) -> int:
    """Run a command: the exit code of `action`, or of the error that it raised, as one sentence on stderr.

    Args:
        name: in front of the sentence, as in "factory.render".
        errors: exceptions whose message is meant for the user, beside those of cluster and zoo, and errors of the
            operating system, missing packages and too little memory. Any other one is a bug and keeps its traceback.
            An attribute `exit_code` of the exception replaces 1.
        json_errors: print the error as a JSON object.
    """
    try:
        with as_exceptions():
            return action()
    except KeyboardInterrupt as stop:  # cluster.Interrupted is one
        text = str(stop) if isinstance(stop, Interrupted) else "stopped; the same command resumes"
        code = INTERRUPTED
        prefix = "\n"
    except BrokenPipeError:  # the reader of stdout, such as `head`, has ended
        return close_broken_pipe()
    except (*_SENTENCES, *errors) as error:
        # Only a stage's error has lines of our own; another one's line break is part of a name.
        text = f"{name}: {error if isinstance(error, StageError) else describe(error)}"
        code, prefix = getattr(error, "exit_code", FAILED), ""
    shown = json.dumps({"event": "error", "message": text}) if json_errors else prefix + printable_lines(text)
    print(shown, file=sys.stderr)
    return code
