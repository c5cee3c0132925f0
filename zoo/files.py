"""Files that appear complete or not at all, and the errors of full disks."""

from __future__ import annotations

import errno

from renderers.files import atomic_path

__all__ = ["atomic_path", "is_disk_full"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error is that of a full disk, an exceeded quota or a limit on the size of files."""
    return isinstance(error, OSError) and error.errno in _FULL
