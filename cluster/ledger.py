"""The persistent state of every task, derived from files in the storage alone.

Layout below `<root>/_factory/`:

    done/<2 hex>/<key>.json     commit marker, written last, so all files that it lists are complete
    filtered/<key>.json         deliberately excluded, with the reason
    quarantine/<key>.json       given up, with the cause
    attempts/<key>/<n>.json     why the n-th attempt failed
    locks/<token>.json          which command is writing (`cluster.lock`)
    tmp/                        unfinished local files

Small files instead of a database: many machines write here concurrently, and any of them may die at any time. A
truncated or corrupt marker counts as absent. Writing a marker twice is harmless, because a key always stands for the
same content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cluster.arguments import fields_of, file_name, location, task_key_text
from cluster.stage import Failure, Outcome, Status, Task
from cluster.storage import Storage, StorageError

MAX_ATTEMPTS = 3

_FOLDERS: dict[Status, str] = {"done": "done", "filtered": "filtered", "quarantined": "quarantine"}
_RESERVED_FOLDERS = (*_FOLDERS.values(), "attempts", "locks", "tmp")


@dataclass(frozen=True)
class Record:
    """Final state of a task, as stored in its marker.

    Attributes:
        key, label: of the task.
        status, summary, reason, follow_up: see `Outcome`.
        detail: see `Failure`.
        seconds: duration of the last attempt.
        worker: "host:pid" of the actor that made the last attempt.
        attempts: number of failed attempts.
        files: relative path → number of bytes written.
        resumed: whether the record was read from the marker of an earlier run. Not stored.
    """

    key: str
    label: str
    status: Status
    summary: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    worker: str = ""
    attempts: int = 0
    files: dict[str, int] = field(default_factory=dict)
    follow_up: list[Task] = field(default_factory=list)
    resumed: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the record as the JSON object of its marker."""
        return {name: value for name, value in asdict(self).items() if name != "resumed"}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        """Create a record from the result of `to_json`."""
        fields_of(data, ("key", "label", "status", "follow_up"), "Record.from_json: data")
        return cls(**{**data, "follow_up": [Task.from_json(task) for task in data["follow_up"]]})


