"""Canonical JSON and SHA-256: the same content has the same hash wherever and by whomever it is written."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any


def canonical(content: Any) -> bytes:
    """JSON as bytes with sorted keys, no spaces and no escapes beyond those that JSON requires (UTF-8).

    Raises:
        ValueError: the content has NaN, an infinity, or a value that is not JSON.
    """
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise ValueError(f"canonical: expected JSON values: {error}") from None


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of a value, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(content)).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
