"""Whether the content of an output folder is ours. `cluster.lock` tells who is writing to it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cluster.arguments import location
from cluster.lock import live_claims
from cluster.storage import Storage, StorageError

LEDGER = "_factory/*/*"  # at least one file of a ledger
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".keep", "lost+found", "_factory"}
_MOST_LISTED = 3


class ForeignFolderError(StorageError):
    """The output folder has files that the command did not write and might overwrite."""


def check_output(
    root: str | os.PathLike[str],
    *,
    ours: tuple[str, ...] = (),
    pages: Mapping[str, bytes] | None = None,
) -> None:
    """Refuse a folder with files of somebody else. Nothing is written.

    Args:
        root: path or fsspec URL. Missing and empty folders, and those with a ledger, are accepted.
        ours: glob patterns relative to `root`; a folder with a match is accepted too.
        pages: files that the command replaces → text that every version of them contains near the beginning.

    Raises:
        ForeignFolderError: there are other files.
        StorageError: the folder cannot be listed, or is a file.
    """
    storage = Storage(location(root, "check_output: root"))
    entries = [name for name in storage.entries() if name not in _LITTER]
    if not entries:
        return
    foreign = [
        name for name, mark in (pages or {}).items() if name in entries and not _has(storage, name, mark)
    ]
    if not any(storage.has_match(pattern) for pattern in (LEDGER, *ours)):
        listed = ", ".join(map(_quoted, entries[:_MOST_LISTED])) + (
            " …" if len(entries) > _MOST_LISTED else ""
        )
        raise ForeignFolderError(
            f"{storage.url} has files that this command did not write ({listed}): choose an empty or a new folder, or "
            f"the output folder of an earlier run"
        )
    if foreign:
        raise ForeignFolderError(
            f"{storage.path(foreign[0])} was not written by this program and would be overwritten: move it, or choose "
            f"another folder"
        )


def check_idle(root: str | os.PathLike[str]) -> None:
    """Refuse to read a dataset that a command is writing to.

    Raises:
        StorageError: a command is writing to it.
    """
    storage = Storage(location(root, "check_idle: root"))
    if writers := live_claims(storage):
        raise StorageError(f"{storage.url} is being written: {writers[0]}. Wait until it has finished")


def _has(storage: Storage, name: str, mark: bytes) -> bool:
    """Whether a file has a text near its beginning."""
    return mark in (storage.read(name) or b"")[:4096]


def _quoted(name: str) -> str:
    return name if name.isprintable() else ascii(name)
