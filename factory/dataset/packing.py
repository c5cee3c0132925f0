"""Packing staged clips into shards while others are still being rendered.

Which clips share a shard follows from the plan and from which clips were committed, never from the order in which
workers finish. One worker, forty workers, and a run that was killed and resumed therefore write the same bytes. A
shard without a manifest is written again, to the same bytes. Staged clips are removed once a manifest lists them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.arguments import integer, location, text, texts
from cluster.storage import Storage, StorageError
from factory.dataset.conversion import convert_clips
from factory.dataset.shard_file import read_table
from factory.dataset.shards import Shard, ShardFiles, staged_keys, staged_path
from renderers.arguments import flag

TARGET_BYTES = 384 * 2**20


_Message = tuple[Callable[..., None], *tuple[object, ...]]


@dataclass
class _Bucket:
    """Clips of one split that will go into the next shard."""

    keys: list[str] = field(default_factory=list)
    bytes: int = 0


class ShardPacker:
    """Packs staged clips into shards in a background thread.

    It receives the plan and the result of each clip, in any order. As soon as the resolved clips at the start of the
    plan fill a shard, it packs them. It holds only keys and one clip in memory.

        with ShardPacker(root) as packer:
            packer.planned(0, ["a", "b"])
            packer.finished("a", committed=True)

    Leaving the block packs the remaining clips. Leaving it with an exception does not, so that the next run, which has
    the same plan, forms the same shards as an uninterrupted run.

    Every method raises errors of the thread, e.g. StorageError if a shard cannot be written.

    Args:
        root: folder or URL of the dataset.
        target_bytes: a shard is complete when its staged clips reach this size.
    """

    def __init__(self, root: str | os.PathLike[str], *, target_bytes: int = TARGET_BYTES) -> None:
        self._storage = Storage(location(root, "ShardPacker: root"))
        self._files = ShardFiles(self._storage)
        self._target_bytes = integer(target_bytes, "ShardPacker: target_bytes", 1)
        finished = self._files.read_manifests()
        self._next_seq = {shard.split: shard.seq + 1 for shard in finished}
        self._seen = {key for shard in finished for key in shard.keys}
        self._schema = self._read_schema(finished[-1].path) if finished else None

        self._plan: dict[int, list[str]] = {}
        self._next_order = 0
        self._committed: dict[str, bool] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._written: list[Shard] = []

        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="shard-packer", daemon=True)
        self._thread.start()

    def planned(self, order: int, keys: Iterable[str]) -> None:
        """Announce the clips of an asset.

        Args:
            order: position of the asset in the plan: 0, 1, 2 … without gaps.
            keys: of its clips; empty if it has none.
        """
        order = integer(order, "ShardPacker.planned: order", 0)
        self._send(self._on_planned, order, texts(keys, "ShardPacker.planned: keys"))

    def finished(self, key: str, committed: bool) -> None:
        """Report the result of a clip: it is staged (`committed`), or will never be."""
        text(key, "ShardPacker.finished: key")
        self._send(self._on_finished, key, flag(committed, "ShardPacker.finished: committed"))

    def close(self, *, flush: bool = True) -> list[Shard]:
        """Stop the thread. Further calls have no effect.

        Args:
            flush: first pack every committed clip, even if the plan is incomplete.

        Returns:
            The shards that this packer wrote, in writing order.
        """
        if self._thread.is_alive():
            self._inbox.put((self._on_close, flush))
            self._thread.join()
        if self._error is not None:
            raise self._error
        return list(self._written)

    def __enter__(self) -> ShardPacker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self._inbox.put((self._on_close, False))
            self._thread.join()

    def _send(self, method: Callable[..., None], *arguments: object) -> None:
        if self._error is not None:
            raise self._error
        self._inbox.put((method, *arguments))

    # --- executed in the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            # A previous run may have stopped between writing a manifest and removing its staged clips.
            self._remove_staged(key for key in staged_keys(self._storage) if key in self._seen)
            method: Callable[..., None] | None = None
            while method != self._on_close:
                method, *arguments = self._inbox.get()
                method(*arguments)
        except BaseException as error:
            self._error = error

    def _on_planned(self, order: int, keys: list[str]) -> None:
        if order < self._next_order or order in self._plan:
            raise ValueError(
                f"ShardPacker: position {order} was planned before; every asset needs its own position"
            )
        self._plan[order] = keys
        self._advance()

    def _on_finished(self, key: str, committed: bool) -> None:
        if key not in self._seen:
            self._committed[key] = committed
        self._advance()

    def _on_close(self, flush: bool) -> None:
        if not flush:
            return
        for order in sorted(self._plan):
            for key in self._plan[order]:
                self._add(key)
        for split in sorted(self._buckets):
            self._pack(split)

    def _advance(self) -> None:
        """Take clips from the start of the plan until one is unresolved."""
        while (keys := self._plan.get(self._next_order)) is not None:
            while keys:
                if keys[0] not in self._committed and keys[0] not in self._seen:
                    return
                self._add(keys.pop(0))
            del self._plan[self._next_order]
            self._next_order += 1

    def _add(self, key: str) -> None:
        """Add the next clip of the plan to its shard, if it was committed."""
        committed = self._committed.pop(key, False)
        if key in self._seen or not committed:
            return
        self._seen.add(key)
        table, size = self._read_staged(key, columns=["split"])
        split = table["split"][0].as_py()
        bucket = self._buckets.setdefault(split, _Bucket())
        bucket.keys.append(key)
        bucket.bytes += size
        if bucket.bytes >= self._target_bytes:
            self._pack(split)

    def _pack(self, split: str) -> None:
        """Write the pending clips of a split as a shard."""
        keys = self._buckets.pop(split).keys
        seq = self._next_seq.get(split, 0)
        name = f"data/{split}/part-{seq:05d}.parquet"
        written = self._files.write(name, map(self._read_clip, keys))
        shard = self._files.describe(name, split, seq, keys, *written)
        self._next_seq[split] = seq + 1
        self._written.append(shard)
        self._remove_staged(keys)

    def _read_clip(self, key: str) -> pa.Table:
        table, _ = self._read_staged(key)
        self._schema = self._schema or table.schema
        if not table.schema.equals(self._schema):
            table = convert_clips(table, self._schema)  # of another version of the schema
        if not table.schema.equals(self._schema):
            raise StorageError(
                f"clip {key} has other columns than the clips already in {self._storage.url} (another number "
                f"of views or other modalities): use a separate output folder"
            )
        return table

    def _read_staged(self, key: str, columns: list[str] | None = None) -> tuple[pa.Table, int]:
        """Return columns of a staged clip, and the size of its file in bytes."""
        path = staged_path(key)
        data = self._storage.read(path)
        try:
            if data is None:
                raise FileNotFoundError("no such file")
            return read_table(data, columns), len(data)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"clip {key} is committed, but {self._storage.path(path)} cannot be read ({error}). Remove "
                f"the file and the clip's ledger record, and run again to render it again"
            ) from None

    def _read_schema(self, name: str) -> pa.Schema:
        try:
            with self._files.open(name) as file:
                return pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"{self._storage.path(name)} has a manifest but cannot be read ({error}): restore it before "
                f"adding clips to this dataset"
            ) from None

    def _remove_staged(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._storage.remove(staged_path(key))
