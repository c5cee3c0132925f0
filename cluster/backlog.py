"""Which task is next: the bookkeeping that a run on Ray and an inline run share."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cluster.ledger import Ledger, Record
from cluster.stage import Status, Task

Resolved = Callable[[Task, Record], None]


@dataclass(frozen=True)
class Progress:
    """A run at one moment.

    Attributes:
        counts: status → tasks resolved, those of earlier runs included. resumed: how many of them were.
        running: labels of the tasks being worked on. queued: known tasks that wait.
        exhausted: whether the source has no more tasks, so that `queued` is all that is known to be left.
        workers: how many are alive. seconds: since the start. busy_s: worker-seconds spent on tasks.
    """

    counts: dict[Status, int]
    resumed: int
    running: tuple[str, ...]
    queued: int
    exhausted: bool
    workers: int
    seconds: float
    busy_s: float


@dataclass
class Report:
    """How a run went.

    Attributes:
        counts: status → tasks resolved, those of earlier runs included. resumed: how many of them were.
        reasons: status → reason → tasks, for "filtered" and "quarantined".
        wall_s: seconds from Ray's being there to the end. workers: how many worked side by side.
        busy_s: worker ("host:pid") → seconds spent on tasks.
        children_restarted: child processes replaced (crash, timeout, age). actors_lost: workers that died.
    """

    counts: Counter[Status] = field(default_factory=Counter)
    resumed: int = 0
    reasons: dict[Status, Counter[str]] = field(default_factory=dict)
    wall_s: float = 0.0
    workers: int = 0
    busy_s: Counter[str] = field(default_factory=Counter)
    children_restarted: int = 0
    actors_lost: int = 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def utilisation(self) -> float:
        """Share of the workers' time spent on tasks, 0-1."""
        return sum(self.busy_s.values()) / max(self.workers * self.wall_s, 1e-9)


class Backlog:
    """Tasks in order: follow-ups and retries first (depth first), the source pulled lazily behind them.

    A key is handed out once. What an earlier run has resolved is taken from the ledger, follow-ups and all.
    """

    def __init__(
        self, source: Iterable[Task], ledger: Ledger, on_resolved: Resolved | None, max_in_backlog: int
    ) -> None:
        ledger.refresh()
        self.report = Report()
        self.exhausted = False
        self._ledger = ledger
        self._source = iter(source)
        self._on_resolved = on_resolved
        self._max = max_in_backlog
        self._queue: deque[Task] = deque()
        self._seen: set[str] = set()
        self.start_clock()

    def __len__(self) -> int:
        return len(self._queue)

    def start_clock(self) -> None:
        """The workers' time counts from here."""
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def next(self) -> Task | None:
        """The next task to do; None when nothing is known to be left."""
        while not self._queue and self.pull():
            pass
        return self._queue.popleft() if self._queue else None

    def pull(self) -> bool:
        """Take more from the source: a stretch of tasks of an earlier run, or one new one. False: nothing."""
        if len(self._queue) >= self._max or self.exhausted:
            return False
        batch: list[Task] = []
        while len(batch) < self._max:
            task = next(self._source, None)
            if task is None:
                self.exhausted = True
                break
            batch.append(task)
            if not self._ledger.is_listed(task.key):
                break
        self._queue.extend(self._unresolved(batch))
        return bool(batch)

    def requeue(self, task: Task) -> None:
        """It is the next to be tried again."""
        self._queue.appendleft(task)

    def resolve(self, task: Task, record: Record) -> None:
        """This run's answer to a task; its follow-ups are next, in order."""
        self._count(task, record)
        self._queue.extendleft(reversed(self._unresolved(record.follow_up)))

    def _unresolved(self, tasks: Iterable[Task]) -> list[Task]:
        """Those to be done, in order; each that an earlier run has done is replaced by its follow-ups."""
        unresolved = self._fresh(tasks)
        while records := self._ledger.records(task.key for task in unresolved):
            expanded: list[Task] = []
            for task in unresolved:
                record = records.get(task.key)
                if record is None:
                    expanded.append(task)
                else:
                    self.report.resumed += 1
                    self._count(task, record)
                    expanded += self._fresh(record.follow_up)
            unresolved = expanded
        return unresolved

    def _fresh(self, tasks: Iterable[Task]) -> list[Task]:
        fresh = {task.key: task for task in reversed(list(tasks)) if task.key not in self._seen}
        self._seen.update(fresh)
        return list(reversed(fresh.values()))

    def _count(self, task: Task, record: Record) -> None:
        self.report.counts[record.status] += 1
        if record.status != "done":
            self.report.reasons.setdefault(record.status, Counter())[record.reason] += 1
        if self._on_resolved is not None:
            self._on_resolved(task, record)
