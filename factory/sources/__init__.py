"""Where animated models come from: `creatures://…`, or a folder of glTF files.

A source lists records cheaply and fetches one asset at a time; both run on any machine of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from factory.catalog import AssetRecord


class SourceError(ValueError):
    """A source cannot be read; the message says what was expected."""


class Source(Protocol):
    """list → records, fetch → what `renderers.gltf.load` takes."""

    def list(self) -> Iterator[AssetRecord]:
        """The records, lazily and always in the same order."""

    def fetch(self, record: AssetRecord) -> Path | bytes:
        """A local file, or the bytes of a .glb."""


def open_source(uri: str) -> Source:
    """The source a user names: `creatures://kangaroo?seed=7`, or the path of a folder or of one file.

    A record's `location` is such a name too, so `open_source(record.location).fetch(record)` works anywhere.

    Raises:
        SourceError: nothing of ours answers to that name.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        from factory.sources.folder import FolderSource

        return FolderSource(unquote(uri.removeprefix("file://")) if separator else uri)
    if scheme == "creatures":
        from factory.sources.creatures.source import CreatureSource

        return CreatureSource(uri)
    raise SourceError(
        f"source {uri!r}: {scheme!r} is not a source; expected creatures://SPECIES or the path of a folder"
    )
