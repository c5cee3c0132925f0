"""Animate 3D models by sentences on the cluster, and list the results."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster import Ledger, Progress, Record, Report, Storage, Task, run
from factory.animations.models import open_models
from factory.animations.preview import SHEET, write_sheet
from factory.animations.recipe import AnimationJob, read_job
from factory.animations.stage import AnimateStage, model_tasks
from factory.assets.exclusions import Exclusions
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.clips.left_out import LeftOutList
from factory.clips.run import COPY
from factory.console import Show, Status

INDEX = "index.jsonl"


@dataclass
class AnimationRun:
    """What a run did.

    Attributes:
        models: number of 3D models that were opened.
        planned: number of animations, one per model and sentence.
        rows: of the index, for the animations of this run.
        resumed: number of animations that an earlier run made.
        filtered: reason → number of models left out.
        quarantined: label → cause, of models and animations given up.
        left_out: everything that was not animated, with reasons.
        report: of the cluster.
    """

    models: int = 0
    planned: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    resumed: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, str] = field(default_factory=dict)
    left_out: LeftOutList = field(default_factory=LeftOutList)
    report: Report = field(default_factory=Report)

    def add(self, task: Task, record: Record) -> None:
        """Count a resolved task."""
        job = read_job(task.payload)
        if isinstance(job, AnimationJob) and record.status == "done":
            self.rows.append(record.summary)
            self.resumed += record.resumed
        elif record.status == "done":
            self.models += 1
            self.planned += record.summary["animations"]
        else:
            if record.status == "filtered":
                self.left_out.add_record(job.asset, record.reason)
                self.filtered[record.reason] += 1
            else:
                sentence = {"sentence": job.sentence} if isinstance(job, AnimationJob) else {}
                self.left_out.add(record.status, job.asset, record.reason, **sentence)
                self.quarantined[f"{task.label} ({task.key[:8]})"] = record.reason

    def status(self, progress: Progress) -> Status:
        """The run at this moment, for the progress display."""
        return Status(
            unit="animations",
            done=len(self.rows),
            total=self.planned,
            growing=not progress.exhausted,
            seconds=progress.seconds,
            facts={
                "models": self.models,
                "quarantined": len(self.quarantined),
                "workers": progress.workers,
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "models": self.models,
            "planned": self.planned,
            "animations": len(self.rows),
            "resumed": self.resumed,
            "filtered": dict(self.filtered),
            "quarantined": self.quarantined,
        }


def animate_models(
    sources: Sequence[str],
    sentences: Sequence[str],
    out: str,
    stage: AnimateStage,
    *,
    selection: Selection = Selection(),  # noqa: B008 (frozen)
    denied: Mapping[str, str] | None = None,
    workers: int | None = None,
    limit: int | None = None,
    retry_quarantined: bool = False,
    show: Show | None = None,
) -> AnimationRun:
    """Animate every 3D model of the sources by every sentence into the folder at `out` (a path or an fsspec URL).

    Args:
        sources: URIs that `factory.sources.open_source` accepts; folders may have files of any format that
            `zoo.animate` accepts.
        sentences: what happens.
        out: path or fsspec URL of the output.
        stage: recipe and video model.
        selection: which records to take, and which licences to accept.
        denied: uid → benchmark that uses it as test data; such models are left out.
        workers: number of parallel workers; None = as many as fit on the cluster, 0 = this process, without Ray.
        limit: take only the first `limit` selected models.
        retry_quarantined: try tasks again that earlier runs gave up.
        show: receives the state of the run now and then.
    Raises:
        SourceError, DownloadError, StageError, StorageError: finished animations are kept; calling this again resumes.
        Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    ledger, result = Ledger(out), AnimationRun()
    if retry_quarantined:
        ledger.retry_quarantined()

    def leave_out(record: AssetRecord, reason: str) -> None:
        result.left_out.add_record(record, reason)
        result.filtered[reason] += 1

    def ignore(reason: str) -> None:
        """`leave_out` counts reasons."""

    exclusions = Exclusions(denied or {})
    listed = exclusions.apply(_records(sources), ignore, leave_out)
    taken = itertools.islice(selection.apply(listed, ignore, leave_out), limit)
    tasks = model_tasks(_distinct(taken, leave_out), tuple(sentences), stage, selection)
    result.report = run(
        stage,
        tasks,
        ledger,
        workers=workers,
        on_resolved=result.add,
        on_tick=show and (lambda progress: show(lambda: result.status(progress))),
    )
    return result


def _records(sources: Sequence[str]) -> Iterator[AssetRecord]:
    opened = [open_models(uri) for uri in sources]  # before the first is listed, so that a typo fails early
    return itertools.chain.from_iterable(source.list() for source in opened)


def _distinct(records: Iterable[AssetRecord], leave_out: Any) -> Iterator[AssetRecord]:
    """Yield each file once: the same one under two names would give the same animations."""
    known: set[str] = set()
    for record in records:
        if record.fingerprint in known:
            leave_out(record, COPY)
        else:
            known.add(record.fingerprint)
            yield record


def write_index(storage: Storage, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Add the animations of a run to the index and redraw the contact sheet.

    The index is a manifest that `factory.render --source` accepts. Rows of earlier runs stay, and its order does not
    depend on the order of the runs.

    Returns:
        Whether the index has any row.
    """
    before = storage.read(INDEX) or b""
    known = {row["key"]: row for row in map(json.loads, before.splitlines())}
    known |= {row["key"]: dict(row) for row in rows}
    if not known:
        return False
    ordered = sorted(known.values(), key=lambda row: (row["uid"], row["sentence"], row["key"]))
    data = b"".join(json.dumps(row, sort_keys=True).encode() + b"\n" for row in ordered)
    if data != before or storage.read(SHEET) is None:
        write_sheet(storage, ordered)
        storage.write(INDEX, data)  # last: with it, the sheet is complete
    return True
