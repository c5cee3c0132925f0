"""The progress file of a run, `<namespace>/progress/<start>-<token>.json`, for those who watch it (`cluster.status`).

The driver replaces the whole file every few seconds and at the end. It is information only: resuming does not read it,
and a failure to write it does not stop the run. Times are seconds since 1970 on the driver's clock.
"""

from __future__ import annotations

import heapq
import json
import os
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cluster.arguments import fields_of
from cluster.ledger import Record
from cluster.stage import Status, Task
from cluster.storage import Storage, StorageError

WRITE_S = 5.0
SAMPLE_S = 10.0
HISTORY_S = 3600.0
MOST_LISTED = 10  # tasks, and causes of each kind
MOST_FILES = 20  # of earlier runs
FORMAT = 1

RunState = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True)
class TaskTime:
    """A task that is running, or was slow.

    Attributes:
        label: of the task.
        seconds: how long it has been running, or took.
        worker: "host:pid" of the worker; "" where that is not known.
    """

    label: str
    seconds: float
    worker: str = ""


@dataclass(frozen=True)
class RunProgress:
    """Content of a progress file.

    Attributes:
        stage: class name of the stage.
        host: name of the driver's machine. pid: its process.
        state: of the run; a driver that is killed leaves "running".
        started, updated: when the run began, and when the file was written.
        counts: status → number of resolved tasks, including those of earlier runs.
        resumed: number of tasks resolved by earlier runs.
        planned: number of tasks in the source; None if the source does not know it.
        pulled: number of tasks taken from the source so far. exhausted: whether that is all.
        running: number of tasks being processed. queued: number of tasks that wait in the driver.
        workers, workers_lost: number of live workers, and of those that died.
        reasons: status → cause → number of tasks, the most frequent causes of "filtered" and "quarantined".
        retries: cause → number of failed attempts of this run, the most frequent ones.
        longest: the tasks that have been running for the longest time.
        slowest: the resolved tasks of this run that took the longest time.
        samples: (time, number of tasks resolved by this run) during the last hour, oldest first.
    """

    stage: str
    host: str
    pid: int
    state: RunState
    started: float
    updated: float
    counts: dict[str, int]
    resumed: int
    planned: int | None
    pulled: int
    exhausted: bool
    running: int
    queued: int
    workers: int
    workers_lost: int
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    longest: tuple[TaskTime, ...] = ()
    slowest: tuple[TaskTime, ...] = ()
    samples: tuple[tuple[float, int], ...] = ()

    @property
    def resolved(self) -> int:
        """Number of tasks that this run resolved."""
        return sum(self.counts.values()) - self.resumed

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the file."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunProgress:
        """Create the progress from the result of `to_json`; fields that a newer version added are ignored."""
        fields_of(data, ("stage", "state", "started", "updated", "counts"), "RunProgress.from_json: data")
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        for name in ("longest", "slowest"):
            known[name] = tuple(TaskTime(**each) for each in known.get(name, ()))
        known["samples"] = tuple((float(at), int(count)) for at, count in known.get("samples", ()))
        return cls(**known)


@dataclass(frozen=True)
class Moment:
    """What the driver loop knows of the run at one time; see `RunProgress` for the attributes."""

    counts: Mapping[Status, int]
    resumed: int
    reasons: Mapping[Status, Counter[str]]
    pulled: int
    exhausted: bool
    queued: int
    running: Sequence[tuple[Task, float]] = ()  # with the time since which they run, `time.monotonic`
    workers: int = 0
    workers_lost: int = 0


class ProgressWriter:
    """Writes the progress file of one run.

    Args:
        storage: the output folder.
        namespace: folder of the ledger.
        stage: class name of the stage.
        planned: number of tasks in the source, None if unknown.
    """

    def __init__(self, storage: Storage, namespace: str, stage: str, planned: int | None) -> None:
        self._storage, self._folder = storage, f"{namespace}/progress"
        self._stage, self._planned = stage, planned
        self._started = time.time()
        start = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._started))
        self._name = f"{self._folder}/{start}-{uuid.uuid4().hex[:8]}.json"
        self._next = 0.0
        self._is_written = False
        self._retries: Counter[str] = Counter()
        self._slowest: list[tuple[float, str, str]] = []  # a heap: the fastest of them first
        self._samples: deque[tuple[float, int]] = deque([(self._started, 0)])

    def add_resolved(self, record: Record) -> None:
        """Consider a task that this run resolved for the list of the slowest."""
        entry = record.seconds, record.label, record.worker
        if len(self._slowest) < MOST_LISTED:
            heapq.heappush(self._slowest, entry)
        else:
            heapq.heappushpop(self._slowest, entry)

    def add_retry(self, reason: str) -> None:
        """Count a failed attempt of a task that is retried."""
        if reason in self._retries or len(self._retries) < 1000:  # a reason may have the name of a file
            self._retries[reason] += 1

    @property
    def is_due(self) -> bool:
        """Whether `write` would write the file now."""
        return time.monotonic() >= self._next

    def write(self, moment: Moment, state: RunState = "running") -> RunProgress | None:
        """Write the file if it is due, and at the end of a run that did something. A storage that fails is ignored.

        Returns:
            The content of the file; None if it was not to be written.
        """
        is_end = state != "running"
        did_something = self._is_written or sum(moment.counts.values()) > moment.resumed
        if not (did_something if is_end else self.is_due):
            return None
        self._next = time.monotonic() + WRITE_S
        progress = self._progress(moment, state)
        try:
            if not self._is_written:
                self._remove_old()
            self._storage.write(self._name, json.dumps(progress.to_json(), sort_keys=True).encode())
            self._is_written = True
        except StorageError:
            pass  # the writes of the results report it
        return progress

    def _progress(self, moment: Moment, state: RunState) -> RunProgress:
        now, resolved = time.time(), sum(moment.counts.values()) - moment.resumed
        if now - self._samples[-1][0] >= SAMPLE_S or state != "running":
            self._samples.append((now, resolved))
        while len(self._samples) > 2 and self._samples[1][0] < now - HISTORY_S:
            self._samples.popleft()
        clock = time.monotonic()
        longest = heapq.nsmallest(MOST_LISTED, moment.running, key=lambda item: item[1])
        return RunProgress(
            stage=self._stage,
            host=socket.gethostname(),
            pid=os.getpid(),
            state=state,
            started=self._started,
            updated=now,
            counts={status: count for status, count in moment.counts.items()},
            resumed=moment.resumed,
            planned=self._planned,
            pulled=moment.pulled,
            exhausted=moment.exhausted,
            running=len(moment.running),
            queued=moment.queued,
            workers=moment.workers,
            workers_lost=moment.workers_lost,
            reasons={
                status: dict(causes.most_common(MOST_LISTED)) for status, causes in moment.reasons.items()
            },
            retries=dict(self._retries.most_common(MOST_LISTED)),
            longest=tuple(TaskTime(task.label, round(clock - since, 1)) for task, since in longest),
            slowest=tuple(
                TaskTime(label, seconds, worker)
                for seconds, label, worker in sorted(self._slowest, reverse=True)
            ),
            samples=tuple((round(at, 3), count) for at, count in self._samples),
        )

    def _remove_old(self) -> None:
        """Remove the files of earlier runs, except for the newest ones."""
        names = self._storage.names(self._folder)
        self._storage.remove_many(f"{self._folder}/{name}" for name in names[: -MOST_FILES + 1])
