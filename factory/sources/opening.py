"""Open assets on a worker: fetch, parse and cache them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from factory.assets.licences import Policy
from factory.assets.record import AssetRecord
from factory.sources.downloads import DeadLink, DownloadError, file_sha256
from factory.sources.registry import open_source
from renderers import gltf

_CACHED_ASSETS = 2  # a worker mostly sees the clips of one asset one after another


class AssetCache:
    """The few assets a worker has open."""

    def __init__(self) -> None:
        self._assets: OrderedDict[str, tuple[gltf.Asset, str]] = OrderedDict()

    def open(self, record: AssetRecord) -> tuple[gltf.Asset, str]:
        """The asset of a record, and the sha256 of its file. Raises GltfError and what its source raises."""
        if record.fingerprint not in self._assets:
            data = open_source(record.location).fetch(record)
            known, _, sha256 = record.fingerprint.partition(":")
            if known != "sha256":
                sha256 = file_sha256(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
            self._assets[record.fingerprint] = gltf.load(data, name=record.uid), sha256
            while len(self._assets) > _CACHED_ASSETS:
                self._assets.popitem(last=False)
        return self._assets[record.fingerprint]


def settled(record: AssetRecord, terms: Policy) -> AssetRecord:
    """The record as its source states it today; as it was listed if that cannot be asked and need not be known."""
    if not record.unsettled or record.is_local:
        return record
    try:
        return open_source(record.location).check(record)
    except DeadLink:
        raise
    except DownloadError as error:
        if error.errno or not terms.takes_unknown_noai:  # a full disk is not the source's silence
            raise
        return replace(record, unsettled=False)
