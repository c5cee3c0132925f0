"""The shard files of a dataset and their manifests.

Below the root of a dataset:

    _factory/staged/<2 hex>/<key>.parquet   one clip, as committed by its worker (`factory.dataset.schema.write_row`)
    data/<split>/part-<seq>.parquet         a shard: a row group per clip (until 0.1: 4 clips), uncompressed, page index
    _factory/shards/<split>-<seq>.json      its manifest, written last: keys, rows, bytes, sha256

A shard with a manifest is final: later runs only add shards, and only a takedown (`remove_clips`) replaces one.
`factory.dataset.packing` packs staged clips into shards.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.arguments import location, task_key_text
from cluster.storage import Storage, StorageError
from factory.dataset.schema import parquet_options
from factory.dataset.shard_file import read_table

_STAGED = "_factory/staged"
_MANIFESTS = "_factory/shards"


@dataclass(frozen=True)
class Shard:
    """A finished shard, as described by its manifest.

    Attributes:
        path: relative to the root of the dataset.
        split: of its clips.
        seq: number within the split.
        rows: number of clips.
        bytes: size of the file.
        sha256: of the file, hexadecimal.
        keys: clip_id of each clip, in row order.
    """

    path: str
    split: str
    seq: int
    rows: int
    bytes: int
    sha256: str
    keys: tuple[str, ...]


def staged_path(key: str) -> str:
    """Path of a staged clip, relative to the root of the dataset."""
    task_key_text(key, "staged_path: key")
    return f"{_STAGED}/{hashlib.sha256(key.encode()).hexdigest()[:2]}/{key}.parquet"


def staged_keys(storage: Storage) -> list[str]:
    """Return the keys of all staged clips."""
    return [name.rpartition("/")[2].removesuffix(".parquet") for name in storage.names(_STAGED)]


def read_manifests(root: str | os.PathLike[str]) -> list[Shard]:
    """Read the manifests of all finished shards, sorted by split and number."""
    return ShardFiles(Storage(root)).read_manifests()


def packed_keys(root: str | os.PathLike[str]) -> set[str]:
    """Return the keys of all clips in finished shards."""
    return {key for shard in read_manifests(location(root, "packed_keys: root")) for key in shard.keys}


def staged_rows(root: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some columns of every staged clip. Unreadable files were never committed and are skipped."""
    files = ShardFiles(Storage(root))
    for name in files.storage.names(_STAGED):
        try:
            with files.open(f"{_STAGED}/{name}") as file:
                yield from read_table(file, columns).to_pylist()
        except (OSError, pa.ArrowInvalid):
            continue


def remove_clips(root: str | os.PathLike[str], keys: Iterable[str]) -> None:
    """Remove clips, packed or staged. All other rows remain bit-identical.

    A shard is replaced before its manifest. If the process stops in between, the same call detects the difference and
    continues. A shard without remaining clips is removed.

    Raises:
        StorageError: a shard with a manifest cannot be read, or a new one cannot be written.
    """
    files, removed = ShardFiles(Storage(root)), set(keys)
    manifests = {shard.path: shard for shard in files.read_manifests()}
    on_disk = {f"data/{name}" for name in files.storage.names("data") if name.endswith(".parquet")}
    for path in sorted(on_disk | set(manifests)):
        shard = manifests.get(path)
        if shard is not None and removed.isdisjoint(shard.keys):
            continue
        present = files.clip_ids(path) if path in on_disk else []
        kept = [key for key in present if key not in removed]
        if shard is not None and kept != [key for key in shard.keys if key not in removed]:
            raise StorageError(
                f"{files.storage.path(path)} has other clips than its manifest lists: restore it and try again"
            )
        if not kept:
            files.storage.remove(path)
        elif kept != present:
            files.write(path, files.groups_without(path, removed))
        if shard is None:
            continue  # its packer was interrupted; the clips are still staged and will be packed again
        if kept:
            files.describe(path, shard.split, shard.seq, kept, *files.digest(path))
        else:
            files.storage.remove(_manifest_path(shard.split, shard.seq))
    for key in removed:
        files.storage.remove(staged_path(key))


def _manifest_path(split: str, seq: int) -> str:
    return f"{_MANIFESTS}/{split}-{seq:05d}.json"


