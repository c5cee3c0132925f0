"""Plain functions that give columns, as a Ray Data source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray
from ray.data import Dataset, read_datasource
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

Columns = dict[str, Any]


class _Parts(Datasource):
    """One read task for each part."""

    def __init__(self, parts: Sequence[Callable[[], Iterable[Columns]]], rows: Sequence[int]) -> None:
        self._parts, self._rows = parts, rows

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        return [
            ReadTask(
                lambda part=part: (BlockAccessor.batch_to_block(columns) for columns in part()),
                BlockMetadata(num_rows=rows, size_bytes=None, input_files=None, exec_stats=None),
            )
            for part, rows in zip(self._parts, self._rows, strict=True)
        ]


def from_parts(parts: Sequence[Callable[[], Iterable[Columns]]], rows: Sequence[int]) -> Dataset:
    """A Ray dataset that calls each part in a task of its own, when and where Ray has room for it.

    Args:
        parts: functions that pickle; each gives blocks, dicts of arrays or lists of equal length.
        rows: how many rows each part gives in all.
    Raises:
        RuntimeError: Ray is not initialised; it would start one of its own, with a listener on the network.
    """
    if not ray.is_initialized():
        raise RuntimeError(
            "from_parts: Ray is not running in this process; do this within `cluster.connect()`"
        )
    return read_datasource(_Parts(parts, rows))
