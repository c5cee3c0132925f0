"""Splitting sentences into clauses, compared with splits made by hand."""

from __future__ import annotations

import pytest

from zoo.mvvdm.sentences import ALL_ALONG, FIRST, LATER, clauses


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("", [("", ALL_ALONG)]),
        ("hops forward twice", [("hops forward twice", ALL_ALONG)]),
        ("sits and nods", [("sits", ALL_ALONG), ("nods", ALL_ALONG)]),
        ("bows, claps and turns", [("bows", ALL_ALONG), ("claps", ALL_ALONG), ("turns", ALL_ALONG)]),
        ("howls, then sits", [("howls", FIRST), ("sits", LATER)]),
        ("sits and nods, and then barks", [("sits", FIRST), ("nods", FIRST), ("barks", LATER)]),
        (
            "strengthens its hand",
            [("strengthens its hand", ALL_ALONG)],
        ),  # "then" inside a word does not split
    ],
)
def test_clauses(sentence, wanted):
    assert clauses(sentence) == wanted
