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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace

from tqdm import tqdm

from cluster import Interrupted, Ledger, Progress, Record, Report, StageError, StorageError, Task, run
from cluster.storage import Storage
from factory.card import write_card
from factory.catalog import AssetRecord
from factory.contact_sheet import write_contact_sheet
from factory.downloads import DownloadError
from factory.exclusions import BENCHMARKS, DenyListError, Exclusions, read_deny_list
from factory.licences import POLICIES, UNKNOWN, to_spdx
from factory.modalities import MODALITIES
from factory.planning import Recipe
from factory.selection import Selection
from factory.shards import Shard, ShardPacker
from factory.sources import SourceError, open_source
from factory.stages import RenderStage, asset_tasks
from factory.takedown import finish_takedowns
from renderers.meshes import BACKENDS, RenderSettings

BUNDLED = ("creatures://kangaroo", "creatures://bird", "creatures://robot")
_STATUS_EVERY_S = 10.0
_MOST_LISTED = 20
_FETCH_S = 600.0  # for one file; what is there by then is kept, and the next try goes on from it


@dataclass
class Tally:
    """What became of assets and clips, gathered in the driver from the records of their tasks.

    Attributes:
        planned, rendered, resumed: clips; `resumed` of the rendered ones are an earlier run's.
        listed: records looked at. Each is one of `assets`, or counted in `filtered` or `dead` as it was listed.
        assets: resolved so far.
        rejected: reason → animations or windows that gave no clip.
        filtered: reason → records left out on purpose. dead: reason → records whose file is gone.
        quarantined: label → cause, of assets and clips given up.
        seconds: part of the work ("load", "plan", "render", "encode") → worker-seconds of this run.
        bytes: of the clips of this run. renderers: which devices drew them.
    """

    planned: int = 0
    rendered: int = 0
    resumed: int = 0
    listed: int = 0
    assets: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
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
            known = task.label in self.quarantined  # two sources may have the same name for something
            self.quarantined[f"{task.label} ({task.key[:8]})" if known else task.label] = record.reason
        elif record.status == "filtered":
            self.leave_out(record.reason)
        elif is_clip:
            self.rendered += 1
            self.resumed += record.resumed
        if record.status == "done" and not record.resumed:
            self.seconds.update(record.summary["seconds"])
            self.bytes += record.summary.get("bytes", 0)
            self.renderers.update(filter(None, [record.summary.get("renderer")]))

    def leave_out(self, reason: str) -> None:
        """Count one record that is not rendered, for a reason that others share."""
        if reason.startswith("dead: "):
            self.dead[reason.removeprefix("dead: ")] += 1
        else:
            self.filtered[reason] += 1

    def count_listed(self, records: Iterable[AssetRecord]) -> Iterator[AssetRecord]:
        for record in records:
            self.listed += 1
            yield record

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
    selection: Selection = Selection(),  # noqa: B008 (frozen)
    denied: Mapping[str, str] | None = None,
    workers: int | None = None,
    limit: int | None = None,
    retry_quarantined: bool = False,
) -> Result:
    """Render every clip of the sources into the dataset at `out` (a path or an fsspec URL).

    Args:
        workers: side by side; None for as many as the cluster has room for.
        selection: which of the listed records are taken, and on what terms.
        denied: uid → benchmark that tests with it (factory/exclusions.py); None = those that are known.
        limit: take only the first so many of them.
        retry_quarantined: give what an earlier run gave up another chance.
    Raises:
        SourceError, DownloadError, StageError, StorageError: nothing is lost; the same command resumes.
        Interrupted: by Ctrl-C or SIGTERM, likewise.
    """
    ledger = Ledger(out)
    if retry_quarantined:
        ledger.retry_quarantined()
    tally = Tally()
    tombstones = finish_takedowns(out)
    exclusions = Exclusions(read_deny_list(BENCHMARKS) if denied is None else denied, tuple(tombstones))
    stage = replace(stage, taken_down=frozenset(f for stone in tombstones for f in stone.fingerprints))
    positions: dict[str, int] = {}  # asset task → its place in the plan; clips are packed in that order

    with ExitStack() as stack:
        packer = stack.enter_context(ShardPacker(out))
        on_tick = stack.enter_context(_Display(tally))

        def tasks() -> Iterator[Task]:
            listed = tally.count_listed(_records(sources))
            allowed = exclusions.apply(listed, tally.leave_out)
            taken = itertools.islice(selection.apply(allowed, tally.leave_out), limit)
            for task in asset_tasks(taken, stage, selection):
                if task.key in positions:  # a file under two names is one asset
                    tally.leave_out("a copy of another asset")
                else:
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


