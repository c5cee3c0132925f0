"""Counts of the assets and clips of a run, by result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cluster import Record, Report, Task
from factory.assets.record import AssetRecord
from factory.clips.jobs import ClipJob, read_job
from factory.clips.left_out import LeftOutList
from factory.dataset.shards import Shard

_STATIC = ("not animated", "zero length")  # reasons of assets that are not animated


@dataclass
class Tally:
    """Counts of assets and clips by result, which the driver collects from the records of their tasks.

    Attributes:
        planned, rendered: numbers of clips.
        resumed: number of rendered clips that an earlier run rendered.
        listed: number of records the sources listed. Each gives one of `assets`, or is in `filtered` or `dead`.
        assets: number of assets whose task is resolved.
        rejected: reason → number of animations or windows that give no clip.
        filtered: reason → number of records left out on purpose.
        dead: reason → number of records whose file no longer exists.
        quarantined: label → cause, of assets and clips given up.
        noted: number of assets that are not drawn exactly as their files specify.
        notes: how they differ → number of assets.
        clip_notes: how clips repeat or stand still → number of clips.
        static: number of assets that are not animated and give no clip.
        turntables: number of clips in which such assets turn.
        seconds: part of the work ("load", "plan", "render", "measure", "encode") → worker-seconds of this run.
        bytes: size of the clips of this run.
        renderers: devices that rendered them.
    """

    planned: int = 0
    rendered: int = 0
    resumed: int = 0
    listed: int = 0
    assets: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, str] = field(default_factory=dict)
    noted: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    clip_notes: Counter[str] = field(default_factory=Counter)
    static: int = 0
    turntables: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    renderers: set[str] = field(default_factory=set)

    def add(self, task: Task, record: Record) -> None:
        """Count one resolved task."""
        is_clip = isinstance(read_job(task.payload), ClipJob)
        if not is_clip:
            self.assets += 1
            self.planned += record.summary.get("clips", 0)
            notes = record.summary.get("notes", ())
            self.noted += bool(notes)
            self.notes.update(notes)
            self.clip_notes.update(record.summary.get("clip_notes", {}))
            self.turntables += record.summary.get("turntables", 0)
            self.static += record.status == "filtered" and record.reason in _STATIC
            self.rejected.update(rejection["reason"] for rejection in record.summary.get("rejected", ()))
        if record.status == "quarantined":
            is_taken = task.label in self.quarantined  # labels are not unique across sources
            self.quarantined[f"{task.label} ({task.key[:8]})" if is_taken else task.label] = record.reason
        elif record.status == "filtered":
            self.leave_out(record.reason)
        elif is_clip:
            self.rendered += 1
            self.resumed += record.resumed
        if record.status == "done" and not record.resumed:
            self.seconds.update(record.summary["seconds"])
            self.bytes += record.summary.get("bytes", 0)
            self.renderers.update(filter(None, [record.summary.get("renderer")]))

    def leave_out(self, reason: str) -> None:
        """Count one record that is not rendered. `reason`: the same words for all records with this cause."""
        if reason.startswith("dead: "):
            self.dead[reason.removeprefix("dead: ")] += 1
        else:
            self.filtered[reason] += 1

    def count_listed(self, records: Iterable[AssetRecord]) -> Iterator[AssetRecord]:
        """Pass the records through, counting them."""
        for record in records:
            self.listed += 1
            yield record

    @property
    def new(self) -> int:
        """Number of clips rendered by this run."""
        return self.rendered - self.resumed


@dataclass(frozen=True)
class RenderResult:
    """Result of a run.

    Attributes:
        report: of the driver: workers, times, failures.
        tally: counts of assets and clips.
        shards: added to the dataset.
        left_out: everything that was not rendered.
    """

    report: Report
    tally: Tally
    shards: list[Shard]
    left_out: LeftOutList = field(default_factory=LeftOutList)
