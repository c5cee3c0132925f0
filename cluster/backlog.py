"""The task queue and the statistics of a run, shared by `run` and `run_inline`."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, field

from cluster.arguments import instance
from cluster.digests import DigestMap
from cluster.ledger import Ledger, Record
from cluster.progress import Moment, ProgressWriter, RunProgress, RunState
from cluster.stage import Stage, Status, Task

RESUME_BATCH = 256  # tasks of earlier runs whose records are read together

OnResolved = Callable[[Task, Record], None]


@dataclass(frozen=True)
class Progress:
    """Snapshot of a run.

    Attributes:
        counts: status → number of resolved tasks, including those resolved by earlier runs.
        resumed: number of tasks resolved by earlier runs.
        running: labels of the tasks being processed.
        queued: number of tasks pulled from the source and waiting.
        exhausted: whether the source has no more tasks, in which case `queued` covers all remaining known tasks.
        workers: number of live workers.
        seconds: time since the start.
        busy_s: total worker time spent on tasks, in seconds.
    """

    counts: dict[Status, int]
    resumed: int
    running: tuple[str, ...]
    queued: int
    exhausted: bool
    workers: int
    seconds: float
    busy_s: float


OnTick = Callable[[Progress], None]


def check_job(stage: Stage, ledger: Ledger, on_resolved: object, on_tick: object) -> None:
    """Check the arguments that `run` and `run_inline` share.

    Raises:
        TypeError: one is of another class.
    """
    instance(stage, Stage, "run: stage")
    instance(ledger, Ledger, "run: ledger")
    for name, callback in (("on_resolved", on_resolved), ("on_tick", on_tick)):
        if callback is not None and not callable(callback):
            raise TypeError(f"run: {name}: expected a function or None, got {callback!r}")


@dataclass
class Report:
    """Statistics of a finished or interrupted run.

    Attributes:
        counts: status → number of resolved tasks, including those resolved by earlier runs.
        resumed: number of tasks resolved by earlier runs.
        reasons: status → reason → number of tasks, for "filtered" and "quarantined".
        wall_s: seconds from when Ray was up to the end of the run.
        workers: number of concurrent workers.
        busy_s: worker ("host:pid") → seconds spent on tasks.
        children_restarted: number of child processes replaced after a crash, a timeout or `tasks_per_child` tasks.
        actors_lost: number of workers that died.
    """

    counts: Counter[Status] = field(default_factory=Counter)
    resumed: int = 0
    reasons: dict[Status, Counter[str]] = field(default_factory=dict)
    wall_s: float = 0.0
    workers: int = 0
    busy_s: dict[str, float] = field(default_factory=dict)
    children_restarted: int = 0
    actors_lost: int = 0

    @property
    def total(self) -> int:
        """Number of resolved tasks."""
        return sum(self.counts.values())

    @property
    def utilisation(self) -> float:
        """Fraction of the workers' time spent on tasks, in [0, 1]."""
        return sum(self.busy_s.values()) / max(self.workers * self.wall_s, 1e-9)

    def add_busy(self, worker: str, seconds: float) -> None:
        """Add time that a worker spent on a task."""
        self.busy_s[worker] = self.busy_s.get(worker, 0.0) + seconds


