"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error is that of a full disk, an exceeded quota or a limit on the size of files."""
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` on success and removed on failure.

    The temporary name keeps the suffix of `path`, since some writers choose the format by it. The error of a full disk
    names `path`; the system's own names no file.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        part.unlink(missing_ok=True)
