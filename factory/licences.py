"""Licence strings as people write them, to SPDX expressions."""

from __future__ import annotations

import re

UNKNOWN = "unknown"

# Checked in this order; the first pattern that matches a stretch of text consumes it.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"cc[-_ ]?by[-_ ]nc[-_ ]sa(?:[-_ ]?(?P<v>\d\.\d))?", "CC-BY-NC-SA-{v}"),
    (r"cc[-_ ]?by[-_ ]nc[-_ ]nd(?:[-_ ]?(?P<v>\d\.\d))?", "CC-BY-NC-ND-{v}"),
    (r"cc[-_ ]?by[-_ ]nc(?:[-_ ]?(?P<v>\d\.\d))?", "CC-BY-NC-{v}"),
    (r"cc[-_ ]?by[-_ ]sa(?:[-_ ]?(?P<v>\d\.\d))?", "CC-BY-SA-{v}"),
    (r"cc[-_ ]?by[-_ ]nd(?:[-_ ]?(?P<v>\d\.\d))?", "CC-BY-ND-{v}"),
    (r"cc[-_ ]?by(?:[-_ ]?(?P<v>\d\.\d))?", "CC-BY-{v}"),
    (r"cc[-_ ]?0(?:[-_ ]?1\.0)?|public domain dedication", "CC0-1.0"),
    (r"apache(?:[-_ ]?licen[cs]e)?[-_ ,]*(?:version )?2(?:\.0)?", "Apache-2.0"),
    (r"bsd[-_ ]?3(?:[-_ ]clause)?", "BSD-3-Clause"),
    (r"bsd[-_ ]?2(?:[-_ ]clause)?", "BSD-2-Clause"),
    (r"\bmit\b", "MIT"),
    (r"\bunlicense\b", "Unlicense"),
)


def to_spdx(text: str | None) -> str:
    """An SPDX expression for a licence string, "unknown" if none is recognised.

    Several licences in one string (a model and its animation, say) all bind: they are joined with AND, or
    with OR where the text itself offers a choice. A Creative Commons licence without a version is 4.0, the
    version the sources of this field use.
    """
    rest, found = (text or "").lower(), []
    for pattern, name in _PATTERNS:

        def take(match: re.Match, name: str = name) -> str:
            version = match.groupdict().get("v") or "4.0"
            found.append((match.start(), name.format(v=version)))
            return " " * len(match.group())

        rest = re.sub(pattern, take, rest)
    names = list(dict.fromkeys(name for _, name in sorted(found)))
    choice = len(names) == 2 and re.search(r"\w\s+or\s+\w", (text or "").lower())
    return (" OR " if choice else " AND ").join(names) or UNKNOWN