class ShardFiles:
    """Reading and writing the shard files of a dataset. Files appear complete or not at all.

    Args:
        storage: the root of the dataset.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._fs = fsspec.core.url_to_fs(storage.url, use_listings_cache=False)[0]

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            OSError: the file does not exist or cannot be read.
        """
        return self._fs.open(self.storage.path(name))

    def clip_ids(self, name: str) -> list[str]:
        """Return the clip_id of every clip of a shard, in row order."""
        with self._readable(name) as shard:
            return shard.read(["clip_id"], use_threads=False)["clip_id"].to_pylist()

    def groups_without(self, name: str, removed: Collection[str]) -> Iterator[pa.Table]:
        """Yield the clips of a shard except some, one table per clip."""
        with self._readable(name) as shard:
            for group in range(shard.num_row_groups):
                rows = shard.read_row_group(group, use_threads=False)
                for row, key in enumerate(rows["clip_id"].to_pylist()):
                    if key not in removed:
                        yield rows.slice(row, 1)

    def write(self, name: str, groups: Iterable[pa.Table]) -> tuple[str, int]:
        """Write a shard, replacing an existing file.

        Args:
            name: path relative to the root.
            groups: one table per row group: a clip, so that it is read without its neighbours.

        Returns:
            sha256 (hexadecimal) and size in bytes.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._unfinished(name) as path:
            writer = None
            try:
                for group in groups:
                    writer = writer or pq.ParquetWriter(path, group.schema, **parquet_options(group.schema))
                    writer.write_table(group, row_group_size=len(group))
            finally:
                if writer is not None:
                    writer.close()
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            return sha256, os.path.getsize(path)

    def digest(self, name: str) -> tuple[str, int]:
        """Return sha256 (hexadecimal) and size in bytes of an existing shard."""
        digest, size = hashlib.sha256(), 0
        with self.open(name) as file:
            while block := file.read(1 << 22):
                digest.update(block)
                size += len(block)
        return digest.hexdigest(), size

    def describe(self, name: str, split: str, seq: int, keys: Sequence[str], sha256: str, size: int) -> Shard:
        """Write the manifest of a shard.

        Args:
            name: path of the shard, relative to the root.
            split: of its clips.
            seq: number within the split.
            keys: clip_id of each clip, in row order.
            sha256: of the file.
            size: of the file, bytes.
        """
        shard = Shard(name, split, seq, len(keys), size, sha256, tuple(keys))
        data = json.dumps(asdict(shard), indent=1, sort_keys=True).encode()
        self.storage.write(_manifest_path(split, seq), data)
        return shard

    def read_manifests(self) -> list[Shard]:
        """Read the manifests of all finished shards, sorted by split and number.

        Raises:
            StorageError: a manifest is damaged.
        """
        names = [f"{_MANIFESTS}/{name}" for name in self.storage.names(_MANIFESTS) if name.endswith(".json")]
        shards = []
        for name, data in self.storage.read_many(names).items():
            try:
                values = json.loads(data)
                shards.append(Shard(**{**values, "keys": tuple(values["keys"])}))
            except (ValueError, TypeError, KeyError) as error:
                raise StorageError(
                    f"{self.storage.path(name)} is not the manifest of a shard ({error}). Restore it; or, if the "
                    f"staged clips of that shard still exist, remove it, and the shard is packed again"
                ) from None
        return sorted(shards, key=lambda shard: (shard.split, shard.seq))

    @contextmanager
    def _readable(self, name: str) -> Iterator[pq.ParquetFile]:
        """Open a shard, to be read on the calling thread (see `ShardFile`)."""
        try:
            with self.open(name) as file:
                yield pq.ParquetFile(file, pre_buffer=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"the shard {self.storage.path(name)} cannot be read ({error}): restore it"
            ) from None

    @contextmanager
    def _unfinished(self, name: str) -> Iterator[str]:
        """Provide a local path; when the block ends, the file is moved or uploaded to `name`.

        Object stores only accept whole files, so their shards are first written to the local temporary folder.
        """
        target = self.storage.path(name)
        folder = self.storage.path(self.storage.temporary) if self.storage.is_local else tempfile.gettempdir()
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
                f"cannot write the shard {target} (via {path}): {error.strerror or error}. Its clips "
                f"are still staged: free space or repair the storage, and run the same command again"
            ) from None
        finally:
            Path(path).unlink(missing_ok=True)
