"""The index of a dataset: the columns that its clips are filtered and searched by, in memory.

A filter keeps the clips that have one of the chosen values in every filtered column and every word of the search in
their texts. Columns of values are stored as integer codes and the texts of a clip as one string, so that filtering
100 000 clips takes milliseconds and does not touch the shards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo.export.html.page import plain

FACETS = ("source", "species", "licence", "quality", "split")
SEARCHED = ("title", "author", "caption", "animation_name", "asset_uid", "clip_id")
STORED = ("clip_id", "asset_uid", "source", "title", "author", "licence", "quality", "split", "caption",
          "animation_name", "num_views", "num_frames", "fps", "width", "height")  # fmt: skip
SHOWN = ("title", "animation_name", "caption", "author", "licence", "source", "quality", "split")
MOST_SEARCHED = 1000  # characters of a text that the search looks at
MOST_VALUES = 200  # of a facet that are listed, the most frequent ones
PAGE, LARGEST_PAGE = 48, 200  # clips
LONGEST_QUERY = 200  # characters
CREATURES = "creatures"  # the source whose clips have a species
_SPECIES = r"^creature-(?P<species>[a-z]+)-[0-9]+$"


@dataclass(frozen=True)
class Query:
    """Which clips are wanted.

    Attributes:
        values: facet → accepted values; facets that are absent accept all.
        text: words that all occur in the texts of a clip, in any order and case.
        page: from 0.
        size: clips per page.
    """

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: str = ""
    page: int = 0
    size: int = PAGE


@dataclass(frozen=True)
class Matches:
    """The answer to a query.

    Attributes:
        total: number of clips that match.
        rows: indices in the dataset of those on the page.
        facets: facet → value → number of clips that match when this facet's own filter is left out.
    """

    total: int
    rows: tuple[int, ...]
    facets: dict[str, dict[str, int]]


class Index:
    """Columns of all clips of a dataset.

    Args:
        table: with the columns `STORED`, in the order of the dataset.
    """

    def __init__(self, table: pa.Table) -> None:
        columns = {name: _plain_column(table[name]) for name in STORED}
        columns["species"] = _species(columns["source"], columns["asset_uid"])
        self._table = pa.table({name: columns[name] for name in (*STORED, "species")})
        self._codes: dict[str, np.ndarray] = {}
        self._values: dict[str, list[str]] = {}
        for name in FACETS:
            encoded = pc.dictionary_encode(pc.fill_null(columns[name], ""))
            self._codes[name] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
            self._values[name] = [str(value) for value in encoded.dictionary.to_pylist()]
        # "\n" between the texts, so that no word matches across two of them.
        texts = [pc.utf8_slice_codeunits(pc.fill_null(columns[n], ""), 0, MOST_SEARCHED) for n in SEARCHED]
        self._texts = pc.utf8_lower(pc.binary_join_element_wise(*texts, "\n"))

    def __len__(self) -> int:
        return len(self._table)

    @property
    def size_bytes(self) -> int:
        """Memory of the columns."""
        return int(
            self._table.nbytes + self._texts.nbytes + sum(codes.nbytes for codes in self._codes.values())
        )

    def find(self, query: Query) -> Matches:
        """The clips that match, in the order of the dataset."""
        found = self._search(query.text)
        passes = {
            name: self._accepted(name, accepted)
            for name, accepted in query.values.items()
            if name in self._codes and accepted
        }
        facets = {}
        for name in FACETS:
            others = found.copy()
            for other, passed in passes.items():
                if other != name:
                    others &= passed
            facets[name] = self._counted(name, others)
        for passed in passes.values():
            found &= passed
        rows = np.flatnonzero(found)
        begin = query.page * query.size
        return Matches(len(rows), tuple(map(int, rows[begin : begin + query.size])), facets)

    def _search(self, text: str) -> np.ndarray:
        """Which clips have every word in their texts, bool [clips]."""
        rows, texts = np.arange(len(self)), self._texts
        for word in sorted(text.lower().split(), key=len, reverse=True):  # the rarest first, as a guess
            mask = pc.match_substring(texts, word)
            rows, texts = rows[mask.to_numpy(zero_copy_only=False)], texts.filter(mask)
        found = np.zeros(len(self), bool)
        found[rows] = True
        return found

    def _accepted(self, name: str, values: Sequence[str]) -> np.ndarray:
        accepted = np.array([value in set(values) for value in self._values[name]] or [False])
        return accepted[self._codes[name]]

    def _counted(self, name: str, chosen: np.ndarray) -> dict[str, int]:
        """Value → number of the chosen clips, the most frequent first; values without a clip are left out."""
        values = self._values[name]
        counts = np.bincount(self._codes[name][chosen], minlength=len(values))
        order = sorted(np.flatnonzero(counts), key=lambda at: (-counts[at], values[at]))
        return {values[at]: int(counts[at]) for at in order[:MOST_VALUES]}

    def cards(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What the list shows of some clips. Texts are on one line, cut, and without control characters."""
        names = [*SHOWN, "clip_id", "asset_uid", "num_views", "num_frames", "fps", "width", "height"]
        chosen = self._table.select(names).take(pa.array(list(rows), pa.int64())).to_pylist()
        return [{"row": int(row), **_card(values)} for row, values in zip(rows, chosen, strict=True)]

    def columns(self, count: int) -> dict[str, Any]:
        """The first `count` clips as an export has them: cards, texts to search in, and codes of the facets."""
        facets = {}
        for name in FACETS:
            codes = self._codes[name][:count]
            used, codes = np.unique(codes, return_inverse=True)
            values = [self._values[name][at] for at in used]
            facets[name] = {
                "values": values,
                "labels": [plain(each) for each in values],
                "codes": codes.tolist(),
            }
        return {"facets": facets, "cards": self.cards(range(count)), "texts": self._texts[:count].to_pylist()}


