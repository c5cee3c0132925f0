"""A repository on disk in the layout of a hub's cache: refs/<name> holds a revision, snapshots/<revision>/ its files.

Nothing in it is ever half written: a snapshot is made elsewhere and renamed, and only then does a ref point to it.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STALE_S = 3600.0  # an unfinished snapshot this old has no writer any more


@contextmanager
def unfinished_snapshot(root: Path) -> Iterator[Path]:
    """An empty folder to make a snapshot in; gone when the block is left, unless `keep_snapshot` kept it."""
    for name in ("snapshots", "refs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    _sweep(root)
    unfinished = root / f".unfinished-{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def keep_snapshot(root: Path, unfinished: Path, revision: str) -> Path:
    """Make a finished folder the snapshot of that revision, which names its content; one that is there stays."""
    for file in unfinished.rglob("*"):
        if file.is_file():
            _to_disk(file)
    snapshot = root / "snapshots" / revision
    try:
        unfinished.rename(snapshot)
    except OSError:
        if not snapshot.exists():  # then it has this very content
            raise
    return snapshot


def discard_snapshot(root: Path, revision: str) -> None:
    """Take a damaged snapshot out of the way."""
    (root / "snapshots" / revision).rename(root / f".unfinished-{uuid.uuid4().hex}")


def read_ref(root: Path, name: str) -> str | None:
    """The revision that a ref points to, None if there is no such ref."""
    try:
        return (root / "refs" / name).read_text().strip()
    except FileNotFoundError:
        return None


def write_ref(root: Path, name: str, revision: str) -> None:
    """Point a ref to a revision."""
    reference = root / "refs" / f".{uuid.uuid4().hex}"
    reference.write_text(revision)
    _to_disk(reference)
    reference.replace(root / "refs" / name)


def _to_disk(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _sweep(root: Path) -> None:
    """Remove what publishers left that were killed."""
    for folder in root.glob(".unfinished-*"):
        if time.time() - folder.stat().st_mtime > _STALE_S:
            shutil.rmtree(folder, ignore_errors=True)
