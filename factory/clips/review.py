"""Reviews of a finished dataset: quality, near-duplicates, benchmark leaks and takedowns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from factory.assets.exclusions import benchmark_of, read_deny_list
from factory.assets.tombstones import Tombstone, read_tombstones
from factory.clips.quality import MotionPolicy, near_duplicates
from factory.dataset.reader import load_clips
from factory.dataset.schema import MEASURED_COLUMNS, MOTION_COLUMNS
from zoo.terminal import printable

_QUANTITIES = [name for name in (*MOTION_COLUMNS, *MEASURED_COLUMNS) if name != "motion_signature"]
_MOST_LISTED = 50


class Pair(NamedTuple):
    """Two different assets with near-duplicate clips.

    Attributes:
        first, second: "source/uid". splits: those of the similar clips.
        clips: number of similar pairs of clips. moves: whether the motions are similar too, not only the shapes.
    """

    first: str
    second: str
    splits: tuple[str, ...]
    clips: int
    moves: bool


def duplicate_assets(table: pa.Table, tolerance: float = 0.01) -> list[Pair]:
    """Pairs of different assets with near-duplicate clips (factory/clips/quality.py), similar motions first.

    Args:
        table: rows of a dataset; those without a signature are left out.
    """
    columns = ["clip_id", "source", "asset_uid", "asset_sha256", "split", "motion_signature"]
    rows = [row for row in table.select(columns).to_pylist() if row["motion_signature"]]
    if not rows:  # rendered with --quality off
        return []
    pairs_by_assets: dict[tuple[str, str], Pair] = {}
    signatures = np.array([row["motion_signature"] for row in rows]).reshape(len(rows), -1)
    for moves in (True, False):
        pairs: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
        for a, b in near_duplicates(signatures, tolerance, motion=moves):
            names = tuple(sorted({f"{rows[i]['source']}/{rows[i]['asset_uid']}" for i in (a, b)}))
            if len(names) == 2 and names not in pairs_by_assets:
                pairs.setdefault(names, []).append((rows[a], rows[b]))
        for names, alike in pairs.items():
            splits = tuple(sorted({row["split"] for pair in alike for row in pair}))
            pairs_by_assets[names] = Pair(*names, splits, len(alike), moves)
    return sorted(pairs_by_assets.values(), key=lambda pair: (not pair.moves, pair))


def leaks(table: pa.Table, denied: dict[str, str]) -> list[tuple[str, str, int]]:
    """Assets that are test objects of a benchmark: (benchmark, "source/uid", number of clips)."""
    counted = Counter(
        (benchmark, f"{row['source']}/{row['asset_uid']}")
        for row in table.select(["source", "asset_uid", "source_url"]).to_pylist()
        if (benchmark := benchmark_of(row["asset_uid"], row["source_url"], denied))
    )
    return [(*names, clips) for names, clips in sorted(counted.items())]


def report(root: str, deny_lists: Sequence[str]) -> Iterator[str]:
    """Lines about a dataset: quality, quantities, rules broken, benchmark leaks, duplicates, takedowns."""
    table = load_clips(root).table()
    yield f"{len(table)} clips"
    yield "\nquality"
    tags = Counter(table["quality"].to_pylist())
    yield from (f"  {count:6d}  {printable(tag) or 'not rated'}" for tag, count in tags.most_common())

    yield "\nquantity                 low    median      high"
    for name in _QUANTITIES:
        values = table[name].drop_null().to_pylist() if name in table.column_names else []
        low, median, high = np.quantile(values, (0, 0.5, 1)) if values else (np.nan,) * 3
        yield f"  {name:18s}{low:8.3f}  {median:8.3f}  {high:8.3f}" + ("" if values else "  not measured")

    yield "\nrules broken"
    rows = table.select([name for name in _QUANTITIES if name in table.column_names]).to_pylist()
    faults = Counter(fault for row in rows for fault in MotionPolicy().faults(row))
    yield from (f"  {count:6d}  {fault}" for fault, count in faults.most_common())
    if not faults:
        yield "  none"

    denied = read_deny_list(*deny_lists)
    leaked = leaks(table, denied)
    yield f"\ntest objects of benchmarks, out of {len(denied)} on the deny-lists: {len(leaked)}"
    yield from (
        f"  {printable(benchmark)}: {printable(asset)}, {clips} clips" for benchmark, asset, clips in leaked
    )

    yield ""
    yield from duplicate_lines(table)
    tombstones = read_tombstones(root)
    yield f"\ntaken down: {len(tombstones)}"
    yield from (tombstone_line(tombstone) for tombstone in tombstones)


def duplicate_lines(table: pa.Table) -> Iterator[str]:
    """Lines about near-duplicates; pairs in different splits, which leak test data, come first."""
    pairs = duplicate_assets(table) if "motion_signature" in table.column_names else []
    leaking = [pair for pair in pairs if len(pair.splits) > 1]
    yield f"pairs of similar assets: {len(pairs)}, {len(leaking)} of them in different splits"
    for pair in [*leaking, *(pair for pair in pairs if len(pair.splits) == 1)][:_MOST_LISTED]:
        similar = "look and move" if pair.moves else "look"
        first, second, splits = map(printable, (pair.first, pair.second, ", ".join(pair.splits)))
        yield f"  {first} and {second} {similar} alike ({pair.clips} pairs of clips): {splits}"
    if len(pairs) > _MOST_LISTED:
        yield f"  … and {len(pairs) - _MOST_LISTED} more"


def tombstone_line(tombstone: Tombstone) -> str:
    state = f"{len(tombstone.clips)} clips" if tombstone.finished else "not finished: run the takedown again"
    reason = f", {tombstone.reason}" if tombstone.reason else ""
    asset = f"{tombstone.source or 'any source'}/{tombstone.uid}"
    return "  " + printable(f"{asset}, {tombstone.at}{reason}: {state}")
