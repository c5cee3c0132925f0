"""Which licences permit sharing: one policy for the clips of a dataset and for the models trained on them."""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN = "unknown"
# Conditions that each licence imposes on sharing renders of a model. "-NC": non-commercial; "-SA": share alike; "-ND":
# not allowed, because a rendered clip is an adaptation. Software licences are listed because models on GitHub use them.
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
# Sketchfab's own licences, which do not allow redistribution.
_RESERVED = tuple(f"LicenseRef-Sketchfab-{name}" for name in ("Standard", "Editorial", "Free-Standard"))
TERMS = {
    **_CREATIVE_COMMONS,
    **dict.fromkeys(_PERMISSIVE, ""),
    **dict.fromkeys(_COPYLEFT, "-SA"),
    **dict.fromkeys(_RESERVED, "reserved"),
}
# Terms of licences under which a work made from the model, such as a clip, may be shared.
SHAREABLE = frozenset({"", "-SA", "-NC", "-NC-SA"})


def publishable(metadata: Mapping) -> str:
    """Return why a clip may not be published, or "" if it may.

    Args:
        metadata: the clip's row, or its columns `licence`, `source`, `attribution` and `noai`.
    """
    for name in ("licence", "source", "attribution"):
        if not str(metadata.get(name) or "").strip():
            return f"no {name}"
    if metadata.get("noai") == "yes":
        return "the author forbids AI use"
    licence = metadata["licence"]
    if licence == UNKNOWN:
        return "licence unknown"
    if not permits(licence, SHAREABLE):
        return f"licence {licence} does not let anybody share what is made from the model"
    return ""


def permits(licence: str, permitted: frozenset[str]) -> bool:
    """Return whether every licence of at least one OR alternative imposes only permitted conditions."""
    choices = [choice.split(" AND ") for choice in licence.split(" OR ")]
    return any(all(TERMS.get(name) in permitted for name in names) for names in choices)