class Ledger:
    """The state of all tasks of a job.

    Picklable: workers commit through their own copies.

    Args:
        root: output folder, a local path visible to all machines or an fsspec URL.
        namespace: folder of the markers, relative to `root`.
    """

    def __init__(self, root: str | os.PathLike[str], namespace: str = "_factory") -> None:
        location(root, "Ledger: root")
        self.namespace = file_name(namespace, "Ledger: namespace")
        self.storage = Storage(root, temporary=f"{namespace}/tmp")
        self._resolved: dict[str, Status] = {}

    @property
    def root(self) -> str:
        """Absolute path or URL of the output folder."""
        return self.storage.url

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_resolved": {}}

    # --- Reading ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """List the markers in the storage: one listing per status, regardless of the number of keys."""
        self.storage.sweep()
        self._resolved = {}
        statuses: tuple[Status, ...] = ("quarantined", "filtered", "done")  # the last one wins
        for status in statuses:
            for name in self.storage.names(f"{self.namespace}/{_FOLDERS[status]}"):
                self._resolved[name.rpartition("/")[2].removesuffix(".json")] = status

    def is_listed(self, key: str) -> bool:
        """Whether the last `refresh` listed a marker of this key. Only `records` checks that it is intact."""
        return key in self._resolved

    def records(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return key → record for those keys whose markers were listed by the last `refresh` and are intact."""
        markers = {self._marker(self._resolved[key], key): key for key in keys if key in self._resolved}
        contents = self.storage.read_many(markers)
        records = {}
        for name, key in markers.items():
            record = _parse_record(contents.get(name), key)
            if record is None:
                del self._resolved[key]  # truncated by a full disk or a kill: the task is processed again
            else:
                records[key] = replace(record, resumed=True)
        return records

    def record(self, key: str) -> Record | None:
        """Read the current record of one key from the storage; None if the task is unresolved."""
        task_key_text(key, "Ledger.record: key")
        for status in _FOLDERS:
            name = self._marker(status, key)
            if (record := _parse_record(self.storage.read(name), key)) is not None:
                return record
        return None

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records of all resolved tasks, sorted by key, after a `refresh`."""
        self.refresh()
        keys = sorted(self._resolved)
        for start in range(0, len(keys), 1000):
            yield from self.records(keys[start : start + 1000]).values()

    def attempts(self, key: str) -> list[Failure]:
        """Return the failures of a task's attempts, oldest first."""
        folder = f"{self.namespace}/attempts/{key}"
        contents = self.storage.read_many(f"{folder}/{name}" for name in self.storage.names(folder))
        return [_parse_failure(data) for _, data in sorted(contents.items())]

    # --- Writing ------------------------------------------------------------------------------------------

    def commit(self, task: Task, outcome: Outcome, seconds: float = 0.0, worker: str = "") -> Record:
        """Write the files of an outcome, then its marker. The first commit of a key is kept.

        Args:
            task: the processed task.
            outcome: its result.
            seconds: duration of the attempt.
            worker: "host:pid" of the worker.

        Returns:
            The record of the key: the new one, or that of an earlier commit.

        Raises:
            StorageError: the files or the marker could not be written, so nothing is committed.
            ValueError: a file is in a folder that is reserved for the ledger.
        """
        if outcome.status == "done" and (earlier := self._committed(task.key)) is not None:
            return earlier
        for path, data in outcome.files.items():
            if path.startswith(tuple(f"{self.namespace}/{folder}/" for folder in _RESERVED_FOLDERS)):
                raise ValueError(
                    f"Outcome.files: {path!r} is in a folder reserved for the ledger; write it elsewhere"
                )
            self.storage.write(path, data)
        return self._write(
            Record(
                key=task.key,
                label=task.label,
                status=outcome.status,
                summary=outcome.summary,
                reason=outcome.reason,
                seconds=round(seconds, 4),
                worker=worker,
                files={path: len(data) for path, data in outcome.files.items()},
                follow_up=outcome.follow_up,
            )
        )

    def fail(self, task: Task, failure: Failure, seconds: float = 0.0, worker: str = "") -> Record | None:
        """Write a failed attempt, and quarantine the task if it was the `MAX_ATTEMPTS`-th.

        Returns:
            The quarantine record; None if the task is to be retried.

        Raises:
            StorageError: the attempt failed because a disk is full (nothing is written then), or the storage cannot
                be written.
        """
        if failure.disk_full:
            raise StorageError(
                f"task {task.label!r}: {failure.reason}. Free some space, then run the same command again to resume"
            )
        number = len(self.storage.names(f"{self.namespace}/attempts/{task.key}")) + 1
        entry = {"label": task.label, "worker": worker, "reason": failure.reason, "detail": failure.detail}
        self.storage.write(f"{self.namespace}/attempts/{task.key}/{number}.json", _to_bytes(entry))
        if number < MAX_ATTEMPTS:
            return None
        return self.quarantine(task, failure, attempts=number, seconds=seconds, worker=worker)

    def quarantine(
        self, task: Task, failure: Failure, attempts: int = 0, seconds: float = 0.0, worker: str = ""
    ) -> Record:
        """Give up on a task, unless a worker that was believed lost has committed it.

        Returns:
            The record of the key: the quarantine record, or that of the commit.
        """
        if (earlier := self._committed(task.key)) is not None:
            return earlier
        record = Record(task.key, task.label, "quarantined", seconds=round(seconds, 4), worker=worker)
        return self._write(replace(record, reason=failure.reason, detail=failure.detail, attempts=attempts))

    def retry_quarantined(self) -> int:
        """Delete all quarantine markers and failed attempts, so that the next run retries these tasks.

        Returns:
            Number of tasks that were in quarantine.
        """
        count = len(self.storage.names(f"{self.namespace}/quarantine"))
        # Attempts first: if interrupted between the two, three old attempts would quarantine the task again at once.
        self.storage.remove_folder(f"{self.namespace}/attempts")
        self.storage.remove_folder(f"{self.namespace}/quarantine")
        return count

    def forget(self, key: str) -> None:
        """Delete all markers and attempts of a task, so that the next run processes it again."""
        self.storage.remove_folder(f"{self.namespace}/attempts/{key}")
        for status in _FOLDERS:
            self.storage.remove(self._marker(status, key))
        self._resolved.pop(key, None)

    def _committed(self, key: str) -> Record | None:
        return _parse_record(self.storage.read(self._marker("done", key)), key)

    def _write(self, record: Record) -> Record:
        self.storage.write(self._marker(record.status, record.key), _to_bytes(record.to_json()))
        return record

    def _marker(self, status: Status, key: str) -> str:
        shard = f"{hashlib.sha256(key.encode()).hexdigest()[:2]}/" if status == "done" else ""
        return f"{self.namespace}/{_FOLDERS[status]}/{shard}{key}.json"


def _to_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _parse_record(data: bytes | None, key: str) -> Record | None:
    """Parse a marker; None if it does not exist, is corrupt or belongs to another key."""
    try:
        record = Record.from_json(json.loads(data or b""))
    except (ValueError, TypeError, KeyError):
        return None
    return record if record.key == key else None


def _parse_failure(data: bytes) -> Failure:
    try:
        entry = json.loads(data)
        return Failure(entry["reason"], entry["detail"])
    except (ValueError, TypeError, KeyError):
        return Failure("the file of this attempt is corrupt")