class Backlog:
    """Queue of tasks in depth-first order: retries and follow-up tasks first, then the lazily pulled source.

    Each key is handed out once, apart from retries. Tasks resolved by an earlier run are taken from the ledger, and
    replaced with their follow-up tasks.

    Args:
        source: the tasks of the job.
        ledger: refreshed here.
        on_resolved: called once per resolved task, including those of earlier runs.
        max_in_backlog: maximum number of tasks pulled from the source ahead of the workers.
        stage: name of the stage, for the progress file.
    """

    def __init__(
        self,
        source: Iterable[Task],
        ledger: Ledger,
        on_resolved: OnResolved | None,
        max_in_backlog: int,
        stage: str,
    ) -> None:
        if isinstance(source, str | bytes) or not isinstance(source, Iterable):
            raise TypeError(f"run: tasks: expected an iterable of tasks, got {type(source).__name__}")
        ledger.refresh()
        self.report = Report()
        self.exhausted = False
        self._ledger = ledger
        planned = len(source) if isinstance(source, Sized) else None
        self._writer = ProgressWriter(ledger.storage, ledger.namespace, stage, planned)
        self._source = iter(source)
        self._pulled = 0
        self._on_resolved = on_resolved
        self._max = max_in_backlog
        self._queue: deque[Task] = deque()
        self._seen = DigestMap()
        self._contested: set[str] = set()
        self.start_clock()

    def __len__(self) -> int:
        return len(self._queue)

    def start_clock(self) -> None:
        """Restart the measurement of `seconds`."""
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since `start_clock`."""
        return time.monotonic() - self._start

    def progress(self, running: Iterable[Task], workers: int) -> Progress:
        """Snapshot of the run: the tasks being processed and the number of workers are the caller's."""
        return Progress(
            counts=dict(self.report.counts),
            resumed=self.report.resumed,
            running=tuple(task.label for task in running),
            queued=len(self._queue),
            exhausted=self.exhausted,
            workers=workers,
            seconds=self.seconds,
            busy_s=sum(self.report.busy_s.values()),
        )

    def write_progress(
        self,
        running: Callable[[], Sequence[tuple[Task, float]]],
        workers: int,
        workers_lost: int = 0,
        state: RunState = "running",
    ) -> RunProgress | None:
        """Write the progress file if it is due, and at the end of the run.

        Args:
            running: returns the tasks being processed, with the `time.monotonic` since which they are.
            workers, workers_lost: see `cluster.progress.RunProgress`.
            state: anything but "running" is the end.

        Returns:
            The content of the file; None if it was not due.
        """
        if state == "running" and not self._writer.is_due:
            return None
        moment = Moment(
            counts=self.report.counts,
            resumed=self.report.resumed,
            reasons=self.report.reasons,
            pulled=self._pulled,
            exhausted=self.exhausted,
            queued=len(self._queue),
            running=running(),
            workers=workers,
            workers_lost=workers_lost,
        )
        return self._writer.write(moment, state)

    def retry(self, task: Task, reason: str) -> None:
        """Put a task back at the front of the queue after a failed attempt."""
        self._writer.add_retry(reason)
        self.requeue(task)

    def next(self) -> Task | None:
        """Remove and return the next task; None if the queue and the source are empty."""
        while not self._queue and self.pull():
            pass
        return self._queue.popleft() if self._queue else None

    def pull(self) -> bool:
        """Pull tasks from the source: a batch of already resolved ones, up to and including one new task.

        Returns:
            False if nothing was pulled, because the queue is full or the source is exhausted.
        """
        if len(self._queue) >= self._max or self.exhausted:
            return False
        batch: list[Task] = []
        while len(batch) < max(self._max, RESUME_BATCH):
            try:
                task = next(self._source)
            except StopIteration:
                self.exhausted = True
                break
            instance(task, Task, "run: tasks")
            self._pulled += 1
            batch.append(task)
            if not self._ledger.is_listed(task.key):
                break
        self._queue.extend(self._unresolved(batch))
        return bool(batch)

    def requeue(self, task: Task) -> None:
        """Put a task back at the front of the queue for a retry."""
        self._queue.appendleft(task)

    def keep_marker(self, task: Task) -> None:
        """Leave the marker of a task for the next run to compact, since a second worker may still commit the task."""
        self._contested.add(task.key)

    def resolve(self, task: Task, record: Record) -> None:
        """Count a task resolved by this run and put its follow-up tasks at the front of the queue, in order."""
        self._writer.add_resolved(record)
        self._count(task, record)
        self._queue.extendleft(reversed(self._unresolved(record.follow_up)))

    def _unresolved(self, tasks: Iterable[Task]) -> list[Task]:
        """Replace each task that an earlier run resolved with its follow-up tasks, recursively; keep the order."""
        unresolved = self._drop_seen(tasks)
        # One iteration per level of follow-up tasks, so that markers are read in batches.
        while records := self._ledger.records(task.key for task in unresolved):
            expanded: list[Task] = []
            for task in unresolved:
                record = records.get(task.key)
                if record is None:
                    expanded.append(task)
                else:
                    self.report.resumed += 1
                    self._count(task, record)
                    if record.follow_up:
                        expanded += self._drop_seen(record.follow_up)
            unresolved = expanded
        return unresolved

    def _drop_seen(self, tasks: Iterable[Task]) -> list[Task]:
        """Return the tasks whose keys have not been seen before, in order, and mark them as seen."""
        unique = {task.key: task for task in reversed(list(tasks))}
        if not unique:
            return []
        seen = self._seen.get_many(list(unique))
        new = {key: unique[key] for key, value in zip(unique, seen, strict=True) if value is None}
        self._seen.update(list(new), [0] * len(new))
        return list(reversed(new.values()))

    def _count(self, task: Task, record: Record) -> None:
        self.report.counts[record.status] += 1
        if record.status != "done":
            self.report.reasons.setdefault(record.status, Counter())[record.reason] += 1
        if self._on_resolved is not None:
            self._on_resolved(task, record)
        if task.key not in self._contested:
            self._ledger.compact(record)
