"""Assets excluded regardless of licence: benchmark test objects and assets that were taken down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.assets.record import AssetRecord
from factory.assets.tombstones import Tombstone

BENCHMARKS = Path(__file__).with_name("benchmark_deny_list.txt")
TAKEN_DOWN = "taken down"
_UID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")  # uid format of Sketchfab and Objaverse


class DenyListError(ValueError):
    """A deny-list file cannot be read. The message names the file."""


def read_deny_list(*files: str | Path) -> dict[str, str]:
    """Read deny-list files into a mapping from uid to benchmark name.

    Each line holds one uid, optionally followed by a space and the name of the benchmark that uses the object
    (default: the file's stem). `#` starts a comment.

    Args:
        files: paths of UTF-8 text files. A later file overrides an earlier one.

    Returns:
        uid → benchmark name.

    Raises:
        DenyListError: a file does not exist or is not UTF-8 text.
    """
    denied: dict[str, str] = {}
    for file in map(Path, files):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DenyListError(
                f"deny-list {file}: {error}; expected a text file with one uid per line"
            ) from None
        for line in lines:
            uid, _, benchmark = line.partition("#")[0].strip().partition(" ")
            if uid:
                denied[uid] = benchmark.strip() or file.stem
    return denied


def benchmark_of(uid: str, source_url: str, denied: Mapping[str, str]) -> str:
    """Return the benchmark that uses an asset as a test object, or "" if there is none.

    Besides the uid itself, 32-digit hexadecimal ids inside the uid and the URL are looked up, because the file names
    of downloads usually contain the original id.

    Args:
        uid: the asset's uid.
        source_url: URL of the asset's page; may be "".
        denied: uid → benchmark name, as returned by `read_deny_list`.
    """
    for name in (uid, *_UID.findall(uid.lower()), *_UID.findall(source_url.lower())):
        if name in denied:
            return denied[name]
    return ""


@dataclass(frozen=True)
class Exclusions:
    """Exclusion rules, applied to every record before its files are fetched.

    Attributes:
        denied: uid → benchmark name.
        tombstones: tombstones of the output dataset.
    """

    denied: Mapping[str, str] = field(default_factory=dict)
    tombstones: tuple[Tombstone, ...] = ()

    def reason(self, record: AssetRecord) -> str:
        """Return why a record is excluded, or "" if it is not."""
        if any(tombstone.covers(record) for tombstone in self.tombstones):
            return TAKEN_DOWN
        benchmark = benchmark_of(record.uid, record.source_url, self.denied)
        return f"tested with by {benchmark}" if benchmark else ""

    def apply(
        self,
        records: Iterable[AssetRecord],
        leave_out: Callable[[str], object],
        left_out: Callable[[AssetRecord, str], object] | None = None,
    ) -> Iterator[AssetRecord]:
        """Yield the records that are not excluded; for every other one, call `leave_out(reason)` to count it and
        `left_out(record, reason)` to list it.
        """
        for record in records:
            if reason := self.reason(record):
                leave_out(reason)
                if left_out:
                    left_out(record, reason)
            else:
                yield record
