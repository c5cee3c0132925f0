"""Files on a local disk: they appear complete or not at all, and their folders are created when needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from cluster.arguments import location

_T = TypeVar("_T")


@contextmanager
def atomic_path(
    path: str | os.PathLike[str], temporary: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """Provide a temporary path that is renamed to `path` on success and removed on failure.

    Args:
        path: final path on a local disk. Its parent folders are created if needed.
        temporary: path to write to, on the same file system and unique to this writer. Default: a hidden file beside
            `path` whose name contains the process id.
    """
    path = Path(location(path, "atomic_path: path"))
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, expected a folder", str(path.parent))
    part = Path(temporary) if temporary is not None else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _in_folder(path.parent, lambda: os.replace(part, path))
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def create(path: Path) -> BinaryIO:
    """Open a new file for writing; its folder is created if necessary."""
    return _in_folder(path.parent, lambda: open(path, "xb"))


def _in_folder(folder: Path, action: Callable[[], _T]) -> _T:
    """Do something that needs a folder, which is created if necessary.

    Another command may remove the folder again as long as it is empty (`OutputLock`), hence several attempts.
    """
    for _ in range(5):
        try:
            return action()
        except FileNotFoundError:
            folder.mkdir(parents=True, exist_ok=True)
    return action()


def read_whole(path: str) -> bytes | None:
    """Content of a file; None if it does not exist."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def read_range(path: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of a file; empty if it does not exist."""
    try:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), max(end - start, 0), start)
    except FileNotFoundError:
        return b""