def _records(sources: Sequence[str]) -> Iterator[AssetRecord]:
    opened = [open_source(uri) for uri in sources]  # all of them first: a typo is told before any work
    return itertools.chain.from_iterable(source.list() for source in opened)


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
    if tally.dead:
        lines.append(f"dead         {sum(tally.dead.values())} assets are gone")
        lines += [
            f"             {count:5d}  {reason}" for reason, count in tally.dead.most_common(_MOST_LISTED)
        ]
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
        "settings": stage.settings.to_dict(),
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
        help="creatures://SPECIES?seed=N, a folder of .glb/.gltf, one such file, its web address, a manifest "
        "(.jsonl, .csv), objaverse, objaverse-xl, sketchfab (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, help="folder or fsspec URL of the dataset")
    parser.add_argument("--renderer", choices=BACKENDS, default="opengl")
    parser.add_argument(
        "--samples", type=int, choices=(1, 4, 16), default=4, help="anti-aliasing samples a pixel"
    )
    parser.add_argument(
        "--modalities",
        type=lambda text: tuple(dict.fromkeys(filter(None, text.split(",")))),
        default=(),
        metavar="NAME,…",
        help=f"what to store beside colour, of {','.join(MODALITIES)} (default: nothing; opengl only)",
    )
    parser.add_argument(
        "--track-points", type=int, default=1024, help="points that tracks follow (default: %(default)s)"
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
    _add_selection(parser)
    parser.add_argument(
        "--curate",
        choices=("off", "tag", "filter"),
        default="tag",
        help="measure motions and judge them in the column `quality`; filter: also leave out those that break a rule "
        "(default: %(default)s)",
    )
    group = parser.add_argument_group("recipe", "what clips are made; the defaults are MV-Video's")
    for option in fields(Recipe):
        flag = f"--{option.name.replace('_', '-')}"
        group.add_argument(flag, type=type(option.default), default=option.default, help="%(default)s")
    args = parser.parse_args(argv)
    if not 0.0 <= args.holdout < 0.5:
        parser.error(f"--holdout: expected a part below 0.5, got {args.holdout:g}")
    if unknown := set(args.modalities) - set(MODALITIES):
        parser.error(
            f"--modalities: expected some of {','.join(MODALITIES)}, got {','.join(sorted(unknown))}"
        )
    if args.modalities and args.renderer != "opengl":
        parser.error(
            f"--modalities: the renderer {args.renderer} does not make {', '.join(args.modalities)}; use "
            f"--renderer opengl"
        )
    for written in args.licence:
        if to_spdx(written) == UNKNOWN:
            parser.error(
                f"--licence: {written!r} is no licence that is known here; expected one like CC-BY-4.0"
            )
    for name in ("workers", "limit", "track_points", "max_faces", "sample"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(args, name)}")
    try:
        return args, Recipe(**{option.name: getattr(args, option.name) for option in fields(Recipe)})
    except ValueError as error:
        parser.error(str(error))


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection", "which assets are taken, decided before they are fetched")
    group.add_argument(
        "--animated", action="store_true", help="leave out what is listed without an animation"
    )
    group.add_argument(
        "--licence", "--license", nargs="+", default=[], metavar="SPDX", help="take these licences only"
    )
    group.add_argument("--tag", nargs="+", default=[], help="take what has one of these tags")
    group.add_argument("--max-faces", type=int, help="leave out what is listed with more")
    group.add_argument("--sample", type=int, metavar="N", help="take so many of them, drawn by --seed")
    group.add_argument(
        "--policy",
        choices=POLICIES,
        help="what licences have to allow (default: research; any for what is on this disk or made here)",
    )
    group.add_argument(
        "--deny-list",
        nargs="*",
        default=[str(BENCHMARKS)],
        metavar="FILE",
        help="leave out these uids, one a line (default: objects that benchmarks test with; no file: none)",
    )
    group.add_argument("--allow-unknown-licence", action="store_true", help="take what nobody licensed")
    group.add_argument(
        "--allow-unknown-noai", action="store_true", help="take what nobody could be asked about AI use of"
    )


def _selection(args: argparse.Namespace, recipe: Recipe) -> Selection:
    return Selection(
        animated=args.animated,
        licences=tuple(map(to_spdx, args.licence)),
        tags=tuple(args.tag),
        max_faces=args.max_faces,
        sample=args.sample,
        seed=recipe.seed,
        policy=args.policy,
        allow_unknown_licence=args.allow_unknown_licence,
        allow_unknown_noai=args.allow_unknown_noai,
    )


def _settings(args: argparse.Namespace, recipe: Recipe) -> RenderSettings:
    """How to render; the points to follow are a random choice, by the recipe's seed."""
    tracks = {"tracks": args.track_points, "track_seed": recipe.seed} if "tracks" in args.modalities else {}
    maps = {name: name in args.modalities for name in ("depth", "normals", "flow")}
    return RenderSettings(samples=args.samples, **maps, **tracks)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 also when assets were quarantined: the table says which."""
    args, recipe = parse_arguments(argv)
    settings = _settings(args, recipe)
    options = {"selection": _selection(args, recipe), "workers": args.workers, "limit": args.limit}
    try:
        options["denied"] = read_deny_list(*args.deny_list)
        stage = RenderStage(recipe, settings, args.renderer, args.holdout, args.dry_run, args.curate)
        if any(open_source(uri).is_remote for uri in args.source):
            stage = replace(stage, fetch_s=_FETCH_S)
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
        unfinished = result.tally.rendered and (result.shards or storage.read("README.md") is None)
        if unfinished or result.report.total > result.report.resumed:
            _write_run_file(storage, args, stage, result)
        if unfinished:
            sheet = write_contact_sheet(args.out)
            write_card(args.out)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (SourceError, DownloadError, DenyListError, StageError, StorageError) as error:
        print(f"factory.render: {error}", file=sys.stderr)
        return 1
    print(summary(result, stage))
    print(f"dataset      {args.out}" + (f", contact sheet {sheet}" if sheet else ": nothing new"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
