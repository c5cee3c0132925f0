"""Animated models in, a 16-view MV-Video dataset out: `python -m factory.render --source … --out …`.

Running the same command again resumes: what is committed is not done twice, and clips come out byte for byte
the same however often it was interrupted and however many workers there are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields

from tqdm import tqdm

from cluster import Interrupted, Ledger, Progress, Record, Report, StageError, StorageError, Task, run
from cluster.storage import Storage
from factory.card import write_card
from factory.catalog import AssetRecord
from factory.contact_sheet import write_contact_sheet
from factory.planning import Recipe
from factory.shards import Shard, ShardPacker
from factory.sources import SourceError, open_source
from factory.stages import RenderStage, asset_tasks
from renderers.meshes import BACKENDS, RenderSettings

BUNDLED = ("creatures://kangaroo", "creatures://bird", "creatures://robot")
_STATUS_EVERY_S = 10.0
_MOST_LISTED = 20


@dataclass
class Tally:
    """What became of assets and clips, gathered in the driver from the records of their tasks.

    Attributes:
        planned, rendered, resumed: clips; `resumed` of the rendered ones are an earlier run's.
        assets: resolved so far.
        rejected: reason → animations or windows that gave no clip.
        filtered: reason → assets left out on purpose.
        quarantined: label → cause, of assets and clips given up.
        seconds: part of the work ("load", "plan", "render", "encode") → worker-seconds of this run.
        bytes: of the clips of this run. renderers: which devices drew them.
    """

    planned: int = 0
    rendered: int = 0
    resumed: int = 0
    assets: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    renderers: set[str] = field(default_factory=set)

    def add(self, task: Task, record: Record) -> None:
        """Count one resolved task."""
        is_clip = "clip" in task.payload
        if not is_clip:
            self.assets += 1
            self.planned += record.summary.get("clips", 0)
            self.rejected.update(rejection["reason"] for rejection in record.summary.get("rejected", ()))
        if record.status == "quarantined":
            self.quarantined[task.label] = record.reason
        elif record.status == "filtered":
            self.filtered[record.reason] += 1
        elif is_clip:
            self.rendered += 1
            self.resumed += record.resumed
        if record.status == "done" and not record.resumed:
            self.seconds.update(record.summary["seconds"])
            self.bytes += record.summary.get("bytes", 0)
            self.renderers.update(filter(None, [record.summary.get("renderer")]))

    @property
    def new(self) -> int:
        """Clips rendered by this run."""
        return self.rendered - self.resumed


@dataclass(frozen=True)
class Result:
    """What a run did: the driver's report, what became of each asset and clip, the shards it added."""

    report: Report
    tally: Tally
    shards: list[Shard]


def render(
    sources: Sequence[str],
    out: str,
    stage: RenderStage,
    *,
    workers: int | None = None,
    limit: int | None = None,
    retry_quarantined: bool = False,
) -> Result:
    """Render every clip of the sources into the dataset at `out` (a path or an fsspec URL).

    Args:
        workers: side by side; None for as many as the cluster has room for.
        limit: take only the first so many assets.
        retry_quarantined: give what an earlier run gave up another chance.
    Raises:
        SourceError, StageError, StorageError: nothing is lost; the same command resumes.
        Interrupted: by Ctrl-C or SIGTERM, likewise.
    """
    ledger = Ledger(out)
    if retry_quarantined:
        ledger.retry_quarantined()
    tally = Tally()
    positions: dict[str, int] = {}  # asset task → its place in the plan; clips are packed in that order

    with ExitStack() as stack:
        packer = stack.enter_context(ShardPacker(out))
        on_tick = stack.enter_context(_Display(tally))

        def tasks() -> Iterator[Task]:
            for task in asset_tasks(_records(sources, limit), stage):
                if task.key not in positions:  # a copy of a file under another name is one asset
                    positions[task.key] = len(positions)
                    yield task

        def on_resolved(task: Task, record: Record) -> None:
            tally.add(task, record)
            if "clip" in task.payload:
                packer.finished(task.key, record.status == "done")
            else:
                packer.planned(positions[task.key], [clip.key for clip in record.follow_up])

        report = run(stage, tasks(), ledger, workers=workers, on_resolved=on_resolved, on_tick=on_tick)
        shards = packer.close()
    return Result(report, tally, shards)


