"""Open assets in a worker: refresh their records, fetch and parse their files, and cache the result."""

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

_CACHED_ASSETS = 2  # consecutive tasks of a worker mostly belong to the same asset


class AssetCache:
    """The most recently opened assets of a worker process."""

    def __init__(self) -> None:
        self._assets: OrderedDict[str, tuple[gltf.Asset, str]] = OrderedDict()

    def open(self, record: AssetRecord) -> tuple[gltf.Asset, str]:
        """Fetch and parse an asset, or return it from the cache.

        Returns:
            The parsed asset, and the hexadecimal SHA-256 of its file.

        Raises:
            GltfError: the file is not valid glTF.
            DownloadError, DeadLink, WrongChecksum: see `Source.fetch`.
        """
        if record.fingerprint not in self._assets:
            source = open_source(record.location)
            data = source.fetch(record)
            kind, _, sha256 = record.fingerprint.partition(":")
            if kind != "sha256":
                sha256 = file_sha256(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
            self._assets[record.fingerprint] = (
                gltf.load(data, name=record.uid, root=source.root(record)),
                sha256,
            )
            while len(self._assets) > _CACHED_ASSETS:
                self._assets.popitem(last=False)
        return self._assets[record.fingerprint]


def refreshed_record(record: AssetRecord, policy: Policy) -> AssetRecord:
    """Query the source for the current licence and NoAI status of an unsettled record.

    Settled and local records are returned unchanged. If the source cannot be reached and the policy accepts an
    unknown NoAI status, the listed record is returned as settled.

    Raises:
        DeadLink: the asset no longer exists.
        DownloadError: the source cannot be reached and the policy requires an answer, or the cache cannot be written.
    """
    if not record.unsettled or record.is_local:
        return record
    try:
        return open_source(record.location).check(record)
    except DeadLink:
        raise
    except DownloadError as error:
        # errno is set for local failures such as a full disk, which do not mean that the source is unreachable.
        if error.errno or not policy.takes_unknown_noai:
            raise
        return replace(record, unsettled=False)
