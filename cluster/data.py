"""Python functions as a Ray Data source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.data import Dataset, read_datasource
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

Columns = dict[str, Any]
Part = Callable[[], Iterable[Columns]]


class _PartsDatasource(Datasource):
    """One read task per part."""

    def __init__(self, parts: Sequence[Part], rows: Sequence[int]) -> None:
        self._parts, self._rows = parts, rows

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        return [
            ReadTask(
                _block_reader(part),
                BlockMetadata(num_rows=rows, size_bytes=None, input_files=None, exec_stats=None),
            )
            for part, rows in zip(self._parts, self._rows, strict=True)
        ]


def _block_reader(part: Part) -> Callable[[], Iterator[Block]]:
    return lambda: (BlockAccessor.batch_to_block(columns) for columns in part())


def from_parts(parts: Sequence[Part], rows: Sequence[int]) -> Dataset:
    """Create a Ray dataset that calls each part in its own read task, when and where Ray schedules it.

    Args:
        parts: picklable functions; each yields blocks, which are dicts of arrays or lists of equal length.
        rows: total number of rows of each part.

    Raises:
        RuntimeError: Ray is not initialised. Ray Data would otherwise start its own instance, which listens on all
            network interfaces.
    """
    if not ray.is_initialized():
        raise RuntimeError(
            "from_parts: Ray is not initialised in this process; call it inside `with cluster.connect():`"
        )
    return read_datasource(_PartsDatasource(parts, rows))
