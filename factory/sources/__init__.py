"""Where animated models come from: made here, in folders and lists of the user's, or in other people's collections.

A source lists records cheaply and fetches one asset at a time; both run on any machine of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import unquote

from factory.catalog import AssetRecord

COLLECTIONS = ("objaverse", "objaverse-xl", "sketchfab")


class SourceError(ValueError):
    """A source cannot be read; the message says what was expected."""


class Source(Protocol):
    """list → records, fetch → what `renderers.gltf.load` takes. `is_remote`: whether fetching takes time."""

    is_remote: ClassVar[bool] = False

    def list(self) -> Iterator[AssetRecord]:
        """The records, lazily and always in the same order; one that makes no sense has a `fault`."""

    def check(self, record: AssetRecord) -> AssetRecord:
        """An unsettled record with what the source says of licence and NoAI today.

        Raises:
            DownloadError: it could not be asked. DeadLink: the asset is gone.
        """
        return record

    def fetch(self, record: AssetRecord) -> Path | bytes:
        """A local file, or the bytes of a .glb.

        Raises:
            DownloadError: it did not come. DeadLink: the asset is gone. WrongChecksum: it has changed.
        """


def open_source(uri: str) -> Source:
    """The source a user names.

    `creatures://kangaroo?seed=7`; the path of a folder, of one file or of a manifest (.jsonl, .csv); the web
    address of a file; `objaverse`, `objaverse-xl`, `sketchfab` or a part of them, as in `objaverse://UID`.

    A record's `location` is such a name too, so `open_source(record.location).fetch(record)` works anywhere.

    Raises:
        SourceError: nothing of ours answers to that name.
    """
    scheme, separator, _ = uri.partition("://")
    if uri in COLLECTIONS:
        scheme = uri
    elif not separator or scheme == "file":
        path = unquote(uri.removeprefix("file://")) if separator else uri
        if path.lower().endswith((".jsonl", ".csv")) and Path(path).is_file():
            from factory.sources.manifest import ManifestSource

            return ManifestSource(path)
        from factory.sources.folder import FolderSource

        return FolderSource(path)
    if scheme == "creatures":
        from factory.sources.creatures.source import CreatureSource

        return CreatureSource(uri)
    if scheme in ("http", "https"):
        from factory.sources.web import WebSource

        return WebSource(uri)
    if scheme == "objaverse":
        from factory.sources.objaverse import ObjaverseSource

        return ObjaverseSource(uri)
    if scheme == "objaverse-xl":
        from factory.sources.objaverse_xl import ObjaverseXLSource

        return ObjaverseXLSource(uri)
    if scheme == "sketchfab":
        from factory.sources.sketchfab import SketchfabSource

        return SketchfabSource(uri)
    raise SourceError(
        f"source {uri!r}: {scheme!r} is not a source; expected creatures://SPECIES, {', '.join(COLLECTIONS)}, a web "
        f"address, or the path of a folder, a file or a manifest"
    )
