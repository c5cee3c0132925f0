"""Licence strings as they stand on model sites, in files and in tables."""

from __future__ import annotations

import pytest

from factory.licences import UNKNOWN, to_spdx


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
