"""Whole-file access to a local folder or any fsspec URL. Files appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

_T = TypeVar("_T")
STALE_S = 3600.0  # age at which a temporary file is assumed to have lost its writer


class StorageError(RuntimeError):
    """The storage cannot be written or read. It stops the run; committed results are kept."""


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
    path = Path(path)
    part = Path(temporary) if temporary is not None else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        _in_folder(path.parent, lambda: os.replace(part, path))
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class Storage:
    """A folder on a local disk or behind an fsspec URL. File names are relative to it.

    Pickles as its URL, so that workers open their own connections.

    Args:
        url: local path or fsspec URL.
        temporary: folder for unfinished local files, relative to `url`.

    Attributes:
        is_local: whether the files are on a local disk (including `file://` URLs).
        is_shared: whether other processes can see the files; False for `memory://` only.
        filesystem: the fsspec file system; None for a plain local path.
    """

    def __init__(self, url: str | os.PathLike[str], temporary: str = "_factory/tmp") -> None:
        url = os.fspath(url)
        self.url = url if "://" in url else os.path.abspath(url)
        self._temporary = temporary
        self._open()

    def _open(self) -> None:
        self._root, self.is_local, self.is_shared = self.url, True, True
        self.filesystem: Any = None
        if "://" not in self.url:
            return
        # Importing fsspec takes as long as the rest of the package, and delays every child process.
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        try:
            self.filesystem, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:  # "Install s3fs to access S3"
            raise StorageError(
                f"{self.url}: its driver is missing here ({error}); install it with pip"
            ) from error
        except ValueError as error:  # an unknown scheme
            raise StorageError(f"{self.url}: expected a path or a URL that fsspec opens, {error}") from error
        self.is_local = isinstance(self.filesystem, LocalFileSystem)
        self.is_shared = self.filesystem.protocol != "memory"

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url, "_temporary": self._temporary}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def temporary(self) -> str:
        """Folder for unfinished local files, relative to the root."""
        return self._temporary

    def path(self, name: str) -> str:
        """Return the full path of a file, as the file system expects it."""
        return f"{self._root.rstrip('/')}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file.

        Raises:
            StorageError: the file could not be written. Its previous content, if any, is unchanged.
        """
        try:
            if self.is_local:
                self._write_local(self.path(name), data)
            else:
                self.filesystem.pipe_file(self.path(name), data)
        except Exception as error:  # each object store has its own exception classes
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"cannot write {self.path(name)} ({len(data)} bytes): {reason}. Committed results are kept: "
                f"free some space or repair the storage, then run the same command again to resume"
            ) from None

    def _write_local(self, path: str, data: bytes) -> None:
        temporary = self.path(f"{self._temporary}/{uuid.uuid4().hex}")
        with atomic_path(path, temporary) as part, _create(part) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist.

        Raises:
            StorageError: the storage could not be read.
        """
        return self.read_many([name]).get(name)

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return name → content for the files that exist. Object stores are read concurrently.

        Raises:
            StorageError: the storage could not be read.
        """
        names = list(names)
        try:
            if self.is_local:
                return {name: data for name in names if (data := _read_local(self.path(name))) is not None}
            if len(names) == 1:
                return {names[0]: self.filesystem.cat_file(self.path(names[0]))}
            return self._read_remote(names) if names else {}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StorageError(
                f"cannot read files in {self.url}: {error}. Check the connection and the permissions, then run the "
                f"same command again"
            ) from None

    def _read_remote(self, names: list[str]) -> dict[str, bytes]:
        results = self.filesystem.cat([self.path(name) for name in names], on_error="return")
        for result in results.values():
            if isinstance(result, Exception) and not isinstance(result, FileNotFoundError):
                raise result  # a lost connection must not look like a missing file
        contents = {name: results.get(self.path(name)) for name in names}
        return {name: data for name, data in contents.items() if isinstance(data, bytes)}

    def names(self, folder: str) -> list[str]:
        """List all files below a folder, recursively, as sorted paths relative to the folder.

        Raises:
            StorageError: the folder could not be listed. A missing folder is an empty one.
        """
        top = self.path(folder)
        try:
            if self.is_local:
                return sorted(
                    os.path.relpath(os.path.join(parent, file), top) if parent != top else file
                    for parent, _, files in os.walk(top)
                    for file in files
                )
            return sorted(path[len(top) + 1 :] for path in self.filesystem.find(top))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StorageError(
                f"cannot list {top}: {error}. Check the connection and the permissions, then run the same command again"
            ) from None

    def entries(self) -> list[str]:
        """List the files and folders directly below the root, sorted; a missing root is an empty one.

        Raises:
            StorageError: the root cannot be listed, or is a file.
        """
        try:
            if self.is_local:
                return sorted(os.listdir(self.path("")))
            paths = self.filesystem.ls(self._root, detail=False)
            names = {
                path.rstrip("/").rpartition("/")[2]
                for path in paths
                if path.rstrip("/") != self._root.rstrip("/")
            }
            return sorted(names)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise StorageError(f"{self.url} is a file: expected a folder") from None
        except Exception as error:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"cannot list {self.url}: {reason}. Check the connection and the permissions"
            ) from None

    def has_match(self, pattern: str) -> bool:
        """Whether a file or folder below the root matches a glob pattern.

        Raises:
            StorageError: the storage cannot be listed.
        """
        try:
            if self.is_local:
                return next(Path(self.path("")).glob(pattern), None) is not None
            return bool(self.filesystem.glob(self.path(pattern)))
        except Exception as error:
            raise StorageError(
                f"cannot list {self.url}: {error}. Check the connection and the permissions"
            ) from None

    def remove(self, name: str) -> None:
        """Remove a file if it exists.

        Raises:
            StorageError: the file could not be removed.
        """
        try:
            if self.is_local:
                Path(self.path(name)).unlink(missing_ok=True)
            else:
                self.filesystem.rm_file(self.path(name))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise StorageError(
                f"cannot remove {self.path(name)}: {error}. Check the permissions, then run the same command again"
            ) from None

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and everything in it, if it exists."""
        top = self.path(folder)
        if self.is_local:
            shutil.rmtree(top, ignore_errors=True)
        elif self.filesystem.exists(top):
            self.filesystem.rm(top, recursive=True)

    def sweep(self) -> None:
        """Remove temporary files left by killed writers, which are those older than `STALE_S`."""
        if not self.is_local:
            return
        for path in Path(self.path(self._temporary)).glob("*"):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except FileNotFoundError:
                pass  # its writer finished in the meantime


def _create(path: Path) -> BinaryIO:
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


def _read_local(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
