"""The interface implemented by every source of animated models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

from factory.assets.record import AssetRecord


class SourceError(ValueError):
    """A source cannot be read. The message states what was expected."""


class EmptySourceError(SourceError):
    """The sources list nothing to work on. The message states what they contain and what to do."""

    exit_code = 3


class Source(Protocol):
    """A collection of animated models that can be listed and fetched.

    Attributes:
        is_remote: whether fetching needs the network.
    """

    is_remote: ClassVar[bool] = False

    def list(self) -> Iterator[AssetRecord]:
        """Yield the records lazily, always in the same order. A malformed record has its `fault` set."""

    def why_empty(self) -> str:
        """Explain why `list` yields nothing, and what to do; a clause that follows the source's URI."""
        return "lists no model"

    def check(self, record: AssetRecord) -> AssetRecord:
        """Return the record with the licence and NoAI status that the source reports now.

        Raises:
            DownloadError: the source could not be queried.
            DeadLink: the asset no longer exists.
        """
        return record

    def root(self, record: AssetRecord) -> Path | None:
        """Return the folder that the files of an asset may be in; None if it is the folder of its main file."""
        return None

    def fetch(self, record: AssetRecord) -> Path | bytes:
        """Return the asset as a local file or as the bytes of a .glb, either of which `renderers.gltf.load` accepts.

        Raises:
            DownloadError: the download failed.
            DeadLink: the asset no longer exists.
            WrongChecksum: the file differs from the listed checksum.
        """
