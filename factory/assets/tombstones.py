"""Tombstones: records of assets that were taken down and must not be ingested again."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass

from cluster.storage import Storage, StorageError
from factory.assets.record import AssetRecord

_FOLDER = "_factory/takedown"


@dataclass(frozen=True)
class Tombstone:
    """A record of an asset that was taken down.

    Attributes:
        uid, source: the asset; source "" matches every source.
        reason: human-readable reason for the takedown.
        at: time of the takedown, ISO 8601.
        fingerprints: content hashes, which also match copies under other names.
        clips: keys of the clips rendered from the asset.
        finished: whether all of these clips have been deleted.
    """

    uid: str
    source: str
    reason: str
    at: str
    fingerprints: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    finished: bool = False

    @property
    def path(self) -> str:
        name = hashlib.sha256(f"{self.source}\x1f{self.uid}".encode()).hexdigest()[:32]
        return f"{_FOLDER}/{name}.json"

    def covers(self, record: AssetRecord) -> bool:
        """Return whether a record is this asset or a copy of it."""
        same = record.uid == self.uid and self.source in ("", record.source)
        return same or record.fingerprint in self.fingerprints


def read_tombstones(root: str | os.PathLike[str]) -> list[Tombstone]:
    """Read all tombstones of a dataset, sorted by file name.

    Raises:
        StorageError: a tombstone is damaged. It must be restored, or its asset could be ingested again.
    """
    storage = Storage(root)
    names = [f"{_FOLDER}/{name}" for name in storage.names(_FOLDER)]
    found = []
    for name, data in sorted(storage.read_many(names).items()):
        try:
            values = json.loads(data)
            lists = {key: tuple(values[key]) for key in ("fingerprints", "clips")}
            found.append(Tombstone(**{**values, **lists}))
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(
                f"{storage.path(name)} is not a tombstone ({error}): restore it, or take the asset down again "
                f"after removing it"
            ) from None
    return found


def write_tombstone(root: str | os.PathLike[str], tombstone: Tombstone) -> None:
    """Write a tombstone, replacing an earlier version."""
    data = json.dumps(asdict(tombstone), indent=1, sort_keys=True).encode()
    Storage(root).write(tombstone.path, data)
