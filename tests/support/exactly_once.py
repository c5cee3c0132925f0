"""Check that every task ended exactly once: a ledger that writes an audit log, and the checker that reads it."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

from cluster_stages import content

from cluster import Ledger, Record


class AuditedLedger(Ledger):
    """Appends a line to the file `audit` after every marker that it writes, from any process."""

    def __init__(self, root: str, audit: str) -> None:
        super().__init__(root)
        self.audit = audit

    def _write(self, record: Record) -> Record:
        kept = super()._write(record)
        if kept is record:
            with open(self.audit, "ab", buffering=0) as file:
                file.write(f"{record.key} {record.status} {socket.gethostname()}:{os.getpid()}\n".encode())
        return kept


def problems(root: str | Path, audit: str | Path, expected: dict[str, str]) -> list[str]:
    """List what is wrong with the output below `root`. `expected`: key → "done" or the cause of its quarantine."""
    result = []
    ledger = Ledger(root)
    records = {record.key: record for record in ledger}
    result += [f"{key}: lost" for key in expected.keys() - records.keys()]
    result += [f"{key}: not a task of the job" for key in records.keys() - expected.keys()]
    markers = Counter(
        name.rpartition("/")[2].removesuffix(".json")
        for kind in ("done", "filtered", "quarantine")
        for name in ledger.storage.names(f"_factory/{kind}")
    )
    result += [f"{key}: {count} markers" for key, count in markers.items() if count > 1]
    written = Counter(line.split()[0] for line in Path(audit).read_text().splitlines())
    result += [f"{key}: written {count} times" for key, count in written.items() if count > 1]
    for key, record in records.items():
        actual = record.status if record.status == "done" else record.reason
        if key in expected and expected[key] not in actual:
            result.append(f"{key}: expected {expected[key]!r}, got {actual!r}")
        if record.status == "done":
            if ledger.storage.read(f"data/{key}.bin") != content(key):
                result.append(f"{key}: done, but its file is incomplete")
    return result
