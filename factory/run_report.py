"""The HTML report of a long command, beside its output: results, failures by reason, throughput, pictures.

It is written when the command ends, also by Ctrl-C or an error. Counts and times are read from the ledger and the
progress files of all runs, so a resumed command reports what all of its runs did. A report requests nothing.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from cluster import Ledger, Storage, StorageError
from cluster.progress import RunProgress
from zoo.console import describe
from zoo.export.html.report import MARK, Report, chart, facts, gallery, lines, sentence, table

if TYPE_CHECKING:
    from typing import Self

MOST_LISTED = 30
LARGEST_PICTURES = 3_000_000  # bytes of HTML; further pictures are left out
Notice = Callable[[str], None]


@dataclass
class RunReport:
    """Writes the report of a command when its block ends.

        with RunReport("factory.render", ledger, ("RenderStage",), argv, notice) as report:
            …
            report.result = "the closing table"

    Attributes:
        command: name of the command.
        ledger: of the output; the report is in its root.
        stages: class names of the stages whose runs it shows.
        argv: the command line, without the command.
        notice: receives a sentence if the report cannot be written.
        result: the closing table, for people.
        reasons: kind of failure → reason → number, beside those in the ledger.
        pictures: makes figures, called when the command has not failed.
        state: reads further facts from the output, for work that has no progress files; empty if none was begun.
    """

    command: str
    ledger: Ledger
    stages: Sequence[str]
    argv: Sequence[str]
    notice: Notice
    result: str = ""
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pictures: Callable[[], Iterable[str]] | None = None
    state: Callable[[], Mapping[str, object]] = dict

    @property
    def name(self) -> str:
        """File name in the output folder."""
        return f"report-{self.command.removeprefix('factory.').replace(' ', '-')}.html"

    def __enter__(self) -> Self:
        self._before = self._work()
        return self

    def _work(self) -> tuple[list[RunProgress], dict[str, object]]:
        """The work in the output so far; a run that finds nothing left to do does not change it."""
        return read_runs(self.ledger, self.stages), dict(self.state())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            runs, state = self._work()
            if (runs, state) != self._before:  # otherwise nothing was begun
                write_page(self.ledger.storage, self.name, self.page(runs, error), self.notice)
        except (StorageError, OSError, ValueError) as fault:
            self.notice(f"the report could not be written: {describe(fault)}")

    def page(self, runs: Sequence[RunProgress], error: BaseException | None) -> str:
        """The report as HTML."""
        report = Report(self.command, f"{self.ledger.root}: {_ending(error)}")
        report.add("Result", lines(self.result.splitlines()) if self.result else "")
        counts = self.ledger.count()
        seconds = sum(run.updated - run.started for run in runs)
        report.add(
            "All runs",
            facts(
                {
                    "command": f"{self.command} {shlex.join(map(str, self.argv))}",
                    "tasks done": f"{counts['done']:,}",
                    "left out": f"{counts['filtered']:,}",
                    "given up": f"{counts['quarantined']:,}",
                    "runs": len(runs) or "",
                    "time": duration(seconds) if runs else "",
                    **self.state(),
                }
            ),
        )
        report.add("Failures by reason", table(("number", "what", "reason"), _reasons(self, runs)))
        report.add("Throughput", *_throughput(runs))
        report.add("Runs", table(_RUN_COLUMNS, map(_run_row, runs)))
        report.add("Slowest tasks", table(("seconds", "task", "worker"), _slowest(runs)))
        if self.pictures is not None and error is None:
            report.add("Pictures", gallery(_within(self.pictures())))
        return report.html()


def write_page(storage: Storage, name: str, html: str, notice: Notice) -> None:
    """Write a report into an output. A file of that name that is no report, and faults, are only noticed.

    Args:
        storage: of the output. name: of the file. html: `Report.html`. notice: receives the sentence.
    """
    try:
        present = storage.read(name)
        if present is not None and MARK.encode() not in present[:1024]:
            notice(f"{storage.path(name)} is not a report of this program, so it stays as it is")
        else:
            storage.write(name, html.encode())
    except (StorageError, OSError) as fault:
        notice(f"the report could not be written: {describe(fault)}")


def read_runs(ledger: Ledger, stages: Sequence[str]) -> list[RunProgress]:
    """The runs of some stages, from the progress files in the output, oldest first. Damaged files are left out."""
    folder = f"{ledger.namespace}/progress"
    names = [f"{folder}/{name}" for name in ledger.storage.names(folder)]
    runs = []
    for data in ledger.storage.read_many(names).values():
        try:
            run = RunProgress.from_json(json.loads(data))
        except (ValueError, TypeError, KeyError):
            continue
        if run.stage in stages:
            runs.append(run)
    return sorted(runs, key=lambda run: run.started)


def _ending(error: BaseException | None) -> str:
    if error is None:
        return "finished"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command resumes"
    return (
        f"stopped with an error: {describe(error) if isinstance(error, Exception) else type(error).__name__}"
    )


def _reasons(report: RunReport, runs: Sequence[RunProgress]) -> list[tuple[int, str, str]]:
    """(number, what, reason), the most frequent first."""
    rows = [(number, "given up", cause) for cause, number in report.ledger.causes().items()]
    given = [(n, kind, reason) for kind, each in report.reasons.items() for reason, n in each.items()]
    if given:
        rows += given
    elif runs:
        rows += [
            (number, "left out", cause) for cause, number in runs[-1].reasons.get("filtered", {}).items()
        ]
    retries: dict[str, int] = {}
    for run in runs:
        for cause, number in run.retries.items():
            retries[cause] = retries.get(cause, 0) + number
    rows += [(number, "tried again", cause) for cause, number in retries.items()]
    return sorted(rows, key=lambda row: (-row[0], row[1:]))[:MOST_LISTED]


_RUN_COLUMNS = ("started", "state", "time", "tasks resolved", "from earlier runs", "workers lost")


def _run_row(run: RunProgress) -> tuple[object, ...]:
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.started))
    return (
        started, run.state, duration(run.updated - run.started), run.resolved, run.resumed, run.workers_lost,
    )  # fmt: skip


def _throughput(runs: Sequence[RunProgress]) -> tuple[str, ...]:
    """Tasks over the time of all runs, without the pauses between them."""
    points, clock, total = [(0.0, 0.0)], 0.0, 0
    for run in runs:
        for at, count in [*run.samples, (run.updated, run.resolved)]:
            points.append((max(points[-1][0], clock + at - run.started), float(total + count)))
        clock += run.updated - run.started
        total += run.resolved
    if not total or clock <= 0:
        return ()
    unit, scale = next((u, s) for u, s in (("h", 3600), ("min", 60), ("s", 1)) if clock >= 2 * s or u == "s")
    return (
        chart([(x / scale, y) for x, y in points], "Tasks resolved over time", unit, "tasks resolved"),
        sentence(
            f"{total:,} tasks in {duration(clock)} of all runs, {60 * total / clock:.3g} tasks/min", "quiet"
        ),
    )


def _slowest(runs: Sequence[RunProgress]) -> list[tuple[object, ...]]:
    tasks = sorted((task for run in runs for task in run.slowest), key=lambda task: -task.seconds)
    return [(round(task.seconds, 1), task.label, task.worker) for task in tasks[:10]]


def _within(pictures: Iterable[str]) -> Iterable[str]:
    """Figures until they are too large together."""
    size = 0
    for figure in pictures:
        size += len(figure)
        if size > LARGEST_PICTURES:
            return
        yield figure


def duration(seconds: float) -> str:
    """Seconds as text, in the unit that a person would choose."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
