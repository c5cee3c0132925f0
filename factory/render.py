"""`python -m factory.render`: render animated 3D models into an MV-Video dataset."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace

from cluster import Interrupted, Ledger, Report, StageError, StorageError
from factory.assets.exclusions import BENCHMARKS, DenyListError, read_deny_list
from factory.assets.licences import POLICIES, UNKNOWN, to_spdx
from factory.assets.selection import Selection
from factory.clips.plan import ClipRecipe
from factory.clips.report import summary, write_run_file
from factory.clips.run import render
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult
from factory.dataset.codecs.modalities import MODALITIES
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.sources import SourceError, open_source
from factory.sources.downloads import DownloadError
from renderers.meshes import BACKENDS, RenderSettings

BUNDLED = ("creatures://kangaroo", "creatures://bird", "creatures://robot")
_FETCH_S = 600.0  # for one file; what is there by then is kept, and the next try goes on from it


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, ClipRecipe]:
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
    for option in fields(ClipRecipe):
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
        return args, ClipRecipe(**{option.name: getattr(args, option.name) for option in fields(ClipRecipe)})
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


def _selection(args: argparse.Namespace, recipe: ClipRecipe) -> Selection:
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


def _settings(args: argparse.Namespace, recipe: ClipRecipe) -> RenderSettings:
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
            print(summary(RenderResult(Report(), tally, []), stage).partition("\n")[2])
            return 0
        result = render(args.source, args.out, stage, retry_quarantined=args.retry_quarantined, **options)
        storage = Ledger(args.out).storage
        sheet = None
        # The card comes last: without it an earlier run was stopped in between, and this one finishes its work.
        unfinished = result.tally.rendered and (result.shards or storage.read("README.md") is None)
        if unfinished or result.report.total > result.report.resumed:
            write_run_file(storage, args, stage, result)
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
