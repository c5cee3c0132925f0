"""`python -m zoo evaluate` and `python -m zoo leaderboard`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import OptionError
from zoo.evaluation.protocol import open_protocol, protocols
from zoo.terminal import printable


def evaluate_command(
    name: str,
    *,
    protocol: str | None,
    truth: Path | None,
    baselines: Sequence[str],
    own_truth: bool,
    attach: bool,
    out: Path | None,
    home: Path | None,
) -> None:
    """Measure a model, print the table, and write metrics.json and sheet.png."""
    if protocol is None:
        raise OptionError(f"--protocol: expected one of {', '.join(protocols())}, or a .json file")
    open_protocol(protocol)  # before the modules that take seconds to import
    _check_out(out)

    from zoo.evaluation.api import evaluate_with_pictures
    from zoo.evaluation.sheet import write_sheet
    from zoo.evaluation.store import RESULT, SHEET, folder_of
    from zoo.evaluation.store import attach as attach_results
    from zoo.evaluation.table import text_table
    from zoo.evaluation.tasks import FITTER

    if attach and name == FITTER:
        raise OptionError(f"--attach: {FITTER} is not a model whose metrics.json could hold the result")
    result, measurement = evaluate_with_pictures(
        name,
        protocol,
        truth=truth,
        baseline=list(baselines),
        own_truth=own_truth,
        home=home,
        progress=show_progress if sys.stderr.isatty() else None,
    )
    folder = folder_of(result, home) if out is None else out
    write_sheet(folder / SHEET, result, measurement)
    path = result.save(folder / RESULT)
    print(text_table(result))
    print(f"\n{printable(path)}\n{printable(folder / SHEET)}")
    if attach:
        print(attach_results(name, [result], home=home))


def attach_stored_command(name: str, *, home: Path | None) -> None:
    """Put the results that a registry has of a model into its metrics.json."""
    from zoo.evaluation.store import attach, collect

    collection = collect(name, home=home)
    for sentence in collection.refused:
        print(f"zoo: refused: {printable(sentence)}", file=sys.stderr)
    results = [entry.result for entry in collection.entries if not any(entry.marks)]
    if not results:
        raise OptionError(f"{name}: the registry has no unmarked results of its weights; evaluate it first")
    print(attach(name, results, home=home))


def _check_out(out: Path | None) -> None:
    if out is not None and out.exists():
        if not out.is_dir():
            raise OptionError(f"--out {out}: is a file, expected a folder for metrics.json and sheet.png")
        foreign = sorted({each.name for each in out.iterdir()} - {"metrics.json", "sheet.png"})
        if foreign:
            raise OptionError(f"--out {out}: has other files ({', '.join(foreign[:3])}); choose a new folder")


def show_progress(done: int, total: int, clip: str) -> None:
    """One line on standard error that is overwritten."""
    end = "\n" if done == total else ""
    print(f"\r\x1b[Kzoo: {done} of {total} {printable(clip)[:60]}", end=end, file=sys.stderr, flush=True)


def leaderboard_command(pattern: str, *, out: Path, home: Path | None) -> None:
    """Write one page and one Markdown file with the results of all models."""
    if out.exists() and not out.is_dir():
        raise OptionError(
            f"--out {out}: is a file, expected a folder for leaderboard.html and leaderboard.md"
        )

    from zoo.evaluation.leaderboard import counted, write_leaderboard

    if pattern.startswith("hub:") and "/" not in pattern:
        pattern = f"{pattern}/*"
    paths, collection = write_leaderboard(out, pattern, home=home)
    for sentence in collection.refused:
        print(f"zoo: refused: {printable(sentence)}", file=sys.stderr)
    results, groups = len(collection.entries), len({e.result.protocol["sha256"] for e in collection.entries})
    print(
        f"{counted(len(collection.models), 'model')}, {counted(results, 'result')} under {counted(groups, 'protocol')}"
    )
    print("\n".join(printable(path) for path in paths))
