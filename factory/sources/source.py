"""The interface that every source of animated models implements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

from factory.assets.record import AssetRecord


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
