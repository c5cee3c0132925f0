"""Licence strings as they stand on model sites, in files and in tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from factory.assets.licences import POLICIES, UNKNOWN, Policy, publishable, to_spdx


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        # As written in SPDX itself.
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("CC0-1.0", "CC0-1.0"),
        ("MIT", "MIT"),
        ("Apache-2.0", "Apache-2.0"),
        ("BSD-3-Clause", "BSD-3-Clause"),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-SA-4.0"),
        # As people write them.
        ("CC0", "CC0-1.0"),
        ("CC-BY", "CC-BY-4.0"),
        ("cc by 3.0", "CC-BY-3.0"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("CC BY-NC-ND", "CC-BY-NC-ND-4.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2", "Apache-2.0"),
        ("MIT License", "MIT"),
        ("BSD 3-Clause", "BSD-3-Clause"),
        # As Objaverse's records abbreviate them.
        ("by", "CC-BY-4.0"),
        ("by-nc", "CC-BY-NC-4.0"),
        ("by-nc-sa", "CC-BY-NC-SA-4.0"),
        ("by-sa", "CC-BY-SA-4.0"),
        ("cc0", "CC0-1.0"),
        # As Sketchfab writes them into the files it exports, and names them on its pages.
        ("CC-BY-4.0 (http://creativecommons.org/licenses/by/4.0/)", "CC-BY-4.0"),
        ("CC-BY-NC-SA-4.0 (http://creativecommons.org/licenses/by-nc-sa/4.0/)", "CC-BY-NC-SA-4.0"),
        ("http://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("CC Attribution", "CC-BY-4.0"),
        ("CC Attribution-NonCommercial-ShareAlike", "CC-BY-NC-SA-4.0"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("CC0 Public Domain", "CC0-1.0"),
        # Two licences for two parts both bind; a choice is a choice.
        ("model CC0 (PixelMannen); rig+animation CC-BY-4.0 (@tomkranis)", "CC0-1.0 AND CC-BY-4.0"),
        ("MIT OR Apache-2.0 (repo)", "MIT OR Apache-2.0"),
        ("CC-BY or MIT", "CC-BY-4.0 OR MIT"),
        ("Licensed under CC-BY.", "CC-BY-4.0"),
        ("CC-BY by Someone", "CC-BY-4.0"),
        ("CC-BY-4.0 + Cesium trademark limits", "CC-BY-4.0"),
    ],
)
def test_what_people_write(text, expression):
    assert to_spdx(text) == expression


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "unknown",
        "all rights reserved",
        "Sketchfab Standard",
        "Royalty free",
        "permitted use",
        "by Norberto",
        "accommodated by request",
        "Editorial",
    ],
)
def test_what_is_no_licence_is_unknown(text):
    """Never guessed: a word that happens to contain one is none."""
    assert to_spdx(text) == UNKNOWN


def test_normalising_twice_changes_nothing():
    for text in ("cc by 3.0", "MIT OR Apache-2.0", "CC0 and cc-by-sa", "unknown"):
        assert to_spdx(to_spdx(text)) == to_spdx(text)


# --- every string that the sources use ----------------------------------------------------------------

# Sketchfab: the slug and the label its API gives.
SKETCHFAB = {
    ("by", "CC Attribution"): "CC-BY-4.0",
    ("by-sa", "CC Attribution-ShareAlike"): "CC-BY-SA-4.0",
    ("by-nd", "CC Attribution-NoDerivs"): "CC-BY-ND-4.0",
    ("by-nc", "CC Attribution-NonCommercial"): "CC-BY-NC-4.0",
    ("by-nc-sa", "CC Attribution-NonCommercial-ShareAlike"): "CC-BY-NC-SA-4.0",
    ("by-nc-nd", "CC Attribution-NonCommercial-NoDerivs"): "CC-BY-NC-ND-4.0",
    ("cc0", "CC0 Public Domain"): "CC0-1.0",
}
# The names GitHub gives the licences of repositories, as Objaverse-XL's table has them.
GITHUB = {
    "MIT License": "MIT",
    "Apache License 2.0": "Apache-2.0",
    "GNU General Public License v2.0": "GPL-2.0-only",
    "GNU General Public License v3.0": "GPL-3.0-only",
    "GNU Lesser General Public License v2.1": "LGPL-2.1-only",
    "GNU Lesser General Public License v3.0": "LGPL-3.0-only",
    "GNU Affero General Public License v3.0": "AGPL-3.0-only",
    "GNU Free Documentation License v1.3": "GFDL-1.3-only",
    'BSD 2-Clause "Simplified" License': "BSD-2-Clause",
    'BSD 3-Clause "New" or "Revised" License': "BSD-3-Clause",
    "BSD 3-Clause Clear License": "BSD-3-Clause-Clear",
    'BSD 4-Clause "Original" or "Old" License': "BSD-4-Clause",
    "BSD-2-Clause Plus Patent License": "BSD-2-Clause-Patent",
    "BSD Zero Clause License": "0BSD",
    "MIT No Attribution": "MIT-0",
    "Mozilla Public License 2.0": "MPL-2.0",
    "Eclipse Public License 1.0": "EPL-1.0",
    "Eclipse Public License 2.0": "EPL-2.0",
    "European Union Public License 1.1": "EUPL-1.1",
    "European Union Public License 1.2": "EUPL-1.2",
    "The Unlicense": "Unlicense",
    "Creative Commons Zero v1.0 Universal": "CC0-1.0",
    "Creative Commons Attribution 4.0 International": "CC-BY-4.0",
    "Creative Commons Attribution Share Alike 4.0 International": "CC-BY-SA-4.0",
    "Creative Commons Attribution Non Commercial 4.0 International": "CC-BY-NC-4.0",
    "Creative Commons Attribution Non Commercial Share Alike 4.0 International": "CC-BY-NC-SA-4.0",
    "Academic Free License v3.0": "AFL-3.0",
    "Artistic License 2.0": "Artistic-2.0",
    "Blue Oak Model License 1.0.0": "BlueOak-1.0.0",
    "Boost Software License 1.0": "BSL-1.0",
    "CERN Open Hardware Licence Version 2 - Permissive": "CERN-OHL-P-2.0",
    "CERN Open Hardware Licence Version 2 - Strongly Reciprocal": "CERN-OHL-S-2.0",
    "CERN Open Hardware Licence Version 2 - Weakly Reciprocal": "CERN-OHL-W-2.0",
    "CeCILL Free Software License Agreement v2.1": "CECILL-2.1",
    "Do What The F*ck You Want To Public License": "WTFPL",
    "Educational Community License v2.0": "ECL-2.0",
    "ISC License": "ISC",
    "LaTeX Project Public License v1.3c": "LPPL-1.3c",
    "Microsoft Public License": "MS-PL",
    "Microsoft Reciprocal License": "MS-RL",
    "Mulan Permissive Software License, Version 2": "MulanPSL-2.0",
    "Open Data Commons Open Database License v1.0": "ODbL-1.0",
    "Open Software License 3.0": "OSL-3.0",
    "PostgreSQL License": "PostgreSQL",
    "SIL Open Font License 1.1": "OFL-1.1",
    "Universal Permissive License v1.0": "UPL-1.0",
    "University of Illinois/NCSA Open Source License": "NCSA",
    "Vim License": "Vim",
    "zlib License": "Zlib",
    "Other": UNKNOWN,
}
THINGIVERSE = {
    "Creative Commons - Attribution": "CC-BY-4.0",
    "Creative Commons - Attribution - Share Alike": "CC-BY-SA-4.0",
    "Creative Commons - Attribution - No Derivatives": "CC-BY-ND-4.0",
    "Creative Commons - Attribution - Non-Commercial": "CC-BY-NC-4.0",
    "Creative Commons - Attribution - Non-Commercial - Share Alike": "CC-BY-NC-SA-4.0",
    "Creative Commons - Attribution - Non-Commercial - No Derivatives": "CC-BY-NC-ND-4.0",
    "Attribution - Non-Commercial - Share Alike": "CC-BY-NC-SA-4.0",
    "Creative Commons - Public Domain Dedication": "CC0-1.0",
    "Public Domain": "LicenseRef-Public-Domain",
    "GNU - GPL": "GPL-1.0-or-later",
    "GNU - LGPL": "LGPL-2.0-or-later",
    "BSD License": "BSD-3-Clause",
    "All Rights Reserved": UNKNOWN,
    "None": UNKNOWN,
}
SMITHSONIAN = {"CC0": "CC0-1.0", "cc0-1.0": "CC0-1.0", "Usage conditions apply": UNKNOWN}


@pytest.mark.parametrize(("names", "expression"), SKETCHFAB.items())
def test_sketchfab_says(names, expression):
    assert [to_spdx(name) for name in names] == [expression] * 2


@pytest.mark.parametrize(
    ("name", "expression"), [*GITHUB.items(), *THINGIVERSE.items(), *SMITHSONIAN.items()]
)
def test_github_thingiverse_and_the_smithsonian_say(name, expression):
    assert to_spdx(name) == expression
    assert to_spdx(name.upper()) == expression
    assert to_spdx(f"  {name}\n") == expression


@pytest.mark.parametrize("found", sorted({*SKETCHFAB.values(), *GITHUB.values(), *THINGIVERSE.values()}))
def test_what_was_found_stays_and_combines(found):
    assert to_spdx(found) == found
    if found != UNKNOWN:
        assert to_spdx(f"{found} AND MIT") == f"{found} AND MIT"
        assert to_spdx(f"{found.lower()} or cc0-1.0") == f"{found} OR CC0-1.0"


@pytest.mark.parametrize(
    "value", [3, 3.5, True, ["by"], {"slug": "by"}, b"by", "by" * 10**6, "\ud800", "\x00"]
)
def test_what_is_no_string_of_a_sane_length_is_unknown(value):
    assert to_spdx(value) == UNKNOWN


# --- policies -----------------------------------------------------------------------------------------


@dataclass
class Claim:
    licence: str
    noai: str = "no"
    unsettled: bool = False


@pytest.mark.parametrize(
    ("licence", "research", "commercial", "permissive"),
    [
        ("CC0-1.0", 1, 1, 1),
        ("CC-BY-4.0", 1, 1, 1),
        ("MIT", 1, 1, 1),
        ("LicenseRef-Public-Domain", 1, 1, 1),
        ("CC-BY-SA-4.0", 1, 1, 0),
        ("GPL-3.0-only", 1, 1, 0),
        ("CC-BY-NC-4.0", 1, 0, 0),
        ("CC-BY-NC-SA-3.0", 1, 0, 0),
        ("CC-BY-ND-4.0", 0, 0, 0),
        ("CC-BY-NC-ND-4.0", 0, 0, 0),
        ("LicenseRef-Sketchfab-Standard", 0, 0, 0),
        ("LicenseRef-Of-Somebody", 0, 0, 0),
        ("CC0-1.0 AND CC-BY-NC-4.0", 1, 0, 0),  # both bind
        ("GPL-3.0-only OR MIT", 1, 1, 1),  # the better one may be chosen
        ("CC-BY-ND-4.0 OR CC-BY-NC-4.0", 1, 0, 0),
    ],
)
def test_what_each_policy_puts_up_with(licence, research, commercial, permissive):
    verdicts = [
        not Policy(name).refusal(Claim(licence)) for name in ("research", "commercial", "permissive-only")
    ]
    assert verdicts == [research, commercial, permissive]
    assert not Policy("any").refusal(Claim(licence))


def test_no_ai_is_obeyed_under_every_policy():
    for name in POLICIES:
        for policy in (Policy(name), Policy(name, allow_unknown_licence=True, allow_unknown_noai=True)):
            assert policy.refusal(Claim("CC0-1.0", "yes")).startswith("noai")
            assert policy.refusal(Claim("CC0-1.0", "yes", unsettled=True)).startswith("noai")


def test_unknown_is_left_out_unless_asked_for():
    assert Policy("research").refusal(Claim(UNKNOWN)) == "licence: unknown (--allow-unknown-licence takes it)"
    assert (
        Policy("research").refusal(Claim("MIT", "unknown")) == "noai: unknown (--allow-unknown-noai takes it)"
    )
    assert not Policy("research", allow_unknown_licence=True).refusal(Claim(UNKNOWN))
    assert not Policy("research", allow_unknown_noai=True).refusal(Claim("MIT", "unknown"))
    assert (
        Policy("commercial", allow_unknown_licence=True).refusal(Claim("CC-BY-NC-4.0")).startswith("licence")
    )
    assert not Policy().refusal(Claim(UNKNOWN, "unknown"))


def test_what_may_still_be_told_is_waited_for():
    assert not Policy("research").refusal(Claim(UNKNOWN, "unknown", unsettled=True))
    assert Policy("research").refusal(Claim("CC-BY-ND-4.0", "unknown", unsettled=True))


VERSIONS = ("1.0", "2.0", "2.5", "3.0", "4.0")


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "any"])
@pytest.mark.parametrize("licence", [f"CC-BY{nc}-ND-{v}" for nc in ("", "-NC") for v in VERSIONS])
def test_no_derivatives_is_refused_with_a_reason_unless_asked_for(name, licence):
    reason = f"licence: {licence} is not in the policy {name}"
    asked = Policy(name, allow_no_derivatives=True)
    if "-NC" in licence and name != "research":  # refused for NC, whatever is asked
        assert Policy(name).refusal(Claim(licence)) == asked.refusal(Claim(licence)) == reason
    else:
        hint = ": it forbids derivatives, which renderings are (--allow-no-derivatives takes it)"
        for unsettled in (False, True):
            assert Policy(name).refusal(Claim(licence, "no", unsettled)) == reason + hint
            assert asked.refusal(Claim(licence, "no", unsettled)) == ""
        assert asked.refusal(Claim(licence, "yes")).startswith("noai")
    assert not Policy("any").refusal(Claim(licence))
    assert "does not let anybody share" in publishable(ROW | {"licence": licence}), "asked for or not"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("CC Attribution-NoDerivs", "CC-BY-ND-4.0"),
        ("CC Attribution-NonCommercial-NoDerivs", "CC-BY-NC-ND-4.0"),
        ("http://creativecommons.org/licenses/by-nd/2.5/", "CC-BY-ND-2.5"),
        ("https://creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND-1.0"),
        ("CC-BY-NC-ND-3.0-IGO", "CC-BY-NC-ND-3.0"),
        ("Creative Commons Attribution-NoDerivatives 4.0 International", "CC-BY-ND-4.0"),
        ("cc_by_nd", "CC-BY-ND-4.0"),
    ],
)
def test_spellings_of_no_derivatives(text, licence):
    assert to_spdx(text) == licence
    assert "--allow-no-derivatives" in Policy("research").refusal(Claim(to_spdx(text)))


@pytest.mark.parametrize(
    ("licence", "plain", "asked"),
    [
        ("CC-BY-ND-4.0 OR CC-BY-4.0", True, True),
        ("CC-BY-ND-4.0 AND CC-BY-4.0", False, True),
        ("CC-BY-ND-4.0 AND LicenseRef-Sketchfab-Standard", False, False),
        ("LicenseRef-Sketchfab-Editorial", False, False),
        ("CC-BY-SA-4.0", True, True),
    ],
)
def test_the_option_adds_no_derivatives_and_nothing_else(licence, plain, asked):
    assert (not Policy("research").refusal(Claim(licence))) == plain
    assert (not Policy("research", allow_no_derivatives=True).refusal(Claim(licence))) == asked


def test_policies_of_existing_ledgers_keep_their_json():
    policy = Policy("commercial", licences=("MIT",))
    assert policy.to_json() == {
        "name": "commercial", "allow_unknown_licence": False, "allow_unknown_noai": False, "licences": ("MIT",),
    }  # fmt: skip
    asked = Policy("research", allow_no_derivatives=True)
    for one in (policy, asked, Policy()):
        assert Policy.from_json(one.to_json()) == one


def test_an_unknown_policy_is_an_error_that_names_the_known():
    with pytest.raises(ValueError, match="expected one of any, research, commercial, permissive-only"):
        Policy("mine")


# --- publishing ---------------------------------------------------------------------------------------

ROW = {"licence": "CC-BY-4.0", "source": "objaverse", "attribution": '"Fox" by Ada', "noai": "no"}


def test_a_clip_that_says_whose_it_is_may_be_published():
    assert publishable(ROW) == ""
    assert publishable(ROW | {"noai": "unknown"}) == ""


@pytest.mark.parametrize("name", ["licence", "source", "attribution"])
@pytest.mark.parametrize("value", ["", "  ", None])
def test_without_licence_source_or_attribution_it_may_not(name, value):
    assert publishable(ROW | {name: value}) == f"no {name}"
    assert publishable({key: value for key, value in ROW.items() if key != name}) == f"no {name}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"licence": UNKNOWN}, "licence unknown"),
        ({"licence": "CC-BY-ND-4.0"}, "does not let anybody share"),
        ({"licence": "LicenseRef-Sketchfab-Editorial"}, "does not let anybody share"),
        ({"licence": "made up"}, "does not let anybody share"),
        ({"noai": "yes"}, "forbids AI use"),
    ],
)
def test_what_its_author_forbids_may_not(changes, reason):
    assert reason in publishable(ROW | changes)