def _records(sources: Sequence[str], limit: int | None) -> Iterator[AssetRecord]:
    opened = [open_source(uri) for uri in sources]  # all of them first: a typo is told before any work
    return itertools.islice(itertools.chain.from_iterable(source.list() for source in opened), limit)


class _Display:
    """A progress bar on a terminal, a line every 10 s elsewhere."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._bar: tqdm | None = None
        self._started = self._next = time.monotonic()

    def __enter__(self) -> _Display:
        if sys.stderr.isatty():
            self._bar = tqdm(unit="clip", dynamic_ncols=True, smoothing=0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: Progress) -> None:
        tally = self._tally
        more = "" if progress.exhausted else "+"
        if self._bar is not None:
            self._bar.total = tally.planned
            self._bar.n = tally.rendered
            self._bar.set_postfix_str(
                f"assets {tally.assets}, quarantined {len(tally.quarantined)}, {progress.workers} workers"
            )
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _STATUS_EVERY_S
        rate = 60.0 * tally.new / max(now - self._started, 1e-9)
        print(
            f"[{progress.seconds:5.0f} s] clips {tally.rendered}/{tally.planned}{more}, assets {tally.assets}, "
            f"quarantined {len(tally.quarantined)}, {progress.workers} workers, {rate:.1f} clips/min",
            file=sys.stderr,
            flush=True,
        )


# --- what a run says at the end ----------------------------------------------------------------------


def summary(result: Result, stage: RenderStage) -> str:
    """The closing table: what was rendered, left out and given up, and how fast against the ceiling."""
    report, tally = result.report, result.tally
    again = f", {tally.resumed} of them by earlier runs" if tally.resumed else ""
    lines = [f"rendered     {tally.rendered} clips of {tally.assets} assets{again}"]
    left_out = tally.rejected + tally.filtered
    lines.append(
        f"left out     {sum(tally.rejected.values())} animations, {sum(tally.filtered.values())} assets"
    )
    lines += [f"             {count:5d}  {reason}" for reason, count in left_out.most_common(_MOST_LISTED)]
    lines.append(f"quarantined  {len(tally.quarantined)}")
    listed = list(tally.quarantined.items())[:_MOST_LISTED]
    lines += [f"             {label}: {cause.removeprefix(label + ': ')}" for label, cause in listed]
    if len(tally.quarantined) > len(listed):
        lines.append(
            f"             … and {len(tally.quarantined) - len(listed)} more, in _factory/quarantine/"
        )
    if tally.new:
        lines += _throughput(report, tally, stage)
    return "\n".join(lines)


def _throughput(report: Report, tally: Tally, stage: RenderStage) -> list[str]:
    """Clips a minute beside what rasterising alone would give on as many workers."""
    drawn = tally.seconds["render"]
    rate = tally.new / report.wall_s
    ceiling = tally.new / drawn * report.workers
    frames = stage.recipe.views * stage.recipe.num_frames
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(tally.seconds.items()))
    return [
        f"throughput   {60 * rate:.1f} clips/min, {3600 * rate * frames / report.workers:,.0f} frames/h per worker, "
        f"{report.workers} workers, {report.wall_s:.0f} s",
        f"ceiling      {60 * ceiling:.1f} clips/min if workers did nothing but rasterise: {rate / ceiling:.2f} of it",
        f"worker-s     {parts}, waiting {max(report.workers * report.wall_s - sum(tally.seconds.values()), 0):.1f}",
        f"drawn by     {'; '.join(sorted(tally.renderers))}; {tally.bytes / tally.new / 2**20:.2f} MiB a clip",
    ]


def _write_run_file(storage: Storage, args: argparse.Namespace, stage: RenderStage, result: Result) -> None:
    """The resolved configuration of the run and what came of it, beside the data."""
    content = {
        "arguments": vars(args),
        "recipe": asdict(stage.recipe),
        "settings": asdict(stage.settings),
        "tally": {**vars(result.tally), "renderers": sorted(result.tally.renderers)},
        "workers": result.report.workers,
        "wall_s": result.report.wall_s,
        "busy_s": dict(result.report.busy_s),
        "children_restarted": result.report.children_restarted,
        "workers_lost": result.report.actors_lost,
    }
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    storage.write(f"_factory/runs/{name}.json", json.dumps(content, indent=1).encode())


# --- the command ---------------------------------------------------------------------------------------


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Recipe]:
    """The options, and the recipe among them; leaves with a sentence if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m factory.render",
        description="Render animated 3D models into a 16-view MV-Video dataset. The same command resumes.",
    )
    parser.add_argument(
        "--source",
        nargs="+",
        default=list(BUNDLED),
        help="creatures://SPECIES?seed=N, a folder of .glb/.gltf, or one such file (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, help="folder or fsspec URL of the dataset")
    parser.add_argument("--renderer", choices=BACKENDS, default="opengl")
    parser.add_argument(
        "--samples", type=int, choices=(1, 4, 16), default=4, help="anti-aliasing samples a pixel"
    )
    parser.add_argument("--workers", type=int, help="side by side (default: what the cluster has room for)")
    parser.add_argument("--limit", type=int, help="take only the first so many assets")
    parser.add_argument(
        "--holdout", type=float, default=0.0, help="part of the assets for validation, and for test"
    )
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="try again what earlier runs gave up"
    )
    parser.add_argument("--dry-run", action="store_true", help="open and plan every asset, write nothing")
    group = parser.add_argument_group("recipe", "what clips are made; the defaults are MV-Video's")
    for option in fields(Recipe):
        flag = f"--{option.name.replace('_', '-')}"
        group.add_argument(flag, type=type(option.default), default=option.default, help="%(default)s")
    args = parser.parse_args(argv)
    if not 0.0 <= args.holdout < 0.5:
        parser.error(f"--holdout: expected a part below 0.5, got {args.holdout:g}")
    for name in ("workers", "limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(args, name)}")
    try:
        return args, Recipe(**{option.name: getattr(args, option.name) for option in fields(Recipe)})
    except ValueError as error:
        parser.error(str(error))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 also when assets were quarantined: the table says which."""
    args, recipe = parse_arguments(argv)
    settings = RenderSettings(samples=args.samples)
    stage = RenderStage(recipe, settings, args.renderer, args.holdout, args.dry_run)
    options = {"workers": args.workers, "limit": args.limit}
    try:
        if args.dry_run:
            with tempfile.TemporaryDirectory() as scratch:
                tally = render(args.source, scratch, stage, **options).tally
            print(f"would render {tally.planned} clips of {tally.assets} assets into {args.out}")
            print(summary(Result(Report(), tally, []), stage).partition("\n")[2])
            return 0
        result = render(args.source, args.out, stage, retry_quarantined=args.retry_quarantined, **options)
        storage = Ledger(args.out).storage
        sheet = None
        # The card comes last: without it an earlier run was stopped in between, and this one finishes its work.
        if result.tally.rendered and (result.shards or storage.read("README.md") is None):
            sheet = write_contact_sheet(args.out)
            _write_run_file(storage, args, stage, result)
            write_card(args.out)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (SourceError, StageError, StorageError) as error:
        print(f"factory.render: {error}", file=sys.stderr)
        return 1
    print(summary(result, stage))
    print(f"dataset      {args.out}" + (f", contact sheet {sheet}" if sheet else ": nothing new"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
