"""A small dataset of discs to which shards can be added."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
from sample_clips import disc_row

from cluster.storage import Storage
from factory.dataset.schema import clip_schema
from factory.dataset.shards import Shard, ShardFiles, read_manifests

VIEWS, FRAMES = 2, 4


def grow(root: Path, first: int, last: int, shard: int = 20, **changes: object) -> list[Shard]:
    """Add the clips first … last-1, two per asset, in shards of `shard` clips."""
    files, seq = ShardFiles(Storage(root)), len(read_manifests(root))
    shards = []
    for start in range(first, last, shard):
        rows = [tiny_row(number, **changes) for number in range(start, min(start + shard, last))]
        table = pa.Table.from_pylist(rows, clip_schema(VIEWS))
        groups = (table.slice(at, 1) for at in range(len(rows)))
        path = f"data/train/part-{seq:05d}.parquet"
        keys = [row["clip_id"] for row in rows]
        shards.append(files.describe(path, "train", seq, keys, *files.write(path, groups)))
        seq += 1
    return shards


def tiny_row(number: int, **changes: object) -> dict:
    """Return clip number n; its asset is `disc-<n // 2>`."""
    asset = number // 2
    own = {
        "clip_id": f"{number:016x}",
        "asset_uid": f"disc-{asset}",
        "asset_sha256": hashlib.sha256(b"%d" % asset).hexdigest(),
        "motion_speed": 0.01 * (number % 37),
    }
    return disc_row(VIEWS, FRAMES) | own | changes
