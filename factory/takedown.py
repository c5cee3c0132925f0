"""Removing an asset from a dataset, everywhere and for good.

What has to go is written down first, in a tombstone below `_factory/takedown/`, and the tombstone stays: later runs
leave the asset out because of it. Every step after that may be repeated, so a takedown that was interrupted is
finished by the same command, or by the next run of `factory.render`. All other rows stay bit for bit as they are.

Not to be used while a run is writing to the same dataset.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from cluster import Ledger, Record
from cluster.storage import Storage, StorageError
from factory.captions import remove_captions
from factory.card import write_card
from factory.catalog import AssetRecord
from factory.contact_sheet import write_contact_sheet
from factory.dataset import load_clips
from factory.shards import remove_clips, staged_rows

_FOLDER = "_factory/takedown"
_COLUMNS = ("clip_id", "source", "asset_uid", "asset_sha256")
_MADE_FROM_ROWS = ("README.md", "ATTRIBUTION.md", "contact_sheet.png")


class TakedownError(ValueError):
    """It is not clear what to take down; the message says what to add."""


@dataclass(frozen=True)
class Tombstone:
    """An asset that was taken down.

    Attributes:
        uid, source: which; source "" = of any source.
        reason: what was said, for people. at: when, ISO 8601.
        fingerprints: content addresses; copies under other names are covered too.
        clips: keys of the clips it gave. finished: nothing of them is left.
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
        """Whether a record is this asset, or a copy of it."""
        same = record.uid == self.uid and self.source in ("", record.source)
        return same or record.fingerprint in self.fingerprints


def read_tombstones(root: str | os.PathLike[str]) -> list[Tombstone]:
    """Everything that was taken down from a dataset.

    Raises:
        StorageError: a tombstone is damaged. Without it an asset would come back, so it must be restored.
    """
    storage = Storage(root, "_factory/tmp")
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


def takedown(root: str | os.PathLike[str], uid: str, source: str = "", reason: str = "") -> Tombstone:
    """Remove an asset and every copy of its file from a dataset, and keep it out.

    Of an asset that is not there, only the tombstone is written.

    Args:
        source: needed if several sources have an asset of that uid.
    Raises:
        TakedownError: several have. StorageError: nothing is lost; the same command goes on.
    """
    known = {tombstone.path: tombstone for tombstone in read_tombstones(root)}
    fresh = Tombstone(uid, source, reason, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    tombstone = known.get(fresh.path, fresh)
    rows = list(_rows(root))
    mine = [row for row in rows if row["asset_uid"] == uid and source in ("", row["source"])]
    sources = sorted({row["source"] for row in mine})
    if len(sources) > 1:
        raise TakedownError(f"{uid!r} is an asset of {' and of '.join(sources)}: say which with --source")
    contents = {f"sha256:{row['asset_sha256']}" for row in mine} | set(tombstone.fingerprints)
    clips = {row["clip_id"] for row in rows if f"sha256:{row['asset_sha256']}" in contents}
    for key, fingerprint in _planned(root, replace(tombstone, fingerprints=tuple(contents))):
        clips.add(key)
        contents.add(fingerprint)
    tombstone = replace(
        tombstone,
        fingerprints=tuple(sorted(contents)),
        clips=tuple(sorted(clips | set(tombstone.clips))),
        finished=False,
    )
    _write(root, tombstone)
    return _finish(root, tombstone)


def finish_takedowns(root: str | os.PathLike[str]) -> list[Tombstone]:
    """All tombstones of a dataset, after finishing what was interrupted."""
    return [
        tombstone if tombstone.finished else takedown(root, tombstone.uid, tombstone.source)
        for tombstone in read_tombstones(root)
    ]


def _finish(root: str | os.PathLike[str], tombstone: Tombstone) -> Tombstone:
    """Remove what the tombstone names. Markers of assets go last: they are the way to what was only planned."""
    remove_clips(root, tombstone.clips)
    remove_captions(root, tombstone.clips)
    ledger = Ledger(root)
    assets = [record.key for record in ledger if _is_plan_of(record, tombstone)]
    _make_again(root)
    for key in (*tombstone.clips, *assets):
        ledger.forget(key)
    finished = replace(tombstone, finished=True)
    _write(root, finished)
    return finished


def _make_again(root: str | os.PathLike[str]) -> None:
    """The files that are made from the rows."""
    try:
        write_contact_sheet(root)
        write_card(root)
    except FileNotFoundError:  # that was the last asset
        storage = Storage(root, "_factory/tmp")
        for name in _MADE_FROM_ROWS:
            storage.remove(name)


def _rows(root: str | os.PathLike[str]) -> Iterator[dict]:
    """What is known of every clip, in shards or staged."""
    try:
        yield from load_clips(root).table(_COLUMNS).to_pylist()
    except FileNotFoundError:
        pass
    yield from staged_rows(root, _COLUMNS)


def _planned(root: str | os.PathLike[str], tombstone: Tombstone) -> Iterator[tuple[str, str]]:
    """Key and asset's fingerprint of clips that were planned, whatever became of them."""
    for record in Ledger(root):
        for task in record.follow_up:
            if "asset" in task.payload and tombstone.covers(AssetRecord.from_json(task.payload["asset"])):
                yield task.key, task.payload["asset"]["fingerprint"]


def _is_plan_of(record: Record, tombstone: Tombstone) -> bool:
    """Whether a marker is of the asset itself; of one without clips, only the name is known."""
    if record.follow_up and "asset" in record.follow_up[0].payload:
        return tombstone.covers(AssetRecord.from_json(record.follow_up[0].payload["asset"]))
    return record.label == tombstone.uid


def _write(root: str | os.PathLike[str], tombstone: Tombstone) -> None:
    data = json.dumps(asdict(tombstone), indent=1, sort_keys=True).encode()
    Storage(root, "_factory/tmp").write(tombstone.path, data)