def _card(values: Mapping[str, Any]) -> dict[str, Any]:
    card = {
        name: plain(value) if isinstance(value, str) else "" if value is None else value
        for name, value in values.items()
    }
    return {**card, "title": card["title"] or card["asset_uid"] or card["clip_id"]}


def _plain_column(column: pa.ChunkedArray) -> pa.Array:
    column = column.combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _species(source: pa.Array, uid: pa.Array) -> pa.Array:
    """The species of creatures, from their names; "" for other assets, whose sources have none."""
    matches = pc.extract_regex(pc.fill_null(uid, ""), pattern=_SPECIES)
    species = pc.fill_null(pc.struct_field(matches, "species"), "")
    return pc.if_else(pc.equal(pc.fill_null(source, ""), CREATURES), species, "")


def parse_query(parameters: Mapping[str, str]) -> Query:
    """The query that a page requests: "q", "page", "size", and per facet its values as JSON.

    Raises:
        ValueError: a parameter is malformed.
    """
    values = {}
    for name in FACETS:
        if name not in parameters:
            continue
        try:
            chosen = json.loads(parameters[name])
        except (ValueError, RecursionError):
            chosen = None
        if not isinstance(chosen, list) or not all(isinstance(value, str) for value in chosen):
            raise ValueError(f"{name}: expected a list of texts as JSON, got {plain(parameters[name])[:80]}")
        values[name] = tuple(chosen)
    text = parameters.get("q", "")
    if len(text) > LONGEST_QUERY:
        raise ValueError(f"q: expected at most {LONGEST_QUERY} characters, got {len(text)}")
    page = _count(parameters.get("page", "0"), "page", 0, 10**9)
    return Query(values, text, page, _count(parameters.get("size", str(PAGE)), "size", 1, LARGEST_PAGE))


def _count(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= most):
        raise ValueError(f"{name}: expected a number from {least} to {most}, got {plain(text)[:40]!r}")
    return int(text)
