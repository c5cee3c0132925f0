"""Parquet files opened for reading: on the calling thread, with errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.parquet import AlreadyBufferedFile
from fsspec.utils import merge_offset_ranges

_MAX_GAP = 64 * 2**10  # bytes between two ranges below which one request fetches both


class DatasetError(ValueError):
    """A file of a dataset cannot be read. The message names the file and the cause."""


class ShardFile(pq.ParquetFile):
    """A Parquet file that is read on the calling thread, and whose damaged pages are reported with its name.

    With Arrow's own threads, one of them may hold the last reference to the bytes or the file object of Python that
    it reads from. If the interpreter ends just then, the process aborts ("terminate called without an active
    exception"), and its exit code hides the actual error.

    Args:
        name: of the shard and its dataset, for messages.
        args, options: of `pyarrow.parquet.ParquetFile`.

    Raises:
        DatasetError: from `read` and `read_row_group`.
    """

    def __init__(self, name: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, pre_buffer=False, **options)
        self._name = name

    def read(self, *args: Any, **options: Any) -> pa.Table:
        return self._reported(super().read, *args, use_threads=False, **options)

    def read_row_group(self, *args: Any, **options: Any) -> pa.Table:
        return self._reported(super().read_row_group, *args, use_threads=False, **options)

    def _reported(self, read: Callable[..., pa.Table], *args: Any, **options: Any) -> pa.Table:
        try:
            return read(*args, **options)
        except (pa.ArrowException, OSError) as error:
            # Arrow raises a plain OSError without a number for damaged pages; others are those of the file system.
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise
            raise DatasetError(damaged(self._name, error)) from error


def read_table(source: Any, columns: Collection[str] | None = None) -> pa.Table:
    """Read a small Parquet file on the calling thread (see `ShardFile`).

    Args:
        source: its bytes, or a file object.
        columns: to read; None = all.

    Raises:
        OSError, pyarrow.ArrowInvalid: it is no complete Parquet file.
    """
    source = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(source, pre_buffer=False) as file:
        return file.read(None if columns is None else list(columns), use_threads=False)


def open_columns(
    name: str,
    filesystem: AbstractFileSystem,
    path: str,
    footer: pq.FileMetaData,
    groups: Collection[int],
    columns: Collection[str],
) -> ShardFile:
    """Open a shard to read some columns of some row groups, and nothing else.

    A local file is memory-mapped. From elsewhere, the byte ranges are fetched with concurrent requests first.

    Args:
        name: of the shard and its dataset, for messages.
        filesystem, path: of the shard.
        footer: of the shard.
        groups: numbers of the row groups.
        columns: names; those that the shard does not have are ignored.
    """
    if isinstance(filesystem, LocalFileSystem):
        return ShardFile(name, path, metadata=footer, memory_map=True)
    row_groups = [footer.row_group(group) for group in groups]
    chunks = [group.column(index) for group in row_groups for index in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chunks]
    ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
    paths, starts, ends = merge_offset_ranges([path] * len(starts), starts, ends, max_gap=_MAX_GAP)
    parts = filesystem.cat_ranges(paths, starts, ends, on_error="raise")
    data = dict(zip(zip(starts, ends, strict=True), parts, strict=True))
    file = AlreadyBufferedFile(
        fs=None,
        path=path,
        mode="rb",
        cache_type="parts",
        cache_options={"data": data},
        size=max(ends, default=0),
    )
    return ShardFile(name, file, metadata=footer)


def damaged(name: str, error: Exception, advice: str | None = None) -> str:
    """The message for a shard that cannot be read. `advice`: what to do, by default for a shard packed here."""
    reason = " ".join(str(error).split())
    advice = (
        advice
        or "compare its size and sha256 with its manifest in _factory/shards, and download or pack it again"
    )
    return f"{name} cannot be read ({reason}): it is incomplete or damaged; {advice}"
