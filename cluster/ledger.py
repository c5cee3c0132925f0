"""What has become of every task, derived from storage alone.

Below `<root>/_factory/`:

    done/<2 hex>/<key>.json     the commit: written last, so what it speaks of is complete
    filtered/<key>.json         left out on purpose, with the reason
    quarantine/<key>.json       given up, with the true cause
    attempts/<key>/<n>.json     what went wrong the n-th time
    tmp/                        unfinished local files

Small files and no database: many machines write here at once, and any of them may die at any moment. A marker
that is not whole counts as absent. Writing one twice does no harm, because a key stands for the same content
for ever.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cluster.stage import Failure, Outcome, Status, Task
from cluster.storage import Storage, StorageError

MAX_ATTEMPTS = 3

_FOLDERS: dict[Status, str] = {"done": "done", "filtered": "filtered", "quarantined": "quarantine"}
_OWN_FOLDERS = (*_FOLDERS.values(), "attempts", "tmp")


@dataclass(frozen=True)
class Record:
    """A task's final state, as its marker keeps it.

    Attributes:
        status, summary, reason, follow_up: see `Outcome`. detail: see `Failure`.
        files: relative path → bytes written.
        seconds: how long the last attempt took. worker: "host:pid" of the actor that did it.
        attempts: how many attempts had failed before.
        resumed: read from an earlier run's marker; not part of it.
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
        return {name: value for name, value in asdict(self).items() if name != "resumed"}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        return cls(**{**data, "follow_up": [Task.from_json(task) for task in data["follow_up"]]})


class Ledger:
    """The state of a job below `root`, a local path (seen by every machine) or an fsspec URL.

    Picklable: workers commit through a copy of it.
    """

    def __init__(self, root: str | os.PathLike[str], namespace: str = "_factory") -> None:
        self.namespace = namespace
        self.storage = Storage(root, temporary=f"{namespace}/tmp")
        self._resolved: dict[str, Status] = {}

    @property
    def root(self) -> str:
        return self.storage.url

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_resolved": {}}

    # Reading

    def refresh(self) -> None:
        """List the storage: one listing per kind, whatever the number of keys."""
        self.storage.sweep()
        self._resolved = {}
        for status in ("quarantined", "filtered", "done"):  # the commit wins
            for name in self.storage.names(f"{self.namespace}/{_FOLDERS[status]}"):
                self._resolved[name.rpartition("/")[2].removesuffix(".json")] = status

    def is_listed(self, key: str) -> bool:
        """Whether the last `refresh` saw a marker of this key; only `records` knows whether it is whole."""
        return key in self._resolved

    def records(self, keys: Iterable[str]) -> dict[str, Record]:
        """The records of those keys that the last `refresh` saw and whose markers are whole."""
        wanted = {self._marker(self._resolved[key], key): key for key in keys if key in self._resolved}
        contents = self.storage.read_many(wanted)
        found = {key: _parse(contents.get(name), key) for name, key in wanted.items()}
        for key, record in found.items():
            if record is None:
                del self._resolved[key]  # torn by a full disk or a kill: the task is done again
        return {key: replace(record, resumed=True) for key, record in found.items() if record is not None}

    def record(self, key: str) -> Record | None:
        """What the storage says about one key now, None if it is unresolved."""
        for status in ("done", "filtered", "quarantined"):
            name = self._marker(status, key)
            if (record := _parse(self.storage.read(name), key)) is not None:
                return record
        return None

    def __iter__(self) -> Iterator[Record]:
        """Every resolved task's record, by key; lists the storage anew."""
        self.refresh()
        keys = sorted(self._resolved)
        for start in range(0, len(keys), 1000):
            yield from self.records(keys[start : start + 1000]).values()

    def attempts(self, key: str) -> list[Failure]:
        """What went wrong so far with a task."""
        folder = f"{self.namespace}/attempts/{key}"
        found = self.storage.read_many(f"{folder}/{name}" for name in self.storage.names(folder))
        return [_parse_failure(data) for _, data in sorted(found.items())]

    # Writing

    def commit(self, task: Task, outcome: Outcome, seconds: float = 0.0, worker: str = "") -> Record:
        """Write an outcome's files and then its marker; the first commit of a key stays.

        Raises StorageError when the storage does not take it: then nothing is committed.
        """
        if outcome.status == "done" and (earlier := self._done(task.key)) is not None:
            return earlier
        for path, data in outcome.files.items():
            if path.startswith(tuple(f"{self.namespace}/{folder}/" for folder in _OWN_FOLDERS)):
                raise ValueError(f"Outcome.files: {path!r} lies in a folder of the ledger's own")
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
        """Write down a failed attempt. The third one is the end: its quarantine record; None before that.

        Raises StorageError, and writes nothing, if a full disk made the attempt fail.
        """
        if failure.disk_full:
            raise StorageError(
                f"task {task.label!r}: {failure.reason}. Make room and run the same command again"
            )
        number = len(self.storage.names(f"{self.namespace}/attempts/{task.key}")) + 1
        entry = {"label": task.label, "worker": worker, "reason": failure.reason, "detail": failure.detail}
        self.storage.write(f"{self.namespace}/attempts/{task.key}/{number}.json", _json(entry))
        if number < MAX_ATTEMPTS:
            return None
        return self.quarantine(task, failure, attempts=number, seconds=seconds, worker=worker)

    def quarantine(
        self, task: Task, failure: Failure, attempts: int = 0, seconds: float = 0.0, worker: str = ""
    ) -> Record:
        """Give a task up; a commit that a lost worker made after all stays the truth."""
        if (done := self._done(task.key)) is not None:
            return done
        record = Record(task.key, task.label, "quarantined", seconds=round(seconds, 4), worker=worker)
        return self._write(replace(record, reason=failure.reason, detail=failure.detail, attempts=attempts))

    def retry_quarantined(self) -> int:
        """Forget quarantine and failed attempts, so that the next run tries again. How many were given up."""
        count = len(self.storage.names(f"{self.namespace}/quarantine"))
        # Attempts first: killed in between, three old ones would put the task straight back.
        self.storage.remove_folder(f"{self.namespace}/attempts")
        self.storage.remove_folder(f"{self.namespace}/quarantine")
        return count

    def forget(self, key: str) -> None:
        """Remove what is known of a task; the next run that has it does it anew."""
        self.storage.remove_folder(f"{self.namespace}/attempts/{key}")
        for status in _FOLDERS:
            self.storage.remove(self._marker(status, key))
        self._resolved.pop(key, None)

    def _done(self, key: str) -> Record | None:
        return _parse(self.storage.read(self._marker("done", key)), key)

    def _write(self, record: Record) -> Record:
        self.storage.write(self._marker(record.status, record.key), _json(record.to_json()))
        return record

    def _marker(self, status: Status, key: str) -> str:
        shard = f"{hashlib.sha256(key.encode()).hexdigest()[:2]}/" if status == "done" else ""
        return f"{self.namespace}/{_FOLDERS[status]}/{shard}{key}.json"


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _parse(data: bytes | None, key: str) -> Record | None:
    """The record of a marker; None if there is no marker or it is torn."""
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
        return Failure("the note about this attempt is torn")
