"""Looking after a dataset: `python -m factory.curate report|duplicates|caption|takedown … --out DATASET`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster import Interrupted, StageError, StorageError
from factory.assets.exclusions import BENCHMARKS, DenyListError, benchmark_of, read_deny_list
from factory.assets.tombstones import read_tombstones
from factory.clips.quality import MotionPolicy, near_duplicates
from factory.dataset.captioning import PROMPT, CaptionStage, caption_dataset
from factory.dataset.captions import newest_captions, read_caption_rows
from factory.dataset.pages.card import write_card
from factory.dataset.reader import load_clips
from factory.dataset.schema import MEASURED_COLUMNS, MOTION_COLUMNS
from factory.dataset.takedown import TakedownError, takedown

_QUANTITIES = [name for name in (*MOTION_COLUMNS, *MEASURED_COLUMNS) if name != "motion_signature"]
_MOST_LISTED = 50


class Pair(NamedTuple):
    """Two assets with clips that say the same.

    Attributes:
        first, second: "source/uid". splits: of both, as far as they have clips that are alike.
        clips: how many pairs of clips. moves: whether the motions are alike too, not only the shapes.
    """

    first: str
    second: str
    splits: tuple[str, ...]
    clips: int
    moves: bool


def duplicate_assets(table: pa.Table, tolerance: float = 0.01) -> list[Pair]:
    """Pairs of different assets with near-duplicate clips (factory/curation.py); those that move alike come first.

    Args:
        table: rows of a dataset; those without a signature are left out.
    """
    columns = ["clip_id", "source", "asset_uid", "asset_sha256", "split", "motion_signature"]
    rows = [row for row in table.select(columns).to_pylist() if row["motion_signature"]]
    found: dict[tuple[str, str], Pair] = {}
    signatures = np.array([row["motion_signature"] for row in rows]).reshape(len(rows), -1)
    for moves in (True, False):
        pairs: dict[tuple[str, str], list[tuple[dict, dict]]] = {}
        for a, b in near_duplicates(signatures, tolerance, motion=moves):
            names = tuple(sorted({f"{rows[i]['source']}/{rows[i]['asset_uid']}" for i in (a, b)}))
            if len(names) == 2 and names not in found:
                pairs.setdefault(names, []).append((rows[a], rows[b]))
        for names, alike in pairs.items():
            splits = tuple(sorted({row["split"] for pair in alike for row in pair}))
            found[names] = Pair(*names, splits, len(alike), moves)
    return sorted(found.values(), key=lambda pair: (not pair.moves, pair))


def leaks(table: pa.Table, denied: dict[str, str]) -> list[tuple[str, str, int]]:
    """Assets that a benchmark tests with: benchmark, "source/uid" and clips."""
    counted = Counter(
        (benchmark, f"{row['source']}/{row['asset_uid']}")
        for row in table.select(["source", "asset_uid", "source_url"]).to_pylist()
        if (benchmark := benchmark_of(row["asset_uid"], row["source_url"], denied))
    )
    return [(*names, clips) for names, clips in sorted(counted.items())]


# --- what is said ------------------------------------------------------------------------------------


def report(root: str, deny_lists: Sequence[str]) -> Iterator[str]:
    """Lines about a dataset: quality, quantities, rules that are broken, leaks, duplicates, takedowns."""
    table = load_clips(root).table()
    yield f"{len(table)} clips"
    yield "\nquality"
    tags = Counter(table["quality"].to_pylist())
    yield from (f"  {count:6d}  {tag or 'not judged'}" for tag, count in tags.most_common())

    yield "\nquantity                 low    median      high"
    for name in _QUANTITIES:
        values = table[name].drop_null().to_pylist() if name in table.column_names else []
        low, median, high = np.quantile(values, (0, 0.5, 1)) if values else (np.nan,) * 3
        yield f"  {name:18s}{low:8.3f}  {median:8.3f}  {high:8.3f}" + ("" if values else "  not measured")

    yield "\nrules broken"
    known = table.select([name for name in _QUANTITIES if name in table.column_names]).to_pylist()
    faults = Counter(fault for row in known for fault in MotionPolicy().faults(row))
    yield from (f"  {count:6d}  {fault}" for fault, count in faults.most_common())
    if not faults:
        yield "  none"

    denied = read_deny_list(*deny_lists)
    found = leaks(table, denied)
    yield f"\nassets that benchmarks test with, of {len(denied)} that are known: {len(found)}"
    yield from (f"  {benchmark}: {asset}, {clips} clips" for benchmark, asset, clips in found)

    yield ""
    yield from duplicate_lines(table)
    tombstones = read_tombstones(root)
    yield f"\ntaken down: {len(tombstones)}"
    yield from (_of_tombstone(tombstone) for tombstone in tombstones)


def duplicate_lines(table: pa.Table) -> Iterator[str]:
    """Lines about near-duplicates, those that are in several splits marked."""
    pairs = duplicate_assets(table) if "motion_signature" in table.column_names else []
    leaking = [pair for pair in pairs if len(pair.splits) > 1]
    yield f"pairs of assets that look alike: {len(pairs)}, {len(leaking)} of them in different splits"
    for pair in [*leaking, *(pair for pair in pairs if len(pair.splits) == 1)][:_MOST_LISTED]:
        what = "look and move" if pair.moves else "look"
        yield f"  {pair.first} and {pair.second} {what} alike ({pair.clips} pairs of clips): {', '.join(pair.splits)}"
    if len(pairs) > _MOST_LISTED:
        yield f"  … and {len(pairs) - _MOST_LISTED} more"


def _of_tombstone(tombstone) -> str:
    state = f"{len(tombstone.clips)} clips" if tombstone.finished else "not finished: run it again"
    reason = f", {tombstone.reason}" if tombstone.reason else ""
    return f"  {tombstone.source or 'any source'}/{tombstone.uid}, {tombstone.at}{reason}: {state}"


# --- the command -------------------------------------------------------------------------------------


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m factory.curate", description="Looks after a dataset.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", required=True, help="folder or fsspec URL of the dataset")
    told = commands.add_parser("report", parents=[common], help="quality, leaks, duplicates, takedowns")
    told.add_argument(
        "--deny-list",
        nargs="+",
        default=[],
        metavar="FILE",
        help="more uids that benchmarks test with, one a line, beside those that are known",
    )
    commands.add_parser("duplicates", parents=[common], help="assets that look or move alike")
    removed = commands.add_parser(
        "takedown", parents=[common], help="remove an asset for good; interrupted, the same command goes on"
    )
    removed.add_argument("uid")
    removed.add_argument("--source", default="", help="if several sources have an asset of that uid")
    removed.add_argument("--reason", default="", help="kept in the tombstone")
    said = commands.add_parser("caption", parents=[common], help="say what clips show, by a model")
    said.add_argument(
        "--model", required=True, help="any that AutoModelForImageTextToText loads: name or folder"
    )
    said.add_argument("--prompt", default=PROMPT)
    said.add_argument("--num-gpus", type=float, default=1.0, help="of a worker; 0: on the CPU")
    said.add_argument("--workers", type=int, help="side by side (default: what the cluster has room for)")
    said.add_argument("--batch", type=int, default=8, help="clips a forward pass (default: %(default)s)")
    said.add_argument("--frames", type=int, default=8, help="of each clip (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 if it could not be done."""
    args = parse_arguments(argv)
    try:
        if args.command == "report":
            print("\n".join(report(args.out, [str(BENCHMARKS), *args.deny_list])))
        elif args.command == "duplicates":
            print("\n".join(duplicate_lines(load_clips(args.out).table())))
        elif args.command == "takedown":
            tombstone = takedown(args.out, args.uid, args.source, args.reason)
            print(f"taken down, and kept out from now on:\n{_of_tombstone(tombstone)}")
            if not tombstone.clips:
                print("there was nothing of it in the dataset; check the uid if you expected something")
        else:
            stage = CaptionStage(
                args.out, args.model, args.prompt, args.num_gpus, batch=args.batch, frames=args.frames
            )
            done = caption_dataset(args.out, stage, workers=args.workers)
            write_card(args.out)
            print(f"{len(newest_captions(read_caption_rows(args.out)))} clips have a caption by a model")
            if given_up := done.counts["quarantined"]:
                print(f"{given_up} groups of clips were given up, see _factory/captioning/quarantine/")
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (DenyListError, TakedownError, StageError, StorageError, FileNotFoundError) as error:
        print(f"factory.curate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
