"""Licence strings as people write them, to SPDX expressions."""

from __future__ import annotations

import re
from itertools import pairwise

UNKNOWN = "unknown"

# Matched after lower-casing and with every space and underscore turned into a hyphen.
_TERMS = (("NC", "nc|non-?commercial"), ("SA", "sa|share-?alike"), ("ND", r"nd|no-?deriv\w*"))
_ANY_TERM = "|".join(pattern for _, pattern in _TERMS)
_BY = rf"(?:by|attribution)(?P<terms>(?:-(?:{_ANY_TERM}))*)\b(?:[-/]*v?(?P<version>\d\.\d))?"
_ATTRIBUTION = rf"(?:\bcc-?|creative-?commons-|creativecommons\.org/licenses/){_BY}"
_OTHERS = (
    (r"\bcc-?0\b(?:-1\.0)?|publicdomain/zero|public-domain-dedication", "CC0-1.0"),
    (r"\bapache(?:-?licen[cs]e)?[-,]*(?:version-)?v?2(?:\.0)?\b", "Apache-2.0"),
    (r"\bbsd-?3(?:-clause)?\b", "BSD-3-Clause"),
    (r"\bbsd-?2(?:-clause)?\b", "BSD-2-Clause"),
    (r"\bmit\b", "MIT"),
    (r"\bunlicense\b", "Unlicense"),
)


def to_spdx(text: str | None) -> str:
    """An SPDX expression for a licence string, "unknown" if none is recognised.

    Several licences in one string (a model and its animation, say) all bind: they are joined with AND, or
    with OR where the text itself offers a choice. A Creative Commons licence without a version is 4.0, the
    version the sources of this field use.
    """
    text = re.sub(r"[\s_]+", "-", (text or "").strip().lower())
    if re.fullmatch(_BY, text):  # "by-nc": how Objaverse's records abbreviate it
        text = f"cc-{text}"
    found = [(match.span(), _creative_commons(match)) for match in re.finditer(_ATTRIBUTION, text)]
    for pattern, name in _OTHERS:
        found += [(match.span(), name) for match in re.finditer(pattern, text)]
    found.sort()
    between = [
        text[end:start] for ((_, end), name), ((start, _), following) in pairwise(found) if name != following
    ]
    choice = all(re.search(r"\bor\b", gap) for gap in between)
    return (" OR " if choice else " AND ").join(dict.fromkeys(name for _, name in found)) or UNKNOWN


def _creative_commons(match: re.Match) -> str:
    terms = [name for name, pattern in _TERMS if re.search(rf"-(?:{pattern})\b", match["terms"])]
    return "-".join(["CC-BY", *terms, match["version"] or "4.0"])
