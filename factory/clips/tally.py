"""Counts of what happened to the assets and clips of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cluster import Record, Report, Task
from factory.assets.record import AssetRecord
from factory.clips.jobs import ClipJob, read_job
from factory.dataset.shards import Shard


@dataclass
class Tally:
    """What became of assets and clips, gathered in the driver from the records of their tasks.

    Attributes:
        planned, rendered, resumed: clips; `resumed` of the rendered ones are an earlier run's.
        listed: records looked at. Each is one of `assets`, or counted in `filtered` or `dead` as it was listed.
        assets: resolved so far.
        rejected: reason → animations or windows that gave no clip.
        filtered: reason → records left out on purpose. dead: reason → records whose file is gone.
        quarantined: label → cause, of assets and clips given up.
        seconds: part of the work ("load", "plan", "render", "encode") → worker-seconds of this run.
        bytes: of the clips of this run. renderers: which devices drew them.
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
    seconds: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    renderers: set[str] = field(default_factory=set)

    def add(self, task: Task, record: Record) -> None:
        """Count one resolved task."""
        is_clip = isinstance(read_job(task.payload), ClipJob)
        if not is_clip:
            self.assets += 1
            self.planned += record.summary.get("clips", 0)
            self.rejected.update(rejection["reason"] for rejection in record.summary.get("rejected", ()))
        if record.status == "quarantined":
            known = task.label in self.quarantined  # two sources may have the same name for something
            self.quarantined[f"{task.label} ({task.key[:8]})" if known else task.label] = record.reason
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
        """Count one record that is not rendered, for a reason that others share."""
        if reason.startswith("dead: "):
            self.dead[reason.removeprefix("dead: ")] += 1
        else:
            self.filtered[reason] += 1

    def count_listed(self, records: Iterable[AssetRecord]) -> Iterator[AssetRecord]:
        for record in records:
            self.listed += 1
            yield record

    @property
    def new(self) -> int:
        """Clips rendered by this run."""
        return self.rendered - self.resumed


@dataclass(frozen=True)
class RenderResult:
    """What a run did: the driver's report, what became of each asset and clip, the shards it added."""

    report: Report
    tally: Tally
    shards: list[Shard]
