"""Write Objaverse files below a home folder, in the formats that the `objaverse` package stores."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHARD = "000-023"


def uid_of(name: str) -> str:
    """Return 32 hexadecimal digits, the format of Sketchfab's uids."""
    return hashlib.md5(name.encode()).hexdigest()


def object_path(uid: str, shard: str = SHARD) -> str:
    return f"glbs/{shard}/{uid}.glb"


def seed_objaverse(
    home: Path, annotations: Mapping[str, object], files: Mapping[str, bytes], shard: str = SHARD
) -> Path:
    """Annotations by uid in one shard, and the .glb of some of them. More calls add shards."""
    root = home / ".objaverse" / "hf-objaverse-v1"
    (root / "metadata").mkdir(parents=True, exist_ok=True)
    listed = root / "object-paths.json.gz"
    paths = json.loads(gzip.decompress(listed.read_bytes())) if listed.exists() else {}
    paths |= {uid: object_path(uid, shard) for uid in annotations}
    listed.write_bytes(gzip.compress(json.dumps(paths).encode()))
    text = json.dumps(dict(annotations)).encode()
    (root / "metadata" / f"{shard}.json.gz").write_bytes(gzip.compress(text))
    for uid, data in files.items():
        file = root / object_path(uid, shard)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return root


def xl_row(
    identifier: object, data: bytes = b"", kind: str = "glb", licence: object = None, **changes: object
) -> dict:
    return {
        "fileIdentifier": identifier,
        "source": "github",
        "license": licence,
        "fileType": kind,
        "sha256": hashlib.sha256(data).hexdigest(),
        "metadata": "{}",
        **changes,
    }


def seed_xl(home: Path, part: str, rows: Sequence[dict]) -> Path:
    """One table of Objaverse-XL."""
    file = home / ".objaverse" / part / f"{part}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    names = ("fileIdentifier", "source", "license", "fileType", "sha256", "metadata")
    schema = pa.schema([(name, pa.string()) for name in names])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), file)
    return file
