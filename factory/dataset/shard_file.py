"""A shard opened for reading, whose errors name the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class DatasetError(ValueError):
    """A file of a dataset cannot be read. The message names the file and the cause."""


class ShardFile(pq.ParquetFile):
    """A Parquet file whose damaged pages are reported with the file's name and what to do.

    Args:
        name: of the shard and its dataset, for messages.
        args, options: of `pyarrow.parquet.ParquetFile`.

    Raises:
        DatasetError: from `read` and `read_row_group`.
    """

    def __init__(self, name: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._name = name

    def read(self, *args: Any, **options: Any) -> pa.Table:
        return self._reported(super().read, *args, **options)

    def read_row_group(self, *args: Any, **options: Any) -> pa.Table:
        return self._reported(super().read_row_group, *args, **options)

    def _reported(self, read: Callable[..., pa.Table], *args: Any, **options: Any) -> pa.Table:
        try:
            return read(*args, **options)
        except (pa.ArrowException, OSError) as error:
            # Arrow raises a plain OSError without a number for damaged pages; others are those of the file system.
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise
            raise DatasetError(damaged(self._name, error)) from error


def damaged(name: str, error: Exception, advice: str | None = None) -> str:
    """The message for a shard that cannot be read. `advice`: what to do, by default for a shard packed here."""
    reason = " ".join(str(error).split())
    advice = (
        advice
        or "compare its size and sha256 with its manifest in _factory/shards, and download or pack it again"
    )
    return f"{name} cannot be read ({reason}): it is incomplete or damaged; {advice}"
