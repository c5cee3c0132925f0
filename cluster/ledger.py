"""The persistent state of every task, derived from files in the storage alone.

Layout below `<root>/_factory/`:

    done/<2 hex>/<key>.json     commit marker, written last, so all files that it lists are complete
    filtered/<key>.json         deliberately excluded, with the reason
    segments/<number>-….jsonl   the records of many done and filtered tasks, whose markers are removed (`compact`)
    quarantine/<key>.json       given up, with the cause
    attempts/<key>/<n>.json     why the n-th attempt failed
    progress/<token>.json       how far a run has come (`cluster.progress`)
    locks/<token>.json          which command is writing (`cluster.lock`)
    tmp/                        unfinished local files

Files instead of a database: many machines write here concurrently, and any of them may die at any time. Workers commit
a task with a marker of its own. The driver collects the records of resolved tasks, writes a segment, and then removes
their markers; if it is killed in between, both exist and say the same. A truncated or corrupt marker counts as absent.
Writing a marker twice is harmless, because a key always stands for the same content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.arguments import fields_of, file_name, location, task_key_text
from cluster.digests import DigestMap
from cluster.segments import (
    MAX_LINE,
    SEGMENT_BYTES,
    SEGMENT_RECORDS,
    PackedStatus,
    Segments,
    count_records,
    packed_line,
)
from cluster.stage import Failure, Outcome, Status, Task
from cluster.storage import Storage, StorageError

MAX_ATTEMPTS = 3

_FOLDERS: dict[Status, str] = {"done": "done", "filtered": "filtered", "quarantined": "quarantine"}
_RESERVED_FOLDERS = (*_FOLDERS.values(), "attempts", "locks", "progress", "segments", "tmp")
_READ_STATE = ("_loose", "_segments", "_pending", "_pending_bytes", "_redundant")  # not sent to workers
_REMOVED_TOGETHER = 128  # markers
_DONE = 2
_CODES: list[Status] = ["quarantined", "filtered", "done"]  # values of `Ledger._loose`; a larger one wins


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
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "resumed"}
        return {**data, "follow_up": [task.to_json() for task in self.follow_up]}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, resumed: bool = False) -> Record:
        """Create a record from the result of `to_json`; `resumed` as in the attributes."""
        fields_of(data, ("key", "label", "status", "follow_up"), "Record.from_json: data")
        follow_up = [Task.from_json(task) for task in data["follow_up"]]
        return cls(**{**data, "follow_up": follow_up, "resumed": resumed})


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
        self._is_copy = False  # in a worker
        self._clear()

    def _clear(self) -> None:
        """Forget everything that was read from the storage."""
        self._loose = DigestMap()  # key → status of its marker, as listed
        self._segments: Segments | None = None
        # Resolved tasks whose records are to be written to a segment, and markers that a segment made redundant.
        self._pending: dict[str, tuple[PackedStatus, bytes]] = {}
        self._pending_bytes = 0
        self._redundant: list[str] = []

    @property
    def root(self) -> str:
        """Absolute path or URL of the output folder."""
        return self.storage.url

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _READ_STATE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()
        self._is_copy = True

    # --- Reading ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """List the state in the storage: one listing per kind of file, and the keys in the segments."""
        self.storage.sweep()
        segments = self._segments
        self._clear()
        # Markers first: those that another process packs meanwhile are then found in a segment.
        for key, code in self._list_markers():
            self._loose[key] = code
        self._segments = segments
        self._loaded_segments().refresh()

    def _list_markers(self) -> Iterator[tuple[str, int]]:
        """Yield the key and the status, as an index of `_CODES`, of every marker; the status that wins comes last."""
        for code, status in enumerate(_CODES):
            for name in self.storage.names(f"{self.namespace}/{_FOLDERS[status]}"):
                yield name.rpartition("/")[2].removesuffix(".json"), code

    def _loaded_segments(self) -> Segments:
        if self._segments is None:
            self._segments = Segments(self.storage, f"{self.namespace}/segments")
            self._segments.refresh()
        return self._segments

    def is_listed(self, key: str) -> bool:
        """Whether the last `refresh` listed a record of this key. Only `records` checks that it is intact."""
        return key in self._loose or key in self._loaded_segments()

    def records(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return key → record for those keys that the last `refresh` listed and whose records are intact."""
        keys = list(keys)
        loose = dict(zip(keys, self._loose.get_many(keys), strict=True))
        packed = self._loaded_segments().statuses(keys)
        keys = [key for key in keys if key in packed or loose[key] is not None]
        if not keys:
            return {}
        # Of several records, "done" wins, and then the one in a segment.
        first = [key for key, status in packed.items() if status == "done" or loose[key] != _DONE]
        records = self._packed_records(first, resumed=True)
        unread = {key: code for key, code in loose.items() if code is not None and key not in records}
        records |= self._loose_records(unread, resumed=True)
        rest = [key for key in packed if key not in records and key not in first]
        records |= self._packed_records(rest, resumed=True)
        for key in keys:
            if key not in records:
                self._loose.discard(key)  # truncated by a full disk or a kill: the task is processed again
        return {key: records[key] for key in keys if key in records}

    def _packed_records(self, keys: Iterable[str], *, resumed: bool = False) -> dict[str, Record]:
        keys, segments = list(keys), self._loaded_segments()
        records = _parse_records(segments.read(keys), resumed)
        for key in keys:
            if key not in records:
                segments.discard(key)  # damaged, or removed by another process: `compact` must not rely on it
        return records

    def _loose_records(self, codes: Mapping[str, int], *, resumed: bool = False) -> dict[str, Record]:
        """Read the markers of some keys. `codes`: key → index of its status in `_CODES`."""
        markers = {self._marker(_CODES[code], key): key for key, code in codes.items()}
        contents = self.storage.read_many(markers)
        return _parse_records({markers[name]: data for name, data in contents.items()}, resumed)

    def record(self, key: str) -> Record | None:
        """Read the current record of one key from the storage; None if the task is unresolved."""
        task_key_text(key, "Ledger.record: key")
        done = self._loose_records({key: _DONE}) or self._packed_records([key])
        if key in done:
            return done[key]
        for code in (1, 0):  # filtered, quarantined
            if key in (records := self._loose_records({key: code})):
                return records[key]
        return None

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records of all resolved tasks, after a `refresh`.

        Those with a marker come first, sorted by key; then those of each segment.
        """
        self.refresh()
        keys = {key for key, _ in self._list_markers()}
        packed = (key for key in self._loaded_segments() if key not in keys)
        for batch in _batches(itertools.chain(sorted(keys), packed), 1000):
            yield from self.records(batch).values()

    def count(self) -> Counter[Status]:
        """Count the resolved tasks by status, from listings and the first lines of the segments."""
        markers = {key: _CODES[code] for key, code in self._list_markers()}
        unpacked = {key for key, status in markers.items() if status != "quarantined"}
        total: Counter[Status] = Counter(count_records(self.storage, f"{self.namespace}/segments", unpacked))
        total.update(markers.values())
        return +total

    def causes(self, limit: int = 1000) -> Counter[str]:
        """Count the causes of the quarantined tasks, or of the first `limit` of them."""
        names = self.storage.names(f"{self.namespace}/{_FOLDERS['quarantined']}")[:limit]
        keys = [name.removesuffix(".json") for name in names]
        return Counter(record.reason for record in self._loose_records(dict.fromkeys(keys, 0)).values())

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

    def forget(self, *keys: str) -> None:
        """Delete all records and attempts of some tasks, so that the next run processes them again."""
        self.storage.remove_folder(f"{self.namespace}/progress")  # it may have the names of the tasks
        segments = self._loaded_segments()
        segments.refresh()
        segments.remove(keys)
        for key in keys:
            self.storage.remove_folder(f"{self.namespace}/attempts/{key}")
            for status in _FOLDERS:
                self.storage.remove(self._marker(status, key))
            self._loose.discard(key)
            self._pending.pop(key, None)

    # --- Compacting ---------------------------------------------------------------------------------------

    def compact(self, record: Record) -> None:
        """Let a segment replace the marker of a resolved task, once there are enough of them.

        Only the driver of a run calls this, with the record that it received or read, when no worker is at the task.
        Quarantined tasks keep their markers: there are few, and users read them.

        Raises:
            StorageError: the segment could not be written, or the markers not be removed. Nothing is lost.
        """
        if record.status == "quarantined" or (record.resumed and record.key not in self._loose):
            return
        if self._loaded_segments().statuses([record.key]).get(record.key) in ("done", record.status):
            # A run was stopped after writing the segment, or a worker that was believed lost has committed.
            if record.resumed and (code := self._loose.get(record.key)) is not None:
                self._redundant.append(self._marker(_CODES[code], record.key))
        else:
            data = _to_bytes(record.to_json())
            size = len(packed_line(record.key, record.status, data))
            if size > MAX_LINE:
                return
            self._pending[record.key] = record.status, data
            self._pending_bytes += size
        if len(self._pending) >= SEGMENT_RECORDS or self._pending_bytes >= SEGMENT_BYTES:
            self._loaded_segments().append(self._pending)
            self._redundant += [self._marker(status, key) for key, (status, _) in self._pending.items()]
            self._pending, self._pending_bytes = {}, 0
        if len(self._redundant) >= _REMOVED_TOGETHER:
            redundant, self._redundant = self._redundant, []
            self.storage.remove_many(redundant)

    def _committed(self, key: str) -> Record | None:
        if record := self._loose_records({key: _DONE}).get(key):
            return record
        # The driver hands out no task that is in a segment, so its workers do not read them.
        if self._is_copy and self._segments is None:
            return None
        record = self._packed_records([key]).get(key)
        return record if record is not None and record.status == "done" else None

    def _write(self, record: Record) -> Record:
        """Write a marker; return the record, or that of an earlier commit.

        A worker that was cut off from the network after it had looked for a commit may write its marker when its task
        has long been committed by another one.
        """
        marker, data = self._marker(record.status, record.key), _to_bytes(record.to_json())
        if not self.storage.write_new(marker, data):
            earlier = _parse_record(self.storage.read(marker) or b"", record.key, resumed=False)
            if earlier is not None:
                return earlier
            self.storage.write(marker, data)  # the existing one is damaged
        return record

    def _marker(self, status: Status, key: str) -> str:
        shard = f"{hashlib.sha256(key.encode()).hexdigest()[:2]}/" if status == "done" else ""
        return f"{self.namespace}/{_FOLDERS[status]}/{shard}{key}.json"


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _to_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _parse_records(contents: Mapping[str, bytes], resumed: bool) -> dict[str, Record]:
    """Parse records by key; those that are corrupt or belong to another key are left out."""
    parsed = {key: _parse_record(data, key, resumed) for key, data in contents.items()}
    return {key: record for key, record in parsed.items() if record is not None}


def _parse_record(data: bytes, key: str, resumed: bool) -> Record | None:
    """Parse a marker; None if it is corrupt or belongs to another key."""
    try:
        record = Record.from_json(json.loads(data.decode()), resumed=resumed)
    except (ValueError, TypeError, KeyError):
        return None
    return record if record.key == key else None


def _parse_failure(data: bytes) -> Failure:
    try:
        entry = json.loads(data)
        return Failure(entry["reason"], entry["detail"])
    except (ValueError, TypeError, KeyError):
        return Failure("the file of this attempt is corrupt")
