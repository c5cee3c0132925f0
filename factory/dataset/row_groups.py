"""Fetching selected columns of Parquet row groups, ahead of their use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from factory.dataset.names import hub_errors
from factory.dataset.reader import ClipDataset
from factory.dataset.shard_file import open_columns

_READ_AHEAD = 2  # batches whose units are fetched while the current one is decoded
_FETCHES = 4  # units fetched at a time: over a network, a small request waits longer than it transfers


class RowGroupReader:
    """Reads columns of a row group: memory-mapped if the file is local, otherwise with concurrent range requests."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips
        self._fs = clips.filesystem
        if not isinstance(self._fs, LocalFileSystem):
            # Connections do not survive a fork; fsspec caches instances per process.
            self._fs = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options)

    def read(self, index: int, columns: Collection[str]) -> pa.Table:
        """Read columns of row group number `index` of the dataset."""
        group = self._clips.row_groups[index]
        name = f"{group.path} of {self._clips.url}"
        with hub_errors(self._clips.url):
            parquet = open_columns(name, self._fs, group.path, group.footer, [group.index], set(columns))
        with parquet:
            return parquet.read_row_group(group.index, list(columns))


def prefetch(
    batches: Sequence[Sequence[int]], fetch: Callable[[int], pa.Table]
) -> Iterator[dict[int, pa.Table]]:
    """Yield the tables of each batch, fetching the next batches in background threads.

    Args:
        batches: for each batch, the unit of each of its samples.
        fetch: reads the table of a unit. Called once per unit; the table is released after its last sample.
    """
    samples_left = Counter(unit for batch in batches for unit in batch)
    tables: dict[int, Future[pa.Table]] = {}
    with ThreadPoolExecutor(_FETCHES) as pool:
        for place, batch in enumerate(batches):
            for upcoming in batches[place : place + 1 + _READ_AHEAD]:
                for unit in upcoming:
                    if unit not in tables:
                        tables[unit] = pool.submit(fetch, unit)
            yield {unit: tables[unit].result() for unit in batch}
            for unit in batch:
                samples_left[unit] -= 1
                if not samples_left[unit]:
                    tables.pop(unit)
