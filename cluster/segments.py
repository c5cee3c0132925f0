"""Segments: files with the records of many resolved tasks, which replace their markers (`cluster.ledger`).

A segment is written once, as a whole, so object stores without an append operation suffice. Its name is
`<number>-<random>.jsonl`; the random part keeps two writers from overwriting each other. Its first line is
`{"done": <count>, "filtered": <count>, "format": 1}`, and each of the others `["<key>","<status>",<record>]`. The key
and the status come first, so that the index is built without parsing the records.

In memory, a key takes 24 bytes: its digest and the place of its record.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter, OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.digests import DigestMap
from cluster.storage import Storage, StorageError

FORMAT = 1
_HEADER_BYTES = 200  # more than the first line has
SEGMENT_RECORDS = 2048
SEGMENT_BYTES = 4 * 2**20  # a segment with this size is complete, whatever its number of records
CACHE_BYTES = 16 * 2**20
WHOLE_FROM = 16  # so many reads of single records from one segment cost more than reading all of it

# Bits of an index entry: number of the segment, offset, length, whether the status is "done".
_LENGTH_BITS, _OFFSET_BITS, _SEGMENT_BITS = 20, 23, 20
MAX_LINE = 2**_LENGTH_BITS - 1  # longer records keep their own files

PackedStatus = Literal["done", "filtered"]


@dataclass(frozen=True)
class _Place:
    segment: int  # index into `Segments._names`
    offset: int
    length: int
    done: bool

    def to_int(self) -> int:
        value = (self.segment << _OFFSET_BITS | self.offset) << _LENGTH_BITS | self.length
        return value << 1 | self.done

    @classmethod
    def from_int(cls, value: int) -> _Place:
        rest, length = divmod(value >> 1, 1 << _LENGTH_BITS)
        segment, offset = divmod(rest, 1 << _OFFSET_BITS)
        return cls(segment, offset, length, bool(value & 1))


class Segments:
    """The segments in one folder, and an index of their keys.

    If several segments have a record of a key, the last one counts, as it replaces a damaged one, but "done" counts
    before "filtered".

    Args:
        storage: the output folder.
        folder: of the segments, relative to it.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        self._clear()

    def _clear(self) -> None:
        self._names: list[str] = []
        self._index = DigestMap()
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._misses: Counter[int] = (
            Counter()
        )  # segment → records read one by one since it was last read as a whole

    @property
    def nbytes(self) -> int:
        """Memory of the index, without its recent entries."""
        return self._index.nbytes

    def refresh(self) -> None:
        """List the segments and index those that are new.

        Raises:
            StorageError: the storage cannot be read, or a newer version wrote a segment.
        """
        self._cache.clear()  # `remove` in another process changes segments
        listed = self._storage.names(self._folder)
        if not set(self._names) <= set(listed):
            self._clear()
        known = set(self._names)
        for name in listed:
            if name not in known:
                self._names.append(name)
                self._index_segment(len(self._names) - 1, self._read_segment(len(self._names) - 1))

    def __contains__(self, key: str) -> bool:
        """Whether the index has a record of the key. Only `read` checks that it is intact."""
        return key in self._index

    def statuses(self, keys: Sequence[str]) -> dict[str, PackedStatus]:
        """Return key → status of its record, for those keys that have one in the index."""
        values = zip(keys, self._index.get_many(keys), strict=True)
        return {key: "done" if value & 1 else "filtered" for key, value in values if value is not None}

    def read(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return key → JSON of the record, for those keys that have one."""
        keys = list(keys)
        values = zip(keys, self._index.get_many(keys), strict=True)
        places = {key: _Place.from_int(value) for key, value in values if value is not None}
        if not places:
            return {}
        records = self._read_places(places)
        stale = {places[key].segment for key in places.keys() - records.keys()}
        if stale:  # another process has rewritten a segment (`remove`)
            for segment in stale:
                self._reindex(segment)
            places = {key: place for key in places.keys() - records.keys() if (place := self._place(key))}
            records |= self._read_places(places)
        return records

    def __iter__(self) -> Iterator[str]:
        """Yield the keys, segment by segment, each one once."""
        for segment in range(len(self._names)):
            data = self._read_segment(segment)
            for key, _, offset, _ in _lines(data):
                place = self._place(key)
                if place is not None and (place.segment, place.offset) == (segment, offset):
                    yield key

    def append(self, records: Mapping[str, tuple[PackedStatus, bytes]]) -> None:
        """Write a segment.

        Args:
            records: key → status and JSON of the record, which has no line break.

        Raises:
            StorageError: it could not be written. Nothing has changed.
        """
        numbers = [int(name.partition("-")[0]) for name in self._names if name.partition("-")[0].isdigit()]
        name = f"{max(numbers, default=-1) + 1:08d}-{uuid.uuid4().hex[:8]}.jsonl"
        data = _to_bytes(records)
        self._storage.write(f"{self._folder}/{name}", data)
        self._names.append(name)
        self._index_segment(len(self._names) - 1, data)

    def remove(self, keys: Iterable[str]) -> None:
        """Delete the records of some keys by rewriting the segments that have them.

        Raises:
            StorageError: a segment could not be written; call this again.
        """
        # A key may be in several segments, so that all are searched, not only the indexed ones.
        removed = set(keys)
        for segment, name in enumerate(list(self._names)):
            data = self._read_segment(segment)
            lines = [
                (key, status, data[offset : offset + length]) for key, status, offset, length in _lines(data)
            ]
            if removed.isdisjoint(key for key, _, _ in lines):
                continue
            kept = {
                key: (status, record)
                for key, status, line in lines
                if key not in removed and (record := _record_of(line, key)) is not None
            }
            self._storage.write(f"{self._folder}/{name}", _to_bytes(kept))
            self._reindex(segment)
        for key in removed:
            self._index.discard(key)

    def discard(self, key: str) -> None:
        """Forget a key in this process, since its record is damaged."""
        self._index.discard(key)

    # --- Reading and indexing -----------------------------------------------------------------------------

    def _place(self, key: str) -> _Place | None:
        value = self._index.get(key)
        return None if value is None else _Place.from_int(value)

    def _read_segment(self, segment: int) -> bytes:
        """Content of a segment; empty if it no longer exists."""
        if segment in self._cache:
            self._cache.move_to_end(segment)
            return self._cache[segment]
        data = self._storage.read(f"{self._folder}/{self._names[segment]}") or b""
        self._cache[segment] = data
        self._misses.pop(segment, None)
        while len(self._cache) > 1 and sum(map(len, self._cache.values())) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return data

    def _read_places(self, places: Mapping[str, _Place]) -> dict[str, bytes]:
        """Read some records, from whole segments where that takes fewer requests."""
        self._misses.update(place.segment for place in places.values() if place.segment not in self._cache)
        whole = {segment for segment, count in self._misses.items() if count >= WHOLE_FROM} | set(self._cache)
        lines = {}
        for key, place in sorted(places.items(), key=lambda item: item[1].segment):
            if place.segment in whole:
                lines[key] = self._read_segment(place.segment)[place.offset : place.offset + place.length]
        single = [key for key in places if key not in lines]
        if single:
            ranges = [
                (f"{self._folder}/{self._names[place.segment]}", place.offset, place.offset + place.length)
                for place in (places[key] for key in single)
            ]
            lines |= dict(zip(single, self._storage.read_ranges(ranges), strict=True))
        return {key: record for key, line in lines.items() if (record := _record_of(line, key)) is not None}

    def _reindex(self, segment: int) -> None:
        """Read a segment that has been rewritten. Keys that it lost are found out when they are read."""
        self._cache.pop(segment, None)
        data = self._read_segment(segment)
        for key, _, _, _ in _lines(data):
            place = self._place(key)
            if place is not None and place.segment == segment:
                self._index.discard(key)
        self._index_segment(segment, data)

    def _index_segment(self, segment: int, data: bytes) -> None:
        _check_format(data, f"{self._storage.url}/{self._folder}/{self._names[segment]}")
        places = {
            key: _Place(segment, offset, length, status == "done")
            for key, status, offset, length in _lines(data)
            if length <= MAX_LINE and offset < 1 << _OFFSET_BITS and segment < 1 << _SEGMENT_BITS
        }
        earlier = self._index.get_many(list(places))
        better = {
            key: place.to_int()
            for (key, place), value in zip(places.items(), earlier, strict=True)
            if value is None or place.done or not value & 1
        }
        self._index.update(list(better), list(better.values()))


def count_records(storage: Storage, folder: str, unpacked: Container[str]) -> Counter[PackedStatus]:
    """Count the records in segments by status, from the first lines of the files.

    Args:
        storage, folder: see `Segments`.
        unpacked: keys that have a marker as well and are not counted, if they are in one of the last two segments: a
            driver that is killed leaves the markers of the newest one.
    """
    names = [f"{folder}/{name}" for name in storage.names(folder)]
    total: Counter[PackedStatus] = Counter()
    for data in storage.read_ranges([(name, 0, _HEADER_BYTES) for name in names[:-2]]):
        total.update(_header_counts(data))
    for data in storage.read_many(names[-2:]).values():
        total.update(status for key, status, _, _ in _lines(data) if key not in unpacked)
    return total


def packed_line(key: str, status: PackedStatus, record: bytes) -> bytes:
    """The line of a record."""
    return b'["%s","%s",%s]' % (key.encode(), status.encode(), record)


def _header_counts(data: bytes) -> dict[PackedStatus, int]:
    """Status → number of records, from the first line of a segment; empty if it is damaged."""
    try:
        header = json.loads(data.partition(b"\n")[0])
        return {"done": int(header["done"]), "filtered": int(header["filtered"])}
    except (ValueError, TypeError, KeyError):
        return {}


def _to_bytes(records: Mapping[str, tuple[PackedStatus, bytes]]) -> bytes:
    counts = Counter(status for status, _ in records.values())
    header = {"format": FORMAT, "done": counts["done"], "filtered": counts["filtered"]}
    lines = [packed_line(key, *records[key]) for key in sorted(records)]
    return b"".join(line + b"\n" for line in [json.dumps(header, sort_keys=True).encode(), *lines])


def _check_format(data: bytes, name: str) -> None:
    try:
        header = json.loads(data.partition(b"\n")[0])
    except ValueError:
        return  # damaged, so its tasks may be processed again
    if isinstance(header, dict) and isinstance(header.get("format"), int) and header["format"] > FORMAT:
        raise StorageError(
            f"{name} has format {header['format']}, expected at most {FORMAT}: it was written by a newer version; "
            f"upgrade this package"
        )


def _lines(data: bytes) -> Iterator[tuple[str, PackedStatus, int, int]]:
    """Yield key, status, offset and length of every record. Damaged lines are skipped."""
    offset = data.find(b"\n") + 1
    if not offset:
        return
    for line in data[offset:].split(b"\n"):
        parts = line.split(b'"', 4)
        if len(parts) == 5 and parts[0] == b"[" and parts[3] in (b"done", b"filtered"):
            key = parts[1].decode(errors="replace")
            yield key, "done" if parts[3] == b"done" else "filtered", offset, len(line)
        offset += len(line) + 1


def _record_of(line: bytes, key: str) -> bytes | None:
    """The JSON of the record in a line; None if the line is not of this key."""
    prefix = b'["%s","' % key.encode()
    status, separator, record = line[len(prefix) :].partition(b'",')
    if not line.startswith(prefix) or not separator or status not in (b"done", b"filtered"):
        return None
    return record[:-1] if record.endswith(b"]") else None
