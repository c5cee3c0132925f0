"""Animated models in, a 16-view MV-Video dataset out: `python -m factory.render --source … --out …`.

Running the same command again resumes: what is committed is not done twice, and clips come out byte for byte
the same however often it was interrupted and however many workers there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from cluster import Ledger, Record, Task, run
from factory.assets.exclusions import BENCHMARKS, Exclusions, read_deny_list
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.clips.jobs import ClipJob, read_job
from factory.clips.report import render_status
from factory.clips.stage import RenderStage, asset_tasks
from factory.clips.tally import RenderResult, Tally
from factory.console import Show
from factory.dataset.packing import ShardPacker
from factory.dataset.takedown import finish_takedowns
from factory.sources import open_source


def render(
    sources: Sequence[str],
    out: str,
    stage: RenderStage,
    *,
    selection: Selection = Selection(),  # noqa: B008 (frozen)
    denied: Mapping[str, str] | None = None,
    workers: int | None = None,
    limit: int | None = None,
    retry_quarantined: bool = False,
    show: Show | None = None,
) -> RenderResult:
    """Render every clip of the sources into the dataset at `out` (a path or an fsspec URL).

    Args:
        workers: side by side; None for as many as the cluster has room for.
        selection: which of the listed records are taken, and on what terms.
        denied: uid → benchmark that tests with it (factory/exclusions.py); None = those that are known.
        limit: take only the first so many of them.
        retry_quarantined: give what an earlier run gave up another chance.
        show: receives the state of the run now and then.
    Raises:
        SourceError, DownloadError, StageError, StorageError: nothing is lost; the same command resumes.
        Interrupted: by Ctrl-C or SIGTERM, likewise.
    """
    ledger = Ledger(out)
    if retry_quarantined:
        ledger.retry_quarantined()
    tally = Tally()
    tombstones = finish_takedowns(out)
    exclusions = Exclusions(read_deny_list(BENCHMARKS) if denied is None else denied, tuple(tombstones))
    stage = replace(stage, taken_down=frozenset(f for stone in tombstones for f in stone.fingerprints))
    positions: dict[str, int] = {}  # asset task → its place in the plan; clips are packed in that order

    with ExitStack() as stack:
        packer = stack.enter_context(ShardPacker(out))

        def tasks() -> Iterator[Task]:
            listed = tally.count_listed(_records(sources))
            allowed = exclusions.apply(listed, tally.leave_out)
            taken = itertools.islice(selection.apply(allowed, tally.leave_out), limit)
            for task in asset_tasks(taken, stage, selection):
                if task.key in positions:  # a file under two names is one asset
                    tally.leave_out("a copy of another asset")
                else:
                    positions[task.key] = len(positions)
                    yield task

        def on_resolved(task: Task, record: Record) -> None:
            tally.add(task, record)
            if isinstance(read_job(task.payload), ClipJob):
                packer.finished(task.key, record.status == "done")
            else:
                packer.planned(positions[task.key], [clip.key for clip in record.follow_up])

        report = run(
            stage,
            tasks(),
            ledger,
            workers=workers,
            on_resolved=on_resolved,
            on_tick=show and (lambda progress: show(lambda: render_status(progress, tally))),
        )
        shards = packer.close()
    return RenderResult(report, tally, shards)


def _records(sources: Sequence[str]) -> Iterator[AssetRecord]:
    opened = [open_source(uri) for uri in sources]  # all of them first: a typo is told before any work
    return itertools.chain.from_iterable(source.list() for source in opened)
