"""Staged clips, one small file each, become few large shards, in the order of the plan.

Below the root of a dataset:

    _factory/staged/<2 hex>/<key>.parquet   one clip, as its worker committed it (`schema.write_row`)
    data/<split>/part-<seq>.parquet         a shard: row groups of 4 clips, no compression, a page index
    _factory/shards/<split>-<seq>.json      its manifest, written last: keys, rows, bytes, sha256

Which clips share a shard follows from the plan and from what was committed, never from who finished first:
one worker, forty workers and a run that was killed and resumed write the same bytes. A shard without a
manifest is written again, to the same bytes; one with a manifest is never touched again, so later runs only
add (a takedown, `remove_clips`, is the exception). Staged clips are removed once a manifest names them.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import tempfile
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Storage, StorageError
from factory.dataset.schema import parquet_options

ROWS_PER_GROUP = 4  # what a reader of one clip reads along
TARGET_BYTES = 384 * 2**20
_STAGED = "_factory/staged"
_MANIFESTS = "_factory/shards"
_TEMPORARY = "_factory/tmp"


@dataclass(frozen=True)
class Shard:
    """A finished shard, as its manifest describes it.

    Attributes:
        path: relative to the root of the dataset. split, seq: parts of it.
        rows: clips. bytes, sha256: of the file. keys: of its clips, in row order.
    """

    path: str
    split: str
    seq: int
    rows: int
    bytes: int
    sha256: str
    keys: tuple[str, ...]


def staged_path(key: str) -> str:
    """Where the clip `key` is staged, relative to the root."""
    return f"{_STAGED}/{hashlib.sha256(key.encode()).hexdigest()[:2]}/{key}.parquet"


def read_manifests(root: str | os.PathLike[str]) -> list[Shard]:
    """The finished shards of a dataset, by split and number."""
    return _read_manifests(Storage(root, _TEMPORARY))


def packed_keys(root: str | os.PathLike[str]) -> set[str]:
    """Keys of every clip that lies in a finished shard."""
    return {key for shard in read_manifests(root) for key in shard.keys}


def staged_rows(root: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[dict]:
    """Some columns of every staged clip. What is torn was never committed and is left out."""
    files = _ShardFiles(Storage(root, _TEMPORARY))
    for name in files.storage.names(_STAGED):
        try:
            with files.open(f"{_STAGED}/{name}") as file:
                yield from pq.read_table(file, columns=list(columns)).to_pylist()
        except (OSError, pa.ArrowInvalid):
            continue


def remove_clips(root: str | os.PathLike[str], keys: Iterable[str]) -> None:
    """Remove clips, packed or staged; every other row stays bit for bit as it is.

    A shard's file is replaced first and its manifest then: stopped in between, the same call finds that they differ
    and goes on. A shard of which nothing is left is removed.

    Raises:
        StorageError: a shard that a manifest speaks of cannot be read, or a new one not be written.
    """
    files, doomed = _ShardFiles(Storage(root, _TEMPORARY)), set(keys)
    manifests = {shard.path: shard for shard in _read_manifests(files.storage)}
    on_disk = {f"data/{name}" for name in files.storage.names("data") if name.endswith(".parquet")}
    for path in sorted(on_disk | set(manifests)):
        shard = manifests.get(path)
        if shard is not None and doomed.isdisjoint(shard.keys):
            continue
        present = files.clip_ids(path) if path in on_disk else []
        kept = [key for key in present if key not in doomed]
        if shard is not None and kept != [key for key in shard.keys if key not in doomed]:
            raise StorageError(
                f"{files.storage.path(path)} has other clips than its manifest says: restore it and try again"
            )
        if not kept:
            files.storage.remove(path)
        elif kept != present:
            files.write(path, files.groups_without(path, doomed))
        if shard is None:
            continue  # its packer was stopped: the clips are staged still, and it is written again
        if kept:
            files.describe(path, shard.split, shard.seq, kept, *files.digest(path))
        else:
            files.storage.remove(_manifest_path(shard.split, shard.seq))
    for key in doomed:
        files.storage.remove(staged_path(key))


def _manifest_path(split: str, seq: int) -> str:
    return f"{_MANIFESTS}/{split}-{seq:05d}.json"


def _read_manifests(storage: Storage) -> list[Shard]:
    names = [f"{_MANIFESTS}/{name}" for name in storage.names(_MANIFESTS) if name.endswith(".json")]
    shards = []
    for name, data in storage.read_many(names).items():
        try:
            values = json.loads(data)
            shards.append(Shard(**{**values, "keys": tuple(values["keys"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"{storage.path(name)} is not a shard's manifest ({error}). Restore it; or, if the staged "
                f"clips of that shard are still there, remove it, and the shard is packed again"
            ) from None
    return sorted(shards, key=lambda shard: (shard.split, shard.seq))


class _ShardFiles:
    """The files of shards below a root; each is there completely or not at all."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._fs = fsspec.core.url_to_fs(storage.url, use_listings_cache=False)[0]

    def open(self, name: str):
        """A file to read from; raises OSError."""
        return self._fs.open(self.storage.path(name))

    def clip_ids(self, name: str) -> list[str]:
        """The clips of a shard, in row order."""
        with self._readable(name) as shard:
            return shard.read(columns=["clip_id"])["clip_id"].to_pylist()

    def groups_without(self, name: str, doomed: Collection[str]) -> Iterator[pa.Table]:
        """The rows of a shard but for some clips, in row groups as a packer makes them."""
        with self._readable(name) as shard:
            waiting = shard.schema_arrow.empty_table()
            for group in range(shard.num_row_groups):
                rows = shard.read_row_group(group)
                rows = rows.filter(pa.array([key not in doomed for key in rows["clip_id"].to_pylist()]))
                waiting = pa.concat_tables([waiting, rows])
                while len(waiting) >= ROWS_PER_GROUP:
                    yield waiting.slice(0, ROWS_PER_GROUP)
                    waiting = waiting.slice(ROWS_PER_GROUP)
            if len(waiting):
                yield waiting

    def write(self, name: str, groups: Iterable[pa.Table]) -> tuple[str, int]:
        """Put a shard in place of whatever stood there; its sha256 and size in bytes."""
        with self._unfinished(name) as path:
            writer = None
            try:
                for group in groups:
                    writer = writer or pq.ParquetWriter(path, group.schema, **parquet_options(group.schema))
                    writer.write_table(group, row_group_size=ROWS_PER_GROUP)
            finally:
                if writer is not None:
                    writer.close()
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            return sha256, os.path.getsize(path)

    def digest(self, name: str) -> tuple[str, int]:
        """sha256 and size in bytes of a shard that is there."""
        digest, size = hashlib.sha256(), 0
        with self.open(name) as file:
            while block := file.read(1 << 22):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    def describe(self, name: str, split: str, seq: int, keys: Sequence[str], sha256: str, size: int) -> Shard:
        """Write a shard's manifest."""
        shard = Shard(name, split, seq, len(keys), size, sha256, tuple(keys))
        data = json.dumps(asdict(shard), indent=1, sort_keys=True).encode()
        self.storage.write(_manifest_path(split, seq), data)
        return shard

    @contextmanager
    def _readable(self, name: str) -> Iterator[pq.ParquetFile]:
        try:
            with self.open(name) as file:
                yield pq.ParquetFile(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"the shard {self.storage.path(name)} cannot be read ({error}): restore it"
            ) from None

    @contextmanager
    def _unfinished(self, name: str) -> Iterator[str]:
        """A local path to write to; when the block is left, the file is there under `name`, complete.

        An object store takes whole files only, so a shard for one is first written to this machine.
        """
        target = self.storage.path(name)
        folder = self.storage.path(_TEMPORARY) if self.storage.is_local else tempfile.gettempdir()
        path = os.path.join(folder, f"{uuid.uuid4().hex}.parquet")
        try:
            os.makedirs(folder, exist_ok=True)
            yield path
            if self.storage.is_local:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(path, target)
            else:
                self._fs.put_file(path, target)
        except OSError as error:
            raise StorageError(
                f"cannot write the shard {target} (by way of {path}): {error.strerror or error}. Its clips "
                f"are still staged: make room or repair the storage and run the same command again"
            ) from None
        finally:
            Path(path).unlink(missing_ok=True)


