"""Licence strings as people write them, to SPDX expressions; and what a dataset may be made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

UNKNOWN = "unknown"
# What each licence asks of who shares pictures of a model: "-NC" no money; "-SA" the same licence again; "-ND" not
# to, a rendered clip being an adaptation. Software licences are here because models on GitHub have them.
_CREATIVE_COMMONS = {
    f"CC-BY{terms}-{version}": terms
    for terms in ("", "-SA", "-ND", "-NC", "-NC-SA", "-NC-ND")
    for version in ("1.0", "2.0", "2.5", "3.0", "4.0")
}
_PERMISSIVE = (
    *("CC0-1.0", "CC-PDDC", "CC-PDM-1.0", "LicenseRef-Public-Domain", "Unlicense", "WTFPL", "0BSD", "MIT-0"),
    *(
        "MIT",
        "ISC",
        "Zlib",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-3-Clause-Clear",
        "BSD-4-Clause",
    ),
    *(
        "BSD-2-Clause-Patent",
        "BSL-1.0",
        "NCSA",
        "PostgreSQL",
        "UPL-1.0",
        "AFL-3.0",
        "ECL-2.0",
        "Artistic-2.0",
    ),
    *("BlueOak-1.0.0", "MulanPSL-2.0", "CERN-OHL-P-2.0", "Vim", "LPPL-1.3c"),
)
_COPYLEFT = (
    *("GPL-1.0-or-later", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later"),
    *("LGPL-2.0-or-later", "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
    *(
        "AGPL-3.0-only",
        "AGPL-3.0-or-later",
        "MPL-2.0",
        "EPL-1.0",
        "EPL-2.0",
        "EUPL-1.1",
        "EUPL-1.2",
        "OSL-3.0",
    ),
    *(
        "MS-PL",
        "MS-RL",
        "CECILL-2.1",
        "ODbL-1.0",
        "OFL-1.1",
        "GFDL-1.3-only",
        "CERN-OHL-S-2.0",
        "CERN-OHL-W-2.0",
    ),
)
# Sketchfab's own, which let a buyer use a model and nobody pass it on.
_RESERVED = tuple(f"LicenseRef-Sketchfab-{name}" for name in ("Standard", "Editorial", "Free-Standard"))
_TERMS_OF = {
    **_CREATIVE_COMMONS,
    **dict.fromkeys(_PERMISSIVE, ""),
    **dict.fromkeys(_COPYLEFT, "-SA"),
    **dict.fromkeys(_RESERVED, "reserved"),
}
_IDS = {name.lower(): name for name in _TERMS_OF}
# Whole strings, lower-cased: the names GitHub gives licences (Objaverse-XL's tables have those) and Thingiverse's,
# as far as the patterns below do not read them.
_NAMES = {
    'bsd 2-clause "simplified" license': "BSD-2-Clause",
    'bsd 3-clause "new" or "revised" license': "BSD-3-Clause",
    "bsd 3-clause clear license": "BSD-3-Clause-Clear",
    'bsd 4-clause "original" or "old" license': "BSD-4-Clause",
    "bsd-2-clause plus patent license": "BSD-2-Clause-Patent",
    "bsd zero clause license": "0BSD",
    "bsd license": "BSD-3-Clause",  # which one is not said; this one asks for more than BSD-2-Clause
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
    "gnu - gpl": "GPL-1.0-or-later",  # no version given: any ever published, as the GPL itself says
    "gnu - lgpl": "LGPL-2.0-or-later",
    "microsoft public license": "MS-PL",
    "microsoft reciprocal license": "MS-RL",
    "mozilla public license 2.0": "MPL-2.0",
    "open data commons open database license v1.0": "ODbL-1.0",
    "open software license 3.0": "OSL-3.0",
    "sil open font license 1.1": "OFL-1.1",
    "public domain": "LicenseRef-Public-Domain",
}
# Matched after lower-casing, every run of spaces, underscores and hyphens being one hyphen.
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
    """An SPDX expression for a licence string, "unknown" if none is recognised (or it is no string).

    Several licences in one string (a model and its animation, say) all bind: they are joined with AND, or
    with OR where the text itself offers a choice. A Creative Commons licence without a version is 4.0, the
    version the sources of this field use.
    """
    if not isinstance(text, str) or len(text) > 10_000:
        return UNKNOWN
    text = " ".join(text.lower().split())
    if text in _NAMES:
        return _NAMES[text]
    parts = re.split(r" (and|or) ", text)
    if all(part in _IDS for part in parts[::2]):  # an expression already
        return " ".join(_IDS.get(part, part.upper()) for part in parts)
    text = re.sub(r"[\s_-]+", "-", text)
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


# Preset → the terms above that it puts up with.
_RESEARCH = frozenset({"", "-SA", "-NC", "-NC-SA"})
POLICIES: dict[str, frozenset[str] | None] = {
    "any": None,
    "research": _RESEARCH,
    "commercial": frozenset({"", "-SA"}),
    "permissive-only": frozenset({""}),
}


class Claim(Protocol):
    """What a policy looks at; an `AssetRecord` is one. `unsettled`: the answer may still come (see there)."""

    @property
    def licence(self) -> str: ...

    @property
    def noai(self) -> str: ...

    @property
    def unsettled(self) -> bool: ...


@dataclass(frozen=True)
class Policy:
    """Which licences are put up with, and whether not knowing is.

    Attributes:
        name: "any"; "research" (no ND, nothing proprietary); "commercial" (no NC either); "permissive-only" (no
            share-alike or copyleft either). Whatever the name, an author's "no AI" is obeyed.
        allow_unknown_licence, allow_unknown_noai: take what nobody could tell. "any" does so by itself.
        licences: if not empty, SPDX expressions one of which it has to be.
    """

    name: str = "any"
    allow_unknown_licence: bool = False
    allow_unknown_noai: bool = False
    licences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ValueError(f"policy {self.name!r}: expected one of {', '.join(POLICIES)}")

    @classmethod
    def from_json(cls, data: dict) -> Policy:
        return cls(**{**data, "licences": tuple(data.get("licences", ()))})

    @property
    def takes_unknown_noai(self) -> bool:
        return POLICIES[self.name] is None or self.allow_unknown_noai

    def refusal(self, claim: Claim) -> str:
        """Why the policy leaves an asset out; "" if it does not, or if the asset is unsettled and nothing says no."""
        if claim.noai == "yes":
            return "noai: the author forbids AI use"
        permitted = POLICIES[self.name]
        known = claim.licence != UNKNOWN
        if self.licences and claim.licence not in self.licences and (known or not claim.unsettled):
            return f"licence: {claim.licence} was not asked for"
        if permitted is None:
            return ""
        if known and not _permits(claim.licence, permitted):
            return f"licence: {claim.licence} is not in the policy {self.name}"
        if claim.unsettled:
            return ""
        if claim.licence == UNKNOWN and not self.allow_unknown_licence:
            return "licence: unknown (--allow-unknown-licence takes it)"
        if claim.noai != "no" and not self.allow_unknown_noai:
            return "noai: unknown (--allow-unknown-noai takes it)"
        return ""


def publishable(metadata: Mapping) -> str:
    """Why a clip may not be published, "" if it may.

    Args:
        metadata: its row, or the columns `licence`, `source`, `attribution` and `noai` of it.
    """
    for name in ("licence", "source", "attribution"):
        if not str(metadata.get(name) or "").strip():
            return f"no {name}"
    if metadata.get("noai") == "yes":
        return "the author forbids AI use"
    licence = metadata["licence"]
    if licence == UNKNOWN:
        return "licence unknown"
    if not _permits(licence, _RESEARCH):
        return f"licence {licence} does not let anybody share what is made from the model"
    return ""


def _permits(licence: str, permitted: frozenset[str]) -> bool:
    """Whether an expression's licences all ask for no more than that; of a choice, one of them."""
    choices = [choice.split(" AND ") for choice in licence.split(" OR ")]
    return any(all(_TERMS_OF.get(name) in permitted for name in names) for names in choices)


def attribution(title: str, author: str, source_url: str, licence: str) -> str:
    """The line that credits an asset: title, author, licence and where it came from, as far as known."""
    line = f'"{title or "Untitled"}" by {author or "an unnamed author"}, licence: {licence}'
    return f"{line}, {source_url}" if source_url else line
