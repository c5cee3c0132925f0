"""Whole files on a local disk or behind any fsspec URL. A file is there completely or not at all."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

STALE_S = 3600.0  # an unfinished file this old has no writer any more


class StorageError(RuntimeError):
    """The output cannot be written or read. It stops the run; what is committed stays."""


class Storage:
    """The folder `url`, a local path or an fsspec URL; every path below is relative to it.

    Pickles as its URL. `temporary` is the folder, inside, where unfinished local files lie.
    """

    def __init__(self, url: str | os.PathLike[str], temporary: str = "_factory/tmp") -> None:
        url = os.fspath(url)
        self.url = url if "://" in url else os.path.abspath(url)
        self._temporary = temporary
        self._open()

    def _open(self) -> None:
        self._root, self.is_local, self.is_shared = self.url, True, True
        if "://" not in self.url:
            return
        import fsspec  # as slow as the rest of the package together, and every child waits for it
        from fsspec.implementations.local import LocalFileSystem

        self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self.is_shared = self._fs.protocol != "memory"  # memory:// ends at the process

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
        return f"{self._root.rstrip('/')}/{name}"

    def write(self, name: str, data: bytes) -> None:
        """Put a whole file. Raises StorageError, and then whatever stood there before still stands."""
        try:
            if self.is_local:
                self._write_local(self.path(name), data)
            else:
                self._fs.pipe_file(self.path(name), data)
        except Exception as error:  # object stores have exceptions of their own
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"cannot write {self.path(name)} ({len(data)} bytes): {reason}. Nothing that was committed "
                f"is lost: make room or repair the storage and run the same command again"
            ) from None

    def _write_local(self, path: str, data: bytes) -> None:
        unfinished = self.path(f"{self._temporary}/{uuid.uuid4().hex}")
        try:
            with _create(unfinished) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.replace(unfinished, path)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(unfinished, path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def read(self, name: str) -> bytes | None:
        """The file's content, None if there is none."""
        return self.read_many([name]).get(name)

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of those that exist; object stores are asked for many at a time."""
        names = list(names)
        try:
            if self.is_local:
                return {name: data for name in names if (data := _read_local(self.path(name))) is not None}
            if len(names) == 1:
                return {names[0]: self._fs.cat_file(self.path(names[0]))}
            found = self._fs.cat([self.path(name) for name in names], on_error="return") if names else {}
            for answer in found.values():
                if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                    raise answer  # a lost connection must not look like a missing file
            contents = {name: found.get(self.path(name)) for name in names}
            return {name: data for name, data in contents.items() if isinstance(data, bytes)}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StorageError(f"cannot read below {self.url}: {error}") from None

    def names(self, folder: str) -> list[str]:
        """Every file below the folder, with its path relative to the folder, sorted."""
        top = self.path(folder)
        try:
            if self.is_local:
                return sorted(
                    os.path.relpath(os.path.join(where, file), top) if where != top else file
                    for where, _, files in os.walk(top)
                    for file in files
                )
            return sorted(path[len(top) + 1 :] for path in self._fs.find(top))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StorageError(f"cannot list {top}: {error}") from None

    def remove(self, name: str) -> None:
        """Remove a file; that it is gone already is fine. Raises StorageError if it cannot be removed."""
        try:
            if self.is_local:
                Path(self.path(name)).unlink(missing_ok=True)
            else:
                self._fs.rm_file(self.path(name))
        except FileNotFoundError:
            pass
        except Exception as error:
            raise StorageError(f"cannot remove {self.path(name)}: {error}") from None

    def remove_folder(self, folder: str) -> None:
        top = self.path(folder)
        if self.is_local:
            shutil.rmtree(top, ignore_errors=True)
        elif self._fs.exists(top):
            self._fs.rm(top, recursive=True)

    def sweep(self) -> None:
        """Remove the unfinished files of writers that were killed."""
        if not self.is_local:
            return
        for path in Path(self.path(self._temporary)).glob("*"):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except FileNotFoundError:
                pass  # its writer has just finished


def _create(path: str):
    try:
        return open(path, "xb")
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "xb")


def _read_local(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