@dataclass
class _Bucket:
    """Clips of one split that wait for their shard."""

    keys: list[str] = field(default_factory=list)
    bytes: int = 0


class ShardPacker:
    """Packs staged clips into shards while others are still being rendered, in one thread of its own.

    Tell it the plan and what became of each clip, in any order; it packs the longest stretch of the plan in
    which every clip is resolved, as soon as that fills a shard. Memory holds keys and one row group.

        with ShardPacker(root) as packer:
            packer.planned(0, ["a", "b"])
            packer.finished("a", committed=True)

    Leaving the block flushes the rest; leaving it by an exception does not, so that the next run, which sees
    the same plan, cuts the shards as an undisturbed run would have.

    Every method raises what went wrong in the thread: StorageError if the storage does not take a shard.
    """

    def __init__(self, root: str | os.PathLike[str], *, target_bytes: int = TARGET_BYTES) -> None:
        self._storage = Storage(root, _TEMPORARY)
        self._files = _ShardFiles(self._storage)
        self._target_bytes = target_bytes
        finished = _read_manifests(self._storage)
        self._next_seq = {shard.split: shard.seq + 1 for shard in finished}
        self._seen = {key for shard in finished for key in shard.keys}
        self._schema = self._read_schema(finished[-1].path) if finished else None

        self._plan: dict[int, list[str]] = {}
        self._next_order = 0
        self._committed: dict[str, bool] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._written: list[Shard] = []

        self._inbox: queue.SimpleQueue[tuple] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="shard-packer", daemon=True)
        self._thread.start()

    def planned(self, order: int, keys: Iterable[str]) -> None:
        """The asset at position `order` (0, 1, 2 … without gaps) gives these clips; [] if it gives none."""
        self._send(self._on_planned, order, list(keys))

    def finished(self, key: str, committed: bool) -> None:
        """The clip is staged (`committed`), or will never be."""
        self._send(self._on_finished, key, committed)

    def close(self, *, flush: bool = True) -> list[Shard]:
        """Stop the thread; with `flush`, first pack every committed clip, plan complete or not.

        Returns:
            The shards this packer wrote, in the order it wrote them. Calling it again changes nothing.
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

    def _send(self, *message: object) -> None:
        if self._error is not None:
            raise self._error
        self._inbox.put(message)

    # In the thread

    def _run(self) -> None:
        try:
            self._remove_staged(key for key in self._staged_keys() if key in self._seen)
            message = None
            while message is None or message[0] != self._on_close:
                message = self._inbox.get()
                message[0](*message[1:])
        except BaseException as error:
            self._error = error

    def _on_planned(self, order: int, keys: list[str]) -> None:
        if order < self._next_order or order in self._plan:
            raise ValueError(
                f"ShardPacker: position {order} was planned before; every asset has one of its own"
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
        while (keys := self._plan.get(self._next_order)) is not None:
            while keys:
                if keys[0] not in self._committed and keys[0] not in self._seen:
                    return
                self._add(keys.pop(0))
            del self._plan[self._next_order]
            self._next_order += 1

    def _add(self, key: str) -> None:
        """Take the next clip of the plan."""
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
        keys = self._buckets.pop(split).keys
        seq = self._next_seq.get(split, 0)
        name = f"data/{split}/part-{seq:05d}.parquet"
        groups = (
            pa.concat_tables(map(self._read_clip, keys[start : start + ROWS_PER_GROUP]))
            for start in range(0, len(keys), ROWS_PER_GROUP)
        )
        shard = self._files.describe(name, split, seq, keys, *self._files.write(name, groups))
        self._next_seq[split] = seq + 1
        self._written.append(shard)
        self._remove_staged(keys)

    def _read_clip(self, key: str) -> pa.Table:
        table, _ = self._read_staged(key)
        self._schema = self._schema or table.schema
        if not table.schema.equals(self._schema):
            raise StorageError(
                f"clip {key} has other columns than the clips already in {self._storage.url} (another number "
                f"of views, other modalities, or another version of the schema): write it into a folder of its own"
            )
        return table

    def _read_staged(self, key: str, columns: list[str] | None = None) -> tuple[pa.Table, int]:
        """A staged clip and the size of its file in bytes."""
        path = staged_path(key)
        data = self._storage.read(path)
        try:
            if data is None:
                raise FileNotFoundError("no such file")
            return pq.read_table(pa.BufferReader(data), columns=columns), len(data)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"clip {key} is committed, but {self._storage.path(path)} cannot be read ({error}). Remove "
                f"what is left of it and its commit marker, and run again: it is then rendered again"
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

    def _staged_keys(self) -> list[str]:
        return [name.rpartition("/")[2].removesuffix(".parquet") for name in self._storage.names(_STAGED)]

    def _remove_staged(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._storage.remove(staged_path(key))
