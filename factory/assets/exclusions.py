"""What may not come in, whatever its licence says: objects that benchmarks test with, and what was taken down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.assets.record import AssetRecord
from factory.assets.tombstones import Tombstone

BENCHMARKS = Path(__file__).with_name("benchmark_deny_list.txt")
TAKEN_DOWN = "taken down"
_UID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")  # as Sketchfab and Objaverse name models


class DenyListError(ValueError):
    """A deny-list that cannot be read; the message names the file and the line."""


def read_deny_list(*files: str | Path) -> dict[str, str]:
    """uid → benchmark of files with one object a line: its uid, and optionally whose it is; # begins a comment.

    Raises:
        DenyListError: there is no such file, or it is not text.
    """
    denied: dict[str, str] = {}
    for file in map(Path, files):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DenyListError(
                f"deny-list {file}: {error}; expected a text file with one uid a line"
            ) from None
        for line in lines:
            uid, _, benchmark = line.partition("#")[0].strip().partition(" ")
            if uid:
                denied[uid] = benchmark.strip() or file.stem
    return denied


def benchmark_of(uid: str, source_url: str, denied: Mapping[str, str]) -> str:
    """The benchmark that tests with an asset, "" if none.

    The uid is looked for in the asset's name and in the address of its page: file names of downloads have it in them.
    """
    for name in (uid, *_UID.findall(uid.lower()), *_UID.findall(source_url.lower())):
        if name in denied:
            return denied[name]
    return ""


@dataclass(frozen=True)
class Exclusions:
    """Asked of every record before anything of it is fetched.

    Attributes:
        denied: uid → benchmark. tombstones: of the dataset that is being made.
    """

    denied: Mapping[str, str] = field(default_factory=dict)
    tombstones: tuple[Tombstone, ...] = ()

    def reason(self, record: AssetRecord) -> str:
        """Why an asset is left out, "" if it is not."""
        if any(tombstone.covers(record) for tombstone in self.tombstones):
            return TAKEN_DOWN
        benchmark = benchmark_of(record.uid, record.source_url, self.denied)
        return f"tested with by {benchmark}" if benchmark else ""

    def apply(
        self, records: Iterable[AssetRecord], leave_out: Callable[[str], object]
    ) -> Iterator[AssetRecord]:
        """The records that may come in; `leave_out` is told the reason for each of the others."""
        for record in records:
            if reason := self.reason(record):
                leave_out(reason)
            else:
                yield record
