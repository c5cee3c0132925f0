"""A repository on disk with the layout of a hub's cache: refs/<name> holds a revision, snapshots/<revision>/ its files.

Nothing in it is ever half written: a snapshot is written to a temporary folder and renamed, and only then does a ref
point to it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from renderers.files import new_folders

_REVISION = re.compile("[0-9a-f]{12,64}")
_STALE_S = 3600.0  # an unfinished snapshot of this age was left by a killed writer


def is_repository(root: Path) -> bool:
    """Whether a folder may be written to as a repository: it is one, or it is missing or empty.

    A repository has the folders refs/ and snapshots/, and the names of its snapshots are hashes. A writer that was
    killed may have left only one of them.
    """
    try:
        names = {path.name for path in root.iterdir()}
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    visible = {name for name in names if not name.startswith(".")}
    if not visible:
        return True
    if visible == {"refs"}:
        return (root / "refs").is_dir() and not any((root / "refs").glob("[!.]*"))
    if (visible != {"snapshots"} and not {"refs", "snapshots"} <= names) or not (root / "snapshots").is_dir():
        return False
    return all(_REVISION.fullmatch(path.name) for path in (root / "snapshots").glob("[!.]*"))


@contextmanager
def unfinished_snapshot(root: Path) -> Iterator[Path]:
    """An empty folder to write a snapshot to; deleted at the end of the block unless `keep_snapshot` kept it.

    If the block fails, the folders that were created for it are removed, unless another writer uses them.
    """
    with new_folders(root):
        _sweep(root)
        unfinished = root / f".unfinished-{uuid.uuid4().hex}"
        _in_folder(root, unfinished.mkdir)
        try:
            yield unfinished
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            for name in ("snapshots", "refs"):
                with contextlib.suppress(OSError):  # in use, or never created
                    (root / name).rmdir()
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _in_folder(folder: Path, write: Callable[[], object]) -> None:
    """Write in a folder that is created if necessary, also if a writer that failed removes it in between."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write()
            return
        except FileNotFoundError:
            if folder.exists():  # then another file is missing
                raise


def keep_snapshot(root: Path, unfinished: Path, revision: str) -> Path:
    """Rename a finished folder to the snapshot of a revision.

    An existing snapshot of the revision is kept: revisions are derived from the content, so it is the same.

    Args:
        root: of the repository.
        unfinished: from `unfinished_snapshot`.
        revision: derived from the content.

    Returns:
        The snapshot's folder.
    """
    for file in unfinished.rglob("*"):
        if file.is_file():
            _fsync(file)
    snapshot = root / "snapshots" / revision
    try:
        _in_folder(snapshot.parent, lambda: unfinished.rename(snapshot))
    except OSError:
        if not snapshot.exists():
            raise
    return snapshot


def discard_snapshot(root: Path, revision: str) -> None:
    """Set a damaged snapshot aside; it is deleted later."""
    with contextlib.suppress(FileNotFoundError):  # another writer has done it
        (root / "snapshots" / revision).rename(root / f".unfinished-{uuid.uuid4().hex}")


def read_ref(root: Path, name: str) -> str | None:
    """The revision that a ref points to, or None if the ref does not exist."""
    try:
        return (root / "refs" / name).read_text().strip()
    except FileNotFoundError:
        return None


def write_ref(root: Path, name: str, revision: str) -> None:
    """Point a ref to a revision."""
    reference = root / "refs" / f".{uuid.uuid4().hex}"
    try:
        _in_folder(reference.parent, lambda: reference.write_text(revision))
        _fsync(reference)
        reference.replace(root / "refs" / name)
    finally:
        reference.unlink(missing_ok=True)


def _fsync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _sweep(root: Path) -> None:
    """Delete the unfinished snapshots of killed writers."""
    for folder in root.glob(".unfinished-*"):
        with contextlib.suppress(FileNotFoundError):  # another writer has just finished it
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
