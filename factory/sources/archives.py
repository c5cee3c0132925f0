"""Zip archives of models."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from factory.sources.downloads import DeadLink

LARGEST_UNZIPPED = 4 * 2**30  # bytes


def unzip(archive: Path, folder: Path, uid: str) -> None:
    """Unpack a zip archive, skipping entries outside `folder` and refusing more than 4 GiB of content.

    Args:
        archive: the archive; its name may have any suffix.
        folder: an existing folder, to which the entries are written.
        uid: the asset, for error messages.

    Raises:
        DeadLink: the archive is damaged, encrypted, too large, or names a file twice.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            left = LARGEST_UNZIPPED
            for entry in content.infolist():
                path = PurePosixPath(entry.filename.replace("\\", "/"))
                if entry.is_dir() or path.is_absolute() or ".." in path.parts or not path.parts:
                    continue
                left -= entry.file_size
                if left < 0:
                    raise DeadLink(uid, "its archive unpacks to more than 4 GiB")
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(entry) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # raised by zipfile for unsupported compression
        RuntimeError,  # raised by zipfile for encrypted archives
        FileExistsError,
        NotADirectoryError,
    ) as error:
        raise DeadLink(uid, f"its archive cannot be unpacked ({type(error).__name__})") from None
