"""A mapping from task keys to integers that needs 24 bytes per key, for jobs with millions of tasks."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

ABSENT = 2**64 - 1  # the value of a deleted key


class DigestMap:
    """Maps keys to integers in [0, 2**64 - 2]. A key is known by 128 bits of its BLAKE2 hash only.

    New entries are collected in a dict of at most `RECENT` entries. A full dict becomes a chunk: sorted arrays of the
    two halves of the digests and of the values. Chunks of similar size are merged, so there are O(log n) of them.
    NumPy is imported with the first chunk: small jobs and child processes do without it.
    """

    RECENT = 8192

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._chunks: list[
            _Chunk
        ] = []  # from the oldest to the newest, each at least twice as large as the next

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __setitem__(self, key: str, value: int) -> None:
        self._recent[_digest(key)] = value
        if len(self._recent) >= self.RECENT:
            self._add(_Chunk.of(self._recent))
            self._recent = {}

    def get(self, key: str) -> int | None:
        """Return the value of a key; None if it has none."""
        if not self._recent and not self._chunks:
            return None
        digest = _digest(key)
        value = self._recent.get(digest)
        for chunk in reversed(self._chunks) if value is None else ():
            if (value := chunk.get(digest)) is not None:
                break
        return None if value == ABSENT else value

    def discard(self, key: str) -> None:
        """Delete a key if it is present."""
        if key in self:
            self[key] = ABSENT

    def get_many(self, keys: Sequence[str]) -> list[int | None]:
        """Return the value of every key, None where there is none. Faster than `get` for hundreds of keys."""
        if not self._recent and not self._chunks:
            return [None] * len(keys)
        if len(keys) < 8:
            return [self.get(key) for key in keys]
        digests = [_digest(key) for key in keys]
        values = [self._recent.get(digest) for digest in digests]
        for chunk in reversed(self._chunks):
            missing = [place for place, value in enumerate(values) if value is None]
            found = chunk.get_many([digests[place] for place in missing])
            for place, value in zip(missing, found, strict=True):
                values[place] = value
        return [None if value == ABSENT else value for value in values]

    def update(self, keys: Sequence[str], values: Sequence[int]) -> None:
        """Set the values of different keys. Faster than one assignment each for thousands of keys."""
        if len(keys) < self.RECENT // 16:
            for key, value in zip(keys, values, strict=True):
                self[key] = value
            return
        if self._recent:
            self._add(_Chunk.of(self._recent))
            self._recent = {}
        self._add(_Chunk.of(dict(zip(map(_digest, keys), values, strict=True))))

    @property
    def nbytes(self) -> int:
        """Size of the arrays, without the dict of recent entries."""
        return sum(chunk.nbytes for chunk in self._chunks)

    def _add(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        while len(self._chunks) > 1 and len(self._chunks[-2]) < 2 * len(self._chunks[-1]):
            newer, older = self._chunks.pop(), self._chunks.pop()
            self._chunks.append(older.merged(newer, drop_absent=not self._chunks))


class _Chunk:
    """Sorted digests and their values. `high`, `low`: the halves of the digests, big-endian; all arrays are uint64."""

    def __init__(self, high: Any, low: Any, values: Any) -> None:
        self.high, self.low, self.values = high, low, values

    @classmethod
    def of(cls, entries: dict[bytes, int]) -> _Chunk:
        import numpy as np

        halves = np.frombuffer(b"".join(entries), ">u8").astype(np.uint64).reshape(-1, 2)
        values = np.fromiter(entries.values(), np.uint64, len(entries))
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        return cls(halves[order, 0], halves[order, 1], values[order])

    def __len__(self) -> int:
        return len(self.high)

    @property
    def nbytes(self) -> int:
        return self.high.nbytes + self.low.nbytes + self.values.nbytes

    def get(self, digest: bytes) -> int | None:
        high, low = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
        highs = self.high
        index = int(highs.searchsorted(highs.dtype.type(high)))
        while index < len(highs) and highs[index] == high:
            if self.low[index] == low:
                return int(self.values[index])
            index += 1
        return None

    def get_many(self, digests: Sequence[bytes]) -> list[int | None]:
        import numpy as np

        if not digests:
            return []
        halves = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 2)
        places = np.minimum(self.high.searchsorted(halves[:, 0]), len(self.high) - 1)
        same_high = self.high[places] == halves[:, 0]
        same = same_high & (self.low[places] == halves[:, 1])
        values: list[int | None] = [
            value if hit else None
            for value, hit in zip(self.values[places].tolist(), same.tolist(), strict=True)
        ]
        for place in np.flatnonzero(same_high & ~same).tolist():  # two digests with the same first half
            values[place] = self.get(digests[place])
        return values

    def merged(self, newer: _Chunk, *, drop_absent: bool) -> _Chunk:
        """Merge with a newer chunk, whose values replace those of this one."""
        import numpy as np

        high = np.concatenate([newer.high, self.high])
        low = np.concatenate([newer.low, self.low])
        order = np.lexsort((low, high))  # stable: of two equal digests, the newer one is first
        high, low = high[order], low[order]
        keep = np.ones(len(high), bool)
        keep[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        values = np.concatenate([newer.values, self.values])[order]
        if drop_absent:
            keep &= values != np.uint64(ABSENT)
        return _Chunk(high[keep], low[keep], values[keep])


# A key is looked up several times in a row: is it listed, where is its record, was it handed out.
@functools.lru_cache(maxsize=4096)
def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
