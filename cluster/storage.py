"""Whole-file access to a local folder or any fsspec URL. Files appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cluster.arguments import file_name, location, text
from cluster.local_files import atomic_path, create, read_range, read_whole

# In the path of the folder into which Ray unpacks a job's working directory.
JOB_FOLDER = "/runtime_resources/"
STALE_S = 3600.0  # age at which a temporary file is assumed to have lost its writer

# URL scheme → extra of this package that installs its driver.
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
    "hf": "zoo",
}


class StorageError(RuntimeError):
    """The storage cannot be written or read. It stops the run; committed results are kept."""


def open_filesystem(url: str, **options: Any) -> tuple[Any, str]:
    """Open the fsspec file system of a path or URL.

    Args:
        options: of the file system.

    Returns:
        The file system, and the path in it.

    Raises:
        StorageError: the scheme is unknown, its driver is missing, or the driver cannot start.
    """
    # Importing fsspec takes as long as the rest of the package, and delays every child process.
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:  # "Install s3fs to access S3"
        raise StorageError(f"{url}: its driver is missing here ({error}); {_driver_advice(url)}") from error
    except ValueError as error:  # an unknown scheme
        raise StorageError(f"{url}: expected a path or a URL that fsspec opens, {error}") from error
    except Exception as error:  # no credentials, a malformed URL
        raise StorageError(f"{url} cannot be opened: {error_reason(error)}") from error
    if "s3" in filesystem.protocol:
        from s3fs import core

        if hasattr(core, "set_custom_error_handler"):  # not in old versions
            core.set_custom_error_handler(_is_server_error)
    return filesystem, path


def glob_files(filesystem: Any, pattern: str) -> list[str]:
    """Paths in a file system that match a glob pattern.

    Raises:
        StorageError: the storage could not be listed.
    """
    try:
        return list(filesystem.glob(pattern))
    except Exception as error:  # each object store has its own exception classes
        raise StorageError(
            f"cannot list {pattern}: {error_reason(error)}. Check the address, the connection and the credentials"
        ) from error


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
        url = location(url, "Storage: url")
        self.url = url if "://" in url else os.path.abspath(url)
        self._temporary = text(temporary, "Storage: temporary")
        self._open()

    def _open(self) -> None:
        self._root, self.is_local, self.is_shared = self.url, True, True
        self.filesystem: Any = None
        self._is_s3, self._read_options = False, {}
        if "://" not in self.url:
            return
        self.filesystem, self._root = open_filesystem(self.url, use_listings_cache=False)
        from fsspec.implementations.local import LocalFileSystem

        self.is_local = isinstance(self.filesystem, LocalFileSystem)
        self._is_s3 = "s3" in (self.filesystem.protocol if not self.is_local else ())
        # Otherwise s3fs asks for the size of a file first, and lists a folder if there is no such file.
        self._read_options = {"max_concurrency": 1} if self._is_s3 else {}
        self.is_shared = self.filesystem.protocol != "memory"

    def check_writable(self) -> None:
        """Check that results can be kept here, without writing anything.

        Raises:
            StorageError: the files would be lost at the end of this process, or the local folder cannot be created or
                written.
        """
        if not self.is_shared:
            raise StorageError(
                f"{self.url} is in the memory of this process and lost when it ends: expected a folder or the URL of "
                f"an object store"
            )
        if not self.is_local:
            return
        self.check_lasting()
        existing = Path(self._root)
        try:
            while not existing.exists():
                existing = existing.parent
            is_folder = existing.is_dir()
        except OSError as error:  # a name that is too long, a loop of links, no permission
            raise StorageError(
                f"{self._root} cannot be an output folder: {error_reason(error)}; choose another"
            ) from None
        if not is_folder:
            raise StorageError(f"{existing} is a file, expected a folder: choose another output folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise StorageError(
                f"no permission to write in {existing}: change its permissions, or choose another output folder"
            )

    def check_lasting(self) -> None:
        """Check that Ray does not delete the files at the end of a submitted job.

        Raises:
            StorageError: they are in the temporary folder of its working directory, of which every machine has its own.
        """
        if self.is_local and JOB_FOLDER in self._root:
            raise StorageError(
                f"{self._root} is in the temporary working directory of a submitted job, which Ray deletes: expected "
                f"an absolute path that all machines of the cluster see, or the URL of an object store"
            )

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
        file_name(name, "Storage.write: name")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"Storage.write: data: expected bytes, got {type(data).__name__}")
        try:
            if self.is_local:
                self._write_local(self.path(name), data)
            else:
                self.filesystem.pipe_file(self.path(name), data)
        except Exception as error:  # each object store has its own exception classes
            raise self._cannot_write(name, data, error) from None

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a whole file unless it exists.

        Only S3 decides this within the request (`If-None-Match`). Other storages, and S3-compatible stores that do not
        know the header, replace the file.

        Returns:
            False if the file exists, or if another writer is writing it; it is unchanged then.

        Raises:
            StorageError: the file could not be written.
        """
        if not self._is_s3:
            self.write(name, data)
            return True
        try:
            self.filesystem.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if code == "ConditionalRequestConflict":
                return False
            if code != "NotImplemented":
                raise self._cannot_write(name, data, error) from None
            self.write(name, data)
        return True

    def _cannot_write(self, name: str, data: bytes, error: Exception) -> StorageError:
        return StorageError(
            f"cannot write {self.path(name)} ({len(data)} bytes): {error_reason(error)}. Committed results are kept: "
            f"free some space or repair the storage, then run the same command again to resume"
        )

    def _write_local(self, path: str, data: bytes) -> None:
        temporary = self.path(f"{self._temporary}/{uuid.uuid4().hex}")
        with atomic_path(path, temporary) as part, create(part) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it does not exist.

        Raises:
            StorageError: the storage could not be read.
        """
        return self.read_many([file_name(name, "Storage.read: name")]).get(name)

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return name → content for the files that exist. Object stores are read concurrently.

        Raises:
            StorageError: the storage could not be read.
        """
        names = list(names)
        try:
            if self.is_local:
                return {name: data for name in names if (data := read_whole(self.path(name))) is not None}
            if len(names) == 1:
                return {names[0]: self.filesystem.cat_file(self.path(names[0]), **self._read_options)}
            return self._read_remote(names) if names else {}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StorageError(
                f"cannot read files in {self.url}: {error_reason(error)}. Check the connection and the permissions, "
                f"then run the same command again"
            ) from None

    def _read_remote(self, names: list[str]) -> dict[str, bytes]:
        paths = [self.path(name) for name in names]
        results = self.filesystem.cat(paths, on_error="return", **self._read_options)
        for result in results.values():
            if isinstance(result, Exception) and not isinstance(result, FileNotFoundError):
                raise result  # a lost connection must not look like a missing file
        contents = {name: results.get(self.path(name)) for name in names}
        return {name: data for name, data in contents.items() if isinstance(data, bytes)}

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Read parts of files, given as (name, start, end). A part that does not exist is empty.

        Raises:
            StorageError: the storage could not be read.
        """
        try:
            if self.is_local:
                return [read_range(self.path(name), start, end) for name, start, end in ranges]
            names, starts, ends = zip(*ranges, strict=True) if ranges else ((), (), ())
            parts = self.filesystem.cat_ranges(
                [self.path(name) for name in names], list(starts), list(ends), on_error="return"
            )
            for part in parts:
                if isinstance(part, Exception) and not isinstance(part, FileNotFoundError):
                    raise part
            return [part if isinstance(part, bytes) else b"" for part in parts]
        except Exception as error:
            raise StorageError(
                f"cannot read files in {self.url}: {error_reason(error)}. Check the connection and the permissions, "
                f"then run the same command again"
            ) from None

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
                f"cannot list {top}: {error_reason(error)}. Check the connection and the permissions, then run "
                f"the same command again"
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
            raise StorageError(f"{self.url} is a file, expected a folder") from None
        except Exception as error:
            raise StorageError(
                f"cannot list {self.url}: {error_reason(error)}. Check the connection and the permissions"
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
                f"cannot list {self.url}: {error_reason(error)}. Check the connection and the permissions"
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
                f"cannot remove {self.path(name)}: {error_reason(error)}. Check the permissions, then run the "
                f"same command again"
            ) from None

    def remove_many(self, names: Iterable[str]) -> None:
        """Remove files, those of an object store with as few requests as it allows. Missing ones are ignored.

        Raises:
            StorageError: a file could not be removed. Others may have been.
        """
        names = list(names)
        if self.is_local:
            for name in names:
                self.remove(name)
            return
        try:
            if names:
                self.filesystem.rm([self.path(name) for name in names])
        except Exception:  # some file systems stop at the first missing file, and each has its own exceptions
            for name in names:
                self.remove(name)

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and everything in it, if it exists.

        Raises:
            StorageError: an object store could not remove it.
        """
        top = self.path(folder)
        if self.is_local:
            shutil.rmtree(top, ignore_errors=True)
            return
        try:
            if self.filesystem.exists(top):
                self.filesystem.rm(top, recursive=True)
        except Exception as error:
            raise StorageError(
                f"cannot remove {top}: {error_reason(error)}. Check the permissions, then run the "
                f"same command again"
            ) from None

    def sweep(self) -> None:
        """Remove what killed writers left and what is older than `STALE_S`: temporary files, unfinished uploads."""
        if self._is_s3:
            self._abort_uploads()
        if not self.is_local:
            return
        for path in Path(self.path(self._temporary)).glob("*"):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except FileNotFoundError:
                pass  # its writer finished in the meantime

    def _abort_uploads(self) -> None:
        """End the multipart uploads below the root that were never completed; the store bills their parts."""
        bucket, _, prefix = self._root.partition("/")
        try:
            for upload in self.filesystem.list_multipart_uploads(bucket):
                is_old = time.time() - upload["Initiated"].timestamp() > STALE_S
                if is_old and upload["Key"].startswith(f"{prefix.rstrip('/')}/".lstrip("/")):
                    self.filesystem.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        except Exception:  # not permitted, or already aborted by another process: only storage is lost
            pass


def _is_server_error(error: Exception) -> bool:
    """Whether s3fs shall repeat a request when botocore's attempts are used up; it does after "slow down" anyway."""
    return getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500


def _driver_advice(url: str) -> str:
    """How to install the driver of a URL's scheme."""
    extra = EXTRAS.get(url.partition("://")[0].lower())
    return f'pip install "menagerie4d[{extra}]" brings it' if extra else "install it with pip"


def error_reason(error: Exception) -> str:
    """The cause of an error on one line; each object store has its own exception classes."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
