"""Render animated models into a 16-view MV-Video dataset: `python -m factory.render --source … --out …`.

The same command resumes: committed tasks are skipped. The clips are byte-identical for any number of workers and
interruptions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster import Ledger, Record, Task, run
from factory.assets.exclusions import BENCHMARKS, Exclusions, read_deny_list
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.clips.jobs import ClipJob, read_job
from factory.clips.left_out import LeftOutList
from factory.clips.report import render_status
from factory.clips.stage import RenderStage, asset_tasks
from factory.clips.tally import RenderResult, Tally
from factory.console import Show
from factory.dataset.output import check_same_shape
from factory.dataset.packing import ShardPacker
from factory.dataset.takedown import finish_takedowns
from factory.sources import open_source

COPY = "a copy of another asset"


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
        sources: URIs that `factory.sources.open_source` accepts.
        out: path or fsspec URL of the dataset.
        stage: recipe, settings and rules.
        selection: which records to take, and which licences to accept.
        denied: uid → benchmark that uses it as test data; None = the bundled deny list (`factory.assets.exclusions`).
        workers: number of parallel workers; None = as many as fit on the cluster.
        limit: take only the first `limit` selected records.
        retry_quarantined: try tasks again that earlier runs gave up.
        show: receives the state of the run now and then.
    Raises:
        MixedShapesError: the dataset has clips of another shape.
        SourceError, DownloadError, StageError, StorageError: finished clips are kept; calling this again resumes.
        Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    check_shape(out, stage)
    ledger = Ledger(out)
    if retry_quarantined:
        ledger.retry_quarantined()
    tally, left_out = Tally(), LeftOutList()
    tombstones = finish_takedowns(out)
    exclusions = Exclusions(read_deny_list(BENCHMARKS) if denied is None else denied, tuple(tombstones))
    stage = replace(stage, taken_down=frozenset(f for stone in tombstones for f in stone.fingerprints))
    taken = itertools.islice(
        selection.apply(
            exclusions.apply(tally.count_listed(_records(sources)), tally.leave_out, left_out.add_record),
            tally.leave_out,
            left_out.add_record,
        ),
        limit,
    )
    with ShardPacker(out) as packer:
        order = _ClipOrder(packer, tally, left_out)
        report = run(
            stage,
            order.number(asset_tasks(taken, stage, selection)),
            ledger,
            workers=workers,
            on_resolved=order.on_resolved,
            on_tick=show and (lambda progress: show(lambda: render_status(progress, tally))),
        )
        shards = packer.close()
    return RenderResult(report, tally, shards, left_out)


def check_shape(out: str, stage: RenderStage) -> None:
    """Refuse to add clips to a dataset with clips of another shape, which no training could load together.

    Raises:
        MixedShapesError: the message names both shapes.
    """
    recipe, settings = stage.recipe, stage.settings
    has = {
        "depth": settings.depth,
        "normals": settings.normals,
        "flow": settings.flow,
        "tracks": settings.tracks,
    }
    modalities = [name for name, wanted in has.items() if wanted]
    check_same_shape(out, recipe.views, recipe.num_frames, recipe.resolution, modalities)


class _ClipOrder:
    """Packs clips in the order in which their assets were listed, whatever order they are rendered in."""

    def __init__(self, packer: ShardPacker, tally: Tally, left_out: LeftOutList) -> None:
        self._packer, self._tally, self._left_out = packer, tally, left_out
        self._positions: dict[str, int] = {}  # key of an asset's task → its position

    def number(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield each asset's task once and remember its position."""
        for task in tasks:
            if task.key in self._positions:  # the same file under two names is one asset
                self._tally.leave_out(COPY)
                self._left_out.add_record(read_job(task.payload).asset, COPY)
            else:
                self._positions[task.key] = len(self._positions)
                yield task

    def on_resolved(self, task: Task, record: Record) -> None:
        """Count a resolved task and hand its clips to the packer."""
        self._tally.add(task, record)
        self._left_out.add_task(task, record)
        if isinstance(read_job(task.payload), ClipJob):
            self._packer.finished(task.key, record.status == "done")
        else:
            self._packer.planned(self._positions[task.key], [clip.key for clip in record.follow_up])


def _records(sources: Sequence[str]) -> Iterator[AssetRecord]:
    # Open all sources before the first is listed, so that a typo fails early.
    opened = [open_source(uri) for uri in sources]
    return itertools.chain.from_iterable(source.list() for source in opened)
