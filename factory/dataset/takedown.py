"""Removing an asset from a dataset, everywhere and for good.

What has to go is written down first, in a tombstone below `_factory/takedown/`, and the tombstone stays: later runs
leave the asset out because of it. Every step after that may be repeated, so a takedown that was interrupted is
finished by the same command, or by the next run of `factory.render`. All other rows stay bit for bit as they are.

Not to be used while a run is writing to the same dataset.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

from cluster import Ledger, Record
from cluster.storage import Storage
from factory.assets.record import AssetRecord
from factory.assets.tombstones import Tombstone, _write, read_tombstones
from factory.dataset.captions import remove_captions
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.dataset.reader import load_clips
from factory.dataset.shards import remove_clips, staged_rows

_COLUMNS = ("clip_id", "source", "asset_uid", "asset_sha256")
_MADE_FROM_ROWS = ("README.md", "ATTRIBUTION.md", "contact_sheet.png")


class TakedownError(ValueError):
    """It is not clear what to take down; the message says what to add."""


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
