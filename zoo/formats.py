"""File formats of results, chosen by the suffix of the file's name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def check_suffix(path: str | os.PathLike[str], suffixes: Iterable[str], what: str) -> None:
    """Refuse a name whose suffix is not that of a format, in any case, before anything is computed or written.

    Args:
        path: of the file.
        suffixes: supported ones, such as ".mp4".
        what: the results, plural, for the message.

    Raises:
        ValueError: one sentence that lists the formats.
    """
    if (suffix := Path(path).suffix).lower() not in suffixes:
        raise ValueError(
            f"{os.fspath(path)}: {what} are saved as one of {', '.join(suffixes)}, got {suffix or 'no suffix'!r}; "
            f"choose a name with such an ending"
        )
