"""Sanitise untrusted metadata: check types, limit lengths and remove invisible characters.

Every function except `parse` accepts any value and never raises. Invalid values are treated as missing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

_LONGEST = 300
_MOST_TAGS = 100


def parse(data: bytes | str) -> Any:
    """Parse JSON, truncating integers to 19 characters so that very long ones do not raise.

    Raises:
        ValueError: the data is not valid JSON.
        RecursionError: the data is nested too deeply.
    """
    return json.loads(data, parse_int=lambda digits: int(digits[:19]))


def text(value: Any, longest: int = _LONGEST) -> str:
    """Return a value as one line of text without control, formatting or unpaired surrogate characters.

    Args:
        value: a string or a number; anything else gives "".
        longest: maximum length in characters. Longer text is cut and ends in "…".
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        value = str(value)
    if not isinstance(value, str):
        return ""
    # Unicode category "C" covers controls, bidirectional overrides, surrogates and unassigned code points. The
    # zero-width joiner (U+200D) is kept because emoji and several scripts need it.
    value = value[: 20 * longest]
    kept = "".join(c if c == "\u200d" or unicodedata.category(c)[0] != "C" else " " for c in value)
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else kept[: longest - 1].rstrip() + "…"


def number(value: Any) -> int | None:
    """Return a count (an integer in [0, 10^12]), or None if the value is not one."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip(), re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**12:
        return None
    return value


def address(value: Any) -> str:
    """Return an http(s) URL of at most 2,000 characters, or "" if the value is not one."""
    value = value.strip() if isinstance(value, str) else ""
    if len(value) > 2000 or not re.fullmatch(
        r"https?://[^\s\x00-\x20\x7f<>\"\\^`{|}]+", value, re.IGNORECASE
    ):
        return ""
    try:
        return value if urlsplit(value).hostname and value.isprintable() else ""
    except ValueError:
        return ""


def tags(value: Any) -> tuple[str, ...]:
    """Return up to 100 distinct lower-case tags.

    Args:
        value: a string separated by `;` or `,`, or a list of strings or of objects with a `slug` or `name`.
    """
    if isinstance(value, str):
        value = re.split(r"[;,]", value)
    if not isinstance(value, list | tuple):
        return ()
    names = (item.get("slug") or item.get("name") if isinstance(item, dict) else item for item in value)
    words = (text(name, 60).lower() for name in _first(names, _MOST_TAGS))
    return tuple(dict.fromkeys(word for word in words if word))


def sha256(value: Any) -> str:
    """Return a hexadecimal SHA-256 in lower case, or "" if the value is not one."""
    value = value.strip().lower() if isinstance(value, str) else ""
    return value if re.fullmatch(r"[0-9a-f]{64}", value) else ""


def mapping(value: Any) -> dict[str, Any]:
    """Return the value if it is a dictionary, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def _first(values: Iterable[Any], count: int) -> Iterable[Any]:
    return (value for value, _ in zip(values, range(count), strict=False))
