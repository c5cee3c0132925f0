"""Removing an asset from a dataset permanently.

A tombstone below `_factory/takedown/` first records what is to be removed. It is kept, and later runs skip the asset
because of it. All following steps can be repeated, so an interrupted takedown is finished by the same command, or by
the next run of `factory.render`. All other rows remain bit-identical.

Do not use it while a run is writing to the same dataset.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cluster import Ledger, Record
from cluster.storage import Storage
from factory.assets.record import AssetRecord
from factory.assets.tombstones import Tombstone, read_tombstones, write_tombstone
from factory.dataset.captions import remove_captions
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.dataset.reader import load_clips
from factory.dataset.shards import remove_clips, staged_rows

_COLUMNS = ("clip_id", "source", "asset_uid", "asset_sha256")
_GENERATED_FILES = ("README.md", "ATTRIBUTION.md", "contact_sheet.png")


class TakedownError(ValueError):
    """The request is ambiguous; the message names the missing argument."""


def takedown(root: str | os.PathLike[str], uid: str, source: str = "", reason: str = "") -> Tombstone:
    """Remove an asset and every copy of its file from a dataset, and block it from later runs.

    If the dataset does not contain the asset, only the tombstone is written.

    Args:
        root: folder or URL of the dataset.
        uid: `asset_uid` of the asset.
        source: required if several sources have an asset with this uid.
        reason: note for the maintainers; it is never published.

    Returns:
        The finished tombstone.

    Raises:
        TakedownError: several sources have an asset with this uid.
        StorageError: a file cannot be read or written. The same command continues the takedown.
    """
    existing = {tombstone.path: tombstone for tombstone in read_tombstones(root)}
    new = Tombstone(uid, source, reason, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    tombstone = existing.get(new.path, new)
    rows = list(_rows(root))
    asset_rows = [row for row in rows if row["asset_uid"] == uid and source in ("", row["source"])]
    sources = sorted({row["source"] for row in asset_rows})
    if len(sources) > 1:
        raise TakedownError(
            f"the sources {' and '.join(sources)} have an asset {uid!r}: choose one with --source"
        )
    # Copies of the same file under another name are removed as well.
    fingerprints = {f"sha256:{row['asset_sha256']}" for row in asset_rows} | set(tombstone.fingerprints)
    clips = {row["clip_id"] for row in rows if f"sha256:{row['asset_sha256']}" in fingerprints}
    for key, fingerprint in _planned(root, replace(tombstone, fingerprints=tuple(fingerprints))):
        clips.add(key)
        fingerprints.add(fingerprint)
    tombstone = replace(
        tombstone,
        fingerprints=tuple(sorted(fingerprints)),
        clips=tuple(sorted(clips | set(tombstone.clips))),
        finished=False,
    )
    write_tombstone(root, tombstone)
    return _finish(root, tombstone)


def finish_takedowns(root: str | os.PathLike[str]) -> list[Tombstone]:
    """Finish interrupted takedowns; return all tombstones of a dataset."""
    return [
        tombstone if tombstone.finished else takedown(root, tombstone.uid, tombstone.source)
        for tombstone in read_tombstones(root)
    ]


def _finish(root: str | os.PathLike[str], tombstone: Tombstone) -> Tombstone:
    """Remove the clips of a tombstone. Ledger records of assets are removed last: they list the planned clips."""
    remove_clips(root, tombstone.clips)
    remove_captions(root, tombstone.clips)
    ledger = Ledger(root)
    assets = [record.key for record in ledger if _is_plan_of(record, tombstone)]
    _regenerate(root)
    ledger.forget(*tombstone.clips)
    ledger.forget(*assets)
    finished = replace(tombstone, finished=True)
    write_tombstone(root, finished)
    return finished


def _regenerate(root: str | os.PathLike[str]) -> None:
    """Write the files that are generated from the rows again."""
    try:
        write_contact_sheet(root)
        write_card(root)
    except FileNotFoundError:  # the last asset was removed
        storage = Storage(root)
        for name in _GENERATED_FILES:
            storage.remove(name)


def _rows(root: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield `_COLUMNS` of every clip, packed or staged."""
    try:
        yield from load_clips(root).table(_COLUMNS).to_pylist()
    except FileNotFoundError:
        pass
    yield from staged_rows(root, _COLUMNS)


def _planned(root: str | os.PathLike[str], tombstone: Tombstone) -> Iterator[tuple[str, str]]:
    """Yield key and asset fingerprint of every planned clip of the asset, whatever its status."""
    for record in Ledger(root):
        for task in record.follow_up:
            if "asset" in task.payload and tombstone.covers(AssetRecord.from_json(task.payload["asset"])):
                yield task.key, task.payload["asset"]["fingerprint"]


def _is_plan_of(record: Record, tombstone: Tombstone) -> bool:
    """Whether a ledger record is of the asset itself. A record without clips has only the asset's name."""
    if record.follow_up and "asset" in record.follow_up[0].payload:
        return tombstone.covers(AssetRecord.from_json(record.follow_up[0].payload["asset"]))
    return record.label == tombstone.uid
