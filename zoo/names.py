"""Names of models, family/name[@revision] with an optional source before it, and of repositories on the hub."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from zoo.errors import UnknownModelError

SOURCES = ("local", "bundled", "hub")
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PATH = rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?"
_NAME = re.compile(rf"(?:({'|'.join(SOURCES)}):)?{_PATH}")
_HUB = re.compile(rf"(?:(?:hub:|hf://)(?:(models|datasets)/)?)?{_PATH}")
HUB_SCHEMES = ("hub:", "hf://")


def parse(name: str, known: Callable[[], Sequence[str]]) -> tuple[str | None, str, str | None]:
    """Split the name of a model into source or None, "family/name", and revision or None.

    Args:
        name: as the user wrote it; see `parse_hub` for the names of models on the hub.
        known: returns names to suggest; called if the name is malformed.

    Raises:
        UnknownModelError: it is malformed, could lead to another folder, or is the address of a dataset.
    """
    if name.startswith(HUB_SCHEMES):
        try:
            return "hub", *parse_hub(name, "model")
        except ValueError as error:
            raise UnknownModelError(str(error)) from None
    match = _NAME.fullmatch(name)
    if match is None or ".." in name or "--" in name:
        raise UnknownModelError(
            f"{name!r} is not a model name: expected family/name, local:family/name or hub:org/name, optionally "
            f"followed by @revision{suggestions(name, known())}"
        )
    return match[1], match[2], match[3]


def parse_hub(name: str, kind: str) -> tuple[str, str | None]:
    """Split the name of a repository on the hub into "org/name", and revision or None.

    Args:
        name: "hub:org/name[@revision]"; the address that fsspec opens, "hf://org/name" of a model or
            "hf://datasets/org/name" of a dataset; or "org/name".
        kind: "model" or "dataset".

    Raises:
        ValueError: it is malformed, or the address of a repository of the other kind.
    """
    match = _HUB.fullmatch(name)
    expected = f"hub:org/name or hf://{'datasets/' if kind == 'dataset' else ''}org/name"
    if match is None or ".." in name or "--" in name:
        noun = "repository" if kind == "dataset" else "model"
        raise ValueError(
            f"{name!r} is not a {noun} name: expected {expected}, optionally with @revision at its end"
        )
    stated = match[1] or ("models" if name.startswith("hf://") else f"{kind}s")
    if stated != f"{kind}s":
        reader = "factory.load_clips loads datasets" if kind == "model" else "zoo.load loads models"
        raise ValueError(
            f"{name!r} is the address of a {stated[:-1]}: {reader}; expected a {kind}, {expected}"
        )
    return match[2], match[3]


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
