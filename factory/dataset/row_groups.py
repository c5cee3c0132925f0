"""Fetching selected columns of Parquet row groups, ahead of their use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.parquet import AlreadyBufferedFile
from fsspec.utils import merge_offset_ranges

from factory.dataset.names import hub_errors
from factory.dataset.reader import ClipDataset
from factory.dataset.shard_file import ShardFile

_READ_AHEAD = 2  # batches whose units are fetched while the current one is decoded
_FETCHES = 4  # units fetched at a time: over a network, a small request waits longer than it transfers
_MAX_GAP = 64 * 2**10  # bytes between two ranges below which one request fetches both


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
        if isinstance(self._fs, LocalFileSystem):
            with ShardFile(name, group.path, metadata=group.footer, memory_map=True) as parquet:
                return parquet.read_row_group(group.index, list(columns))
        with hub_errors(self._clips.url):
            file = self._fetch(group.path, group.footer.row_group(group.index), set(columns))
        with ShardFile(name, file, metadata=group.footer) as parquet:
            return parquet.read_row_group(group.index, list(columns))

    def _fetch(self, path: str, row_group: pq.RowGroupMetaData, columns: set[str]) -> AlreadyBufferedFile:
        """Fetch the byte ranges of some columns; return a file object that holds these ranges only."""
        chunks = [row_group.column(index) for index in range(row_group.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
        starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
        ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
        paths, starts, ends = merge_offset_ranges([path] * len(starts), starts, ends, max_gap=_MAX_GAP)
        parts = self._fs.cat_ranges(paths, starts, ends, on_error="raise")
        data = dict(zip(zip(starts, ends, strict=True), parts, strict=True))
        return AlreadyBufferedFile(
            fs=None, path=path, mode="rb", cache_type="parts", cache_options={"data": data}, size=max(ends)
        )


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
