"""The list of everything that a run did not render, one JSON object per line, beside the run's record."""

from __future__ import annotations

import json
import tempfile
import time
from typing import Any

from cluster import Record, Storage, Task
from factory.assets.record import AssetRecord
from factory.clips.jobs import ClipJob, read_job

_RUNS = "_factory/runs"
_SUFFIX = ".left-out.jsonl"
_IN_MEMORY = 2**20  # bytes; a longer list, of a large collection, is kept on disk


class LeftOutList:
    """Collects what is left out, dead or quarantined, and why.

    The keys of an entry: `status` ("left out", "dead", "quarantined"), `source`, `asset`, `location`, `reason`, and for
    an animation or one of its windows `animation` and `index`.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)

    def add_record(self, record: AssetRecord, reason: str) -> None:
        """Add a listed asset that is not rendered."""
        status = "dead" if reason.startswith("dead: ") else "left out"
        self.add(status, record, reason.removeprefix("dead: "))

    def add_task(self, task: Task, result: Record) -> None:
        """Add a resolved task, unless all of it is rendered."""
        job = read_job(task.payload)
        animation: dict[str, Any] = {}
        if isinstance(job, ClipJob):
            animation = {"animation": job.clip.animation_name, "index": job.clip.animation}
        if result.status == "quarantined":
            self.add("quarantined", job.asset, result.reason, **animation)
        elif result.status == "filtered":
            self.add_record(job.asset, result.reason)
        for rejection in result.summary.get("rejected", ()):
            self.add(
                "left out",
                job.asset,
                rejection["reason"],
                animation=rejection["animation_name"],
                index=rejection["animation"],
            )

    def write(self, storage: Storage, run: str | None) -> str | None:
        """Write the list to `_factory/runs/`.

        Args:
            storage: the dataset.
            run: name of the run's record; None if the run changed nothing and has none. The list is then written only
                if it differs from the newest one.

        Returns:
            Path of the list relative to the dataset, None if nothing was left out.
        """
        self._file.seek(0)
        data = b"".join(sorted(self._file))  # workers finish in any order
        if not data:
            return None
        if run is None:
            earlier = [name for name in storage.names(_RUNS) if name.endswith(_SUFFIX)]
            if earlier and storage.read(f"{_RUNS}/{earlier[-1]}") == data:
                return f"{_RUNS}/{earlier[-1]}"
            run = run_name()
        path = f"{_RUNS}/{run}{_SUFFIX}"
        storage.write(path, data)
        return path

    def add(self, status: str, asset: AssetRecord, reason: str, **animation: Any) -> None:
        """Add an asset, or one of its animations."""
        entry = {"source": asset.source, "asset": asset.uid, "location": asset.location, **animation}
        entry |= {"status": status, "reason": reason}
        self._file.write(json.dumps(entry).encode() + b"\n")


def run_name() -> str:
    """Name of a run that ends now."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
