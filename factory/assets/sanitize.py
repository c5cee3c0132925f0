"""What strangers wrote about their models, made safe to store: right types, bounded, nothing invisible.

Every reader but `parse` takes anything at all and never raises; what makes no sense counts as absent.
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
    """JSON, also where one number has thousands of digits. Raises ValueError or RecursionError if it is none."""
    return json.loads(data, parse_int=lambda digits: int(digits[:19]))


def text(value: Any, longest: int = _LONGEST) -> str:
    """One line without control, formatting and unpaired surrogate characters; "" if it is no string or number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        value = str(value)
    if not isinstance(value, str):
        return ""
    # "C": controls, bidirectional overrides, surrogates, unassigned. The joiner of emoji and of many scripts stays.
    value = value[: 20 * longest]
    kept = "".join(c if c == "\u200d" or unicodedata.category(c)[0] != "C" else " " for c in value)
    kept = " ".join(kept.split())
    return kept if len(kept) <= longest else kept[: longest - 1].rstrip() + "…"


def number(value: Any) -> int | None:
    """A count: a whole number from 0 to 10^12, None otherwise."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip(), re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**12:
        return None
    return value


def address(value: Any) -> str:
    """A web address, "" otherwise."""
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
    """Words, lower-case, from a list of strings or of objects with a `slug` or `name`."""
    if isinstance(value, str):
        value = re.split(r"[;,]", value)
    if not isinstance(value, list | tuple):
        return ()
    names = (item.get("slug") or item.get("name") if isinstance(item, dict) else item for item in value)
    words = (text(name, 60).lower() for name in _first(names, _MOST_TAGS))
    return tuple(dict.fromkeys(word for word in words if word))


def sha256(value: Any) -> str:
    """A hexadecimal SHA-256 in lower case, "" otherwise."""
    value = value.strip().lower() if isinstance(value, str) else ""
    return value if re.fullmatch(r"[0-9a-f]{64}", value) else ""


def mapping(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _first(values: Iterable[Any], count: int) -> Iterable[Any]:
    return (value for value, _ in zip(values, range(count), strict=False))
