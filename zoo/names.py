"""Names of models: family/name[@revision], with an optional source before it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from zoo.errors import UnknownModelError

SOURCES = ("local", "bundled", "hub")
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME = re.compile(rf"(?:({'|'.join(SOURCES)}):)?({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")


def parse(name: str, known: Callable[[], Sequence[str]]) -> tuple[str | None, str, str | None]:
    """Split a name into source or None, "family/name", and revision or None.

    Args:
        name: as the user wrote it.
        known: returns names to suggest; called if the name is malformed.

    Raises:
        UnknownModelError: it is malformed, or could lead to another folder.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name or "--" in name:
        raise UnknownModelError(
            f"{name!r} is not a model name: expected family/name, local:family/name or hub:org/name, optionally "
            f"followed by @revision{suggestions(name, known())}"
        )
    return match[1], match[2], match[3]


def suggestions(name: str, known: Sequence[str]) -> str:
    """The end of an error message: known names similar to this one, in whole or in their second half."""
    path = name.rpartition(":")[2].partition("@")[0]
    similar = difflib.get_close_matches(path, known, n=3, cutoff=0.6)
    seconds = difflib.get_close_matches(
        path.rpartition("/")[2], {each.rpartition("/")[2] for each in known}, n=3, cutoff=0.6
    )
    similar += [each for each in known if each.rpartition("/")[2] in seconds and each not in similar]
    if similar:
        return f"; similar names: {', '.join(similar[:3])}"
    if known:
        return f"; known here: {', '.join(known[:5])}{' …' if len(known) > 5 else ''}"
    return "; there are no models here yet: zoo.publish adds one to the local registry"
