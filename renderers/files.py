"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def file_path(path: str | os.PathLike[str], name: str) -> Path:
    """Return a path argument as a `Path`.

    Args:
        path: the argument.
        name: what to call it in the message.

    Raises:
        TypeError: it is not a path.
        ValueError: it is empty, or has a NUL character.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {path!r} ({type(path).__name__})")
    written = os.fspath(path)
    if not isinstance(written, str) or not written or "\0" in written:
        raise ValueError(f"{name}: expected the path of a file, got {written!r}")
    return Path(path)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error is that of a full disk, an exceeded quota or a limit on the size of files."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` on success and removed on failure.

    Missing folders are created first, and removed again on failure. The temporary file is created at once, so that a
    folder that cannot be written to is found before any work. Its name is unique, so that threads and processes may
    write the same path: the last one wins. It keeps the suffix of `path`, since some writers choose the format by it.

    Raises:
        OSError: the file cannot be written; the message names `path`.
    """
    path = Path(path)
    part = temporary_sibling(path, path.suffix)
    with new_folders(path.parent), _errors_name(path, part):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
            part.touch(exist_ok=False)
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], replaceable: Callable[[str], object]) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it on success and removed on failure.

    Missing parents are created first, and removed again on failure. An existing folder is replaced as a whole if its
    files are those of an earlier call; of several threads and processes that write the same path, the last one wins.

    Args:
        path: the folder.
        replaceable: is called with the name of each visible file in an existing folder; true if it may be deleted.

    Raises:
        ValueError: the existing folder has other files.
        OSError: the folder cannot be written; the message names `path`.
    """
    path = Path(path)
    target = path.resolve() if path.is_symlink() else path
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, expected a folder", str(path))
    names = sorted(each.name for each in target.iterdir()) if target.is_dir() else []
    if foreign := [name for name in names if not name.startswith(".") and not replaceable(name)]:
        raise ValueError(
            f"{path} has files that would be lost ({', '.join(foreign[:3])}): choose another name, or empty the folder"
        )
    part = temporary_sibling(target)
    with new_folders(target.parent), _errors_name(path, part):
        part.mkdir()
        try:
            yield part
            _replace_folder(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _replace_folder(part: Path, target: Path) -> None:
    """Rename `part` to `target`, moving aside and deleting what others put there in the meantime."""
    aside: list[Path] = []
    try:
        while True:
            try:
                os.rename(part, target)  # replaces an empty folder
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            old = temporary_sibling(target)
            with contextlib.suppress(FileNotFoundError):  # another thread or process was faster
                os.rename(target, old)
                aside.append(old)
    finally:
        for old in aside:
            shutil.rmtree(old, ignore_errors=True)


def temporary_sibling(path: Path, suffix: str = "") -> Path:
    """A new hidden name in the folder of `path`; short, so that it fits wherever the name of `path` does."""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part{suffix}")


@contextmanager
def new_folders(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; those that did not exist are removed again on failure, unless in use."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "is a file, expected a folder", str(folder)) from None
        yield
    except BaseException:
        for each in missing:
            try:
                each.rmdir()
            except OSError:  # not created, or another process has put something in it
                break
        raise


@contextmanager
def _errors_name(path: Path, part: Path) -> Iterator[None]:
    """Make errors of the operating system name `path` instead of the temporary file, or of nothing."""
    try:
        yield
    except OSError as error:
        file = path if error.filename is None else Path(os.fsdecode(error.filename))
        if error.errno is None or not (file == path or file == part or part in file.parents):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
