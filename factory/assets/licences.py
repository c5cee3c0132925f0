"""Conversion of licence strings to SPDX expressions, and the licence policies of datasets."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

from zoo.licences import SHAREABLE, TERMS, UNKNOWN, permits, publishable

__all__ = ["POLICIES", "UNKNOWN", "Claim", "Policy", "attribution", "publishable", "to_spdx"]

_IDS = {name.lower(): name for name in TERMS}
# Complete strings in lower case: GitHub's licence names (used in Objaverse-XL's tables) and Thingiverse's, where the
# patterns below do not cover them.
_NAMES = {
    'bsd 2-clause "simplified" license': "BSD-2-Clause",
    'bsd 3-clause "new" or "revised" license': "BSD-3-Clause",
    "bsd 3-clause clear license": "BSD-3-Clause-Clear",
    'bsd 4-clause "original" or "old" license': "BSD-4-Clause",
    "bsd-2-clause plus patent license": "BSD-2-Clause-Patent",
    "bsd zero clause license": "0BSD",
    "bsd license": "BSD-3-Clause",  # unspecified; BSD-3-Clause is stricter than BSD-2-Clause
    "mit no attribution": "MIT-0",
    "isc license": "ISC",
    "zlib license": "Zlib",
    "the unlicense": "Unlicense",
    "boost software license 1.0": "BSL-1.0",
    "do what the f*ck you want to public license": "WTFPL",
    "academic free license v3.0": "AFL-3.0",
    "artistic license 2.0": "Artistic-2.0",
    "blue oak model license 1.0.0": "BlueOak-1.0.0",
    "educational community license v2.0": "ECL-2.0",
    "latex project public license v1.3c": "LPPL-1.3c",
    "mulan permissive software license, version 2": "MulanPSL-2.0",
    "postgresql license": "PostgreSQL",
    "universal permissive license v1.0": "UPL-1.0",
    "university of illinois/ncsa open source license": "NCSA",
    "vim license": "Vim",
    "cern open hardware licence version 2 - permissive": "CERN-OHL-P-2.0",
    "cern open hardware licence version 2 - strongly reciprocal": "CERN-OHL-S-2.0",
    "cern open hardware licence version 2 - weakly reciprocal": "CERN-OHL-W-2.0",
    "cecill free software license agreement v2.1": "CECILL-2.1",
    "creative commons zero v1.0 universal": "CC0-1.0",
    "eclipse public license 1.0": "EPL-1.0",
    "eclipse public license 2.0": "EPL-2.0",
    "european union public license 1.1": "EUPL-1.1",
    "european union public license 1.2": "EUPL-1.2",
    "gnu affero general public license v3.0": "AGPL-3.0-only",
    "gnu free documentation license v1.3": "GFDL-1.3-only",
    "gnu general public license v2.0": "GPL-2.0-only",
    "gnu general public license v3.0": "GPL-3.0-only",
    "gnu lesser general public license v2.1": "LGPL-2.1-only",
    "gnu lesser general public license v3.0": "LGPL-3.0-only",
    "gnu - gpl": "GPL-1.0-or-later",  # without a version, any published version may be chosen (stated in the GPL)
    "gnu - lgpl": "LGPL-2.0-or-later",
    "microsoft public license": "MS-PL",
    "microsoft reciprocal license": "MS-RL",
    "mozilla public license 2.0": "MPL-2.0",
    "open data commons open database license v1.0": "ODbL-1.0",
    "open software license 3.0": "OSL-3.0",
    "sil open font license 1.1": "OFL-1.1",
    "public domain": "LicenseRef-Public-Domain",
}
# Matched after lower-casing and replacing every run of spaces, underscores and hyphens with one hyphen.
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


def to_spdx(text: object) -> str:
    """Return the SPDX expression for a licence string.

    Several licences in one string (for example, of a model and of its animation) are joined with AND, or with OR if
    the text offers a choice. Creative Commons licences without a version are taken as 4.0, the version in use at the
    supported sources.

    Returns:
        The SPDX expression, or "unknown" if the value is not a string or no licence is recognised.
    """
    if not isinstance(text, str) or len(text) > 10_000:
        return UNKNOWN
    text = " ".join(text.lower().split())
    if text in _NAMES:
        return _NAMES[text]
    parts = re.split(r" (and|or) ", text)
    if all(part in _IDS for part in parts[::2]):  # already an SPDX expression
        return " ".join(_IDS.get(part, part.upper()) for part in parts)
    text = re.sub(r"[\s_-]+", "-", text)
    if re.fullmatch(_BY, text):  # "by-nc", the abbreviation in Objaverse's records
        text = f"cc-{text}"
    matches = [(match.span(), _creative_commons(match)) for match in re.finditer(_ATTRIBUTION, text)]
    for pattern, name in _OTHERS:
        matches += [(match.span(), name) for match in re.finditer(pattern, text)]
    matches.sort()
    between = [
        text[end:start]
        for ((_, end), name), ((start, _), following) in pairwise(matches)
        if name != following
    ]
    choice = all(re.search(r"\bor\b", gap) for gap in between)
    return (" OR " if choice else " AND ").join(dict.fromkeys(name for _, name in matches)) or UNKNOWN


def _creative_commons(match: re.Match) -> str:
    terms = [name for name, pattern in _TERMS if re.search(rf"-(?:{pattern})\b", match["terms"])]
    return "-".join(["CC-BY", *terms, match["version"] or "4.0"])


# Preset → accepted licence terms (see above); None accepts all.
POLICIES: dict[str, frozenset[str] | None] = {
    "any": None,
    "research": SHAREABLE,
    "commercial": frozenset({"", "-SA"}),
    "permissive-only": frozenset({""}),
}


class Claim(Protocol):
    """The licence fields that a policy checks, as implemented by `AssetRecord`.

    `unsettled` means that the licence or NoAI status may still be resolved (see `AssetRecord.unsettled`).
    """

    @property
    def licence(self) -> str: ...

    @property
    def noai(self) -> str: ...

    @property
    def unsettled(self) -> bool: ...


@dataclass(frozen=True)
class Policy:
    """Which licences are accepted, and whether an unknown licence or NoAI status is.

    Attributes:
        name: "any"; "research" (no ND, nothing proprietary); "commercial" (no NC either); "permissive-only" (no
            share-alike or copyleft either). Assets whose author forbids AI use are refused by every policy.
        allow_unknown_licence, allow_unknown_noai: accept an unknown licence or NoAI status. "any" always does.
        licences: accepted SPDX expressions; empty accepts all that the policy allows.
        allow_no_derivatives: accept ND licences whose other terms the policy accepts. "any" always does.
    """

    name: str = "any"
    allow_unknown_licence: bool = False
    allow_unknown_noai: bool = False
    licences: tuple[str, ...] = ()
    allow_no_derivatives: bool = False

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ValueError(f"policy {self.name!r}: expected one of {', '.join(POLICIES)}")

    @classmethod
    def from_json(cls, data: dict) -> Policy:
        return cls(**{**data, "licences": tuple(data.get("licences", ()))})

    def to_json(self) -> dict[str, Any]:
        """Return the fields. `allow_no_derivatives` is omitted if false: task payloads of before do not have it."""
        fields = asdict(self)
        if not self.allow_no_derivatives:
            del fields["allow_no_derivatives"]
        return fields

    @property
    def takes_unknown_noai(self) -> bool:
        return POLICIES[self.name] is None or self.allow_unknown_noai

    def refusal(self, claim: Claim) -> str:
        """Return why an asset is refused, or "". An unsettled asset is refused only for what is already known."""
        if claim.noai == "yes":
            return "noai: the author forbids AI use"
        permitted = POLICIES[self.name]
        known = claim.licence != UNKNOWN
        if self.licences and claim.licence not in self.licences and (known or not claim.unsettled):
            return f"licence: {claim.licence} was not asked for"
        if permitted is None:
            return ""
        if known and not permits(claim.licence, permitted):
            if not permits(claim.licence, _with_no_derivatives(permitted)):
                return f"licence: {claim.licence} is not in the policy {self.name}"
            if not self.allow_no_derivatives:
                return (
                    f"licence: {claim.licence} is not in the policy {self.name}: it forbids derivatives, which "
                    f"renderings are (--allow-no-derivatives takes it)"
                )
        if claim.unsettled:
            return ""
        if claim.licence == UNKNOWN and not self.allow_unknown_licence:
            return "licence: unknown (--allow-unknown-licence takes it)"
        if claim.noai != "no" and not self.allow_unknown_noai:
            return "noai: unknown (--allow-unknown-noai takes it)"
        return ""


def _with_no_derivatives(permitted: frozenset[str]) -> frozenset[str]:
    """Return licence terms together with the same terms and ND; ND excludes SA, so BY-SA has no such variant."""
    return permitted | {f"{terms}-ND" for terms in permitted if "-SA" not in terms}


def attribution(title: str, author: str, source_url: str, licence: str) -> str:
    """Return the credit line of an asset: title, author, licence and, if known, URL."""
    for name, value in (
        ("title", title),
        ("author", author),
        ("source_url", source_url),
        ("licence", licence),
    ):
        if not isinstance(value, str | None):
            raise TypeError(f"attribution: {name}: expected a text, got {value!r}")
    if not licence:
        raise ValueError('attribution: licence: expected a licence, "unknown" if it is not known, got none')
    line = f'"{title or "Untitled"}" by {author or "an unnamed author"}, licence: {licence}'
    return f"{line}, {source_url}" if source_url else line
