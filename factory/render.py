"""`python -m factory.render`: render animated 3D models into an MV-Video dataset.

Running the same command again resumes: committed work is not repeated, and clips come out byte for byte the same
however often a run was interrupted and however many workers it has.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cluster import Ledger, OutputLock, Report, Storage
from factory.assets.backends import choose_backend
from factory.assets.exclusions import BENCHMARKS, DenyListError, read_deny_list
from factory.assets.licences import POLICIES, UNKNOWN, to_spdx
from factory.assets.selection import Selection
from factory.clips.plan import ClipRecipe
from factory.clips.report import summary, tally_to_json, write_run_file
from factory.clips.run import check_shape, render
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult
from factory.console import (
    FAILED,
    OK,
    OutputOptions,
    ProgressDisplay,
    add_options,
    notice,
    option,
    print_result,
    read_options,
    rename_flags,
    run_command,
)
from factory.dataset.codecs.modalities import MODALITIES
from factory.dataset.output import check_render_folder
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.dataset.reader import DatasetError
from factory.sources import EmptySourceError, SourceError, open_source
from factory.sources.downloads import DownloadError
from renderers.meshes import AUTO, BACKENDS, RenderSettings

_FETCH_S = 600.0  # for one file; a partial download is kept, and the next attempt continues it
BUNDLED = ("creatures://kangaroo", "creatures://bird", "creatures://robot")
RENAMED = {"--holdout": "--heldout", "--curate": "--quality"}
RECIPE_HELP = {
    "fps": "frames per second",
    "num_frames": "frames per clip",
    "views": "cameras, evenly spaced in azimuth",
    "resolution": "width and height in pixels, even",
    "max_animations": "animations per asset; more are sampled with --seed",
    "max_elevation_deg": "each clip's elevation is uniform between 0 and this, in degrees",
    "azimuth_jitter_deg": "each clip's azimuth offset is uniform within ± this, in degrees",
    "fov_y_deg": "vertical field of view in degrees",
    "distance": "from the cameras to the origin; the asset is scaled to fill the frame at it",
    "margin": "fraction of the half image kept free around the asset",
    "min_motion": "a clip whose fastest vertex moves less than this fraction of the diagonal is left out",
    "min_duration": "animations shorter than this many seconds are left out",
    "seed": "of every random choice",
}


def _names(text: str) -> tuple[str, ...]:
    """Comma-separated modalities, without duplicates."""
    names = tuple(dict.fromkeys(filter(None, text.split(","))))
    if unknown := set(names) - set(MODALITIES):
        raise argparse.ArgumentTypeError(
            f"expected names from {','.join(MODALITIES)}, got {','.join(sorted(unknown))}"
        )
    return names


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < 0.5:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to below 0.5, got {value:g}")
    return value


def _licence(text: str) -> str:
    spdx = to_spdx(text)
    if spdx == UNKNOWN:
        raise argparse.ArgumentTypeError(f"{text!r} is not a known licence; expected one like CC-BY-4.0")
    return spdx


@dataclass(frozen=True)
class RenderOptions:
    """What is rendered, how and where to."""

    out: str = option(help="folder or fsspec URL of the dataset")
    source: tuple[str, ...] = option(
        BUNDLED,
        "creatures://SPECIES?seed=N, a folder of .glb/.gltf, one such file, its web address, a manifest (.jsonl, "
        ".csv), objaverse, objaverse-xl, sketchfab or texverse",
    )
    renderer: str = option(
        AUTO,
        "mesh renderer; auto: opengl where a GPU draws it, else cpu; a run that was begun keeps its renderer",
        choices=(AUTO, *BACKENDS),
    )
    samples: int = option(4, "anti-aliasing samples per pixel", choices=(1, 4, 16))
    modalities: tuple[str, ...] = option(
        (),
        f"maps stored beside colour, comma-separated, from {','.join(MODALITIES)} (opengl and cpu only)",
        metavar="NAME,…",
        parse=_names,
        joined=True,
    )
    track_points: int = option(1024, "surface points that tracks follow", at_least=1)
    workers: int | None = option(
        None,
        "parallel workers; 0: in this process, without Ray (default: as many as the cluster has room for)",
        at_least=0,
    )
    limit: int | None = option(None, "take only the first N assets", at_least=1)
    heldout: float = option(
        0.0,
        "fraction of the assets for the validation split, and the same for the test split",
        parse=_fraction,
    )
    quality: str = option(
        "tag",
        "tag: measure motions and rate them in the column `quality`; filter: also leave out those that break a "
        "rule; off: do not measure",
        choices=("off", "tag", "filter"),
    )
    strict: bool = option(
        False,
        "leave out assets that cannot be drawn as their files specify, e.g. because of an extension; without it, the "
        "column `notes` says how they differ",
    )
    turntable: bool = option(
        False,
        "make a clip of each model that is not animated, too, in which it turns once about the vertical axis",
    )
    retry_quarantined: bool = option(False, "retry the assets and clips that earlier runs gave up on")
    dry_run: bool = option(False, "open and plan every asset, write nothing")

    def settings(self, recipe: ClipRecipe) -> RenderSettings:
        """Render settings; the points to track are sampled with the recipe's seed."""
        settings = RenderSettings(
            samples=self.samples,
            depth="depth" in self.modalities,
            normals="normals" in self.modalities,
            flow="flow" in self.modalities,
        )
        if "tracks" not in self.modalities:
            return settings
        return replace(settings, tracks=self.track_points, track_seed=recipe.seed)


@dataclass(frozen=True)
class SelectionOptions:
    """Which of the listed assets are taken, decided before they are fetched."""

    animated: bool = option(False, "leave out assets listed without an animation")
    licence: tuple[str, ...] = option(
        (), "take only these licences", flags=("--license",), metavar="SPDX", parse=_licence
    )
    tag: tuple[str, ...] = option((), "take only assets with one of these tags")
    max_faces: int | None = option(None, "leave out assets listed with more faces", at_least=1)
    sample: int | None = option(None, "take a random sample of N assets, drawn with --seed", at_least=1)
    policy: str | None = option(
        None,
        "what a licence has to allow (default: research; any for local files and creatures)",
        choices=tuple(POLICIES),
    )
    deny_list: tuple[str, ...] = option(
        (str(BENCHMARKS),),
        "files of uids to leave out, one per line; no file: none. The default list has the test objects of public "
        "benchmarks",
        metavar="FILE",
        empty=True,
        show_default=False,
    )
    allow_unknown_licence: bool = option(False, "take assets whose licence is unknown")
    allow_unknown_noai: bool = option(False, "take assets whose NoAI status could not be checked")
    allow_no_derivatives: bool = option(
        False,
        "take assets whose licence forbids derivatives (CC-BY-ND, CC-BY-NC-ND); their clips are not publishable",
    )

    def selection(self, seed: int) -> Selection:
        return Selection(
            animated=self.animated,
            licences=self.licence,
            tags=self.tag,
            max_faces=self.max_faces,
            sample=self.sample,
            seed=seed,
            policy=self.policy,
            allow_unknown_licence=self.allow_unknown_licence,
            allow_unknown_noai=self.allow_unknown_noai,
            allow_no_derivatives=self.allow_no_derivatives,
        )


@dataclass(frozen=True)
class RenderCommand:
    """The parsed command line of `factory.render`."""

    render: RenderOptions
    selection: SelectionOptions
    recipe: ClipRecipe
    output: OutputOptions

    @property
    def arguments(self) -> dict[str, object]:
        """All options, for the run's record."""
        return {**asdict(self.render), **asdict(self.selection), **asdict(self.recipe)}


def parse_arguments(argv: Sequence[str] | None, prog: str = "python -m factory.render") -> RenderCommand:
    """Parse and check the command line; exits with code 2 and a sentence if it makes no sense."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Render animated 3D models into a 16-view MV-Video dataset. The same command resumes.",
    )
    add_options(parser, RenderOptions)
    group = parser.add_argument_group("selection", "which assets are taken, decided before they are fetched")
    add_options(group, SelectionOptions)
    group = parser.add_argument_group("recipe", "which clips are rendered; the defaults are MV-Video's")
    add_options(group, ClipRecipe, help=RECIPE_HELP)
    add_options(parser.add_argument_group("output"), OutputOptions)
    args = parser.parse_args(rename_flags(argv, RENAMED))
    render = read_options(args, RenderOptions)
    if render.modalities and render.renderer not in (AUTO, "opengl", "cpu"):
        parser.error(
            f"--modalities: the renderer {render.renderer} cannot render {', '.join(render.modalities)}; use "
            f"--renderer opengl or cpu"
        )
    try:
        recipe = read_options(args, ClipRecipe)
    except ValueError as error:
        parser.error(str(error))
    return RenderCommand(
        render, read_options(args, SelectionOptions), recipe, read_options(args, OutputOptions)
    )


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.render") -> int:
    """Run the command; exit code 0 even if some assets were quarantined, which the closing table lists.

    If no clip was planned, it is 3; if clips were planned and none could be rendered, it is 1.
    """
    command = parse_arguments(argv, prog)
    return run_command(
        "factory.render",
        lambda: _run(command),
        errors=(SourceError, DownloadError, DenyListError, DatasetError),
        json_errors=command.output.json,
    )


def _run(command: RenderCommand) -> int:
    options = command.render
    if not options.dry_run:
        Storage(options.out).check_writable()
    check_render_folder(options.out)
    denied = read_deny_list(*command.selection.deny_list)
    stage = RenderStage(
        command.recipe,
        options.settings(command.recipe),
        choose_backend(options.renderer, options.out),
        options.heldout,
        options.dry_run,
        options.quality,
        strict=options.strict,
        turntable=options.turntable,
    )
    if any(open_source(uri).is_remote for uri in options.source):
        stage = replace(stage, fetch_s=_FETCH_S)
    if options.dry_run:
        check_shape(options.out, stage)
        with tempfile.TemporaryDirectory() as scratch:
            result = _render(command, stage, denied, scratch)
        planned = (
            f"would render {result.tally.planned} clips of {result.tally.assets} assets into {options.out}\n"
        )
        table = summary(RenderResult(Report(), result.tally, []), stage).partition("\n")[2]
        print_result(command.output, planned + table, tally_to_json(result.tally))
        return _exit_code(command, result)
    with OutputLock(Ledger(options.out).storage, "factory.render", on_wait=notice):
        result = _render(command, stage, denied, options.out)
        sheet, left_out = _write_pages(command, stage, result)
    closing = f"\ndataset      {options.out}" + (f", contact sheet {sheet}" if sheet else ": nothing new")
    closing += f"\nnot rendered listed with reasons in {left_out}" if left_out else ""
    print_result(
        command.output,
        summary(result, stage) + closing,
        {"dataset": options.out, "left_out": left_out, **tally_to_json(result.tally)},
    )
    return _exit_code(command, result)


def _exit_code(command: RenderCommand, result: RenderResult) -> int:
    """The exit code of a finished run, which raises `EmptySourceError` if the sources gave no clip."""
    tally = result.tally
    if not tally.planned:
        sources = map(open_source, command.render.source)
        reasons = [
            f"{uri} {source.why_empty()}" for uri, source in zip(command.render.source, sources, strict=True)
        ]
        reason = (
            "; ".join(reasons) if not tally.listed else "no clip was planned, for the reasons in the table"
        )
        raise EmptySourceError(f"nothing to render: {reason}")
    return OK if tally.rendered or command.render.dry_run else FAILED


def _render(command: RenderCommand, stage: RenderStage, denied: dict[str, str], out: str) -> RenderResult:
    options = command.render
    with ProgressDisplay(command.output) as display:
        return render(
            options.source,
            out,
            stage,
            selection=command.selection.selection(command.recipe.seed),
            denied=denied,
            workers=options.workers,
            limit=options.limit,
            retry_quarantined=options.retry_quarantined and not options.dry_run,
            show=display.update,
        )


def _write_pages(
    command: RenderCommand, stage: RenderStage, result: RenderResult
) -> tuple[str | None, str | None]:
    """Write the run's record, the list of what was left out, the contact sheet and the card.

    Returns:
        Path of the sheet, None if nothing changed; path of the list, None if nothing was left out.
    """
    out = command.render.out
    storage = Ledger(out).storage
    # The card is written last: without it an earlier run was interrupted here, and this one completes it.
    unfinished = result.tally.rendered and (result.shards or storage.read("README.md") is None)
    run = None
    if unfinished or result.report.total > result.report.resumed:
        run = write_run_file(storage, command.arguments, stage, result)
    left_out = result.left_out.write(storage, run)
    if not unfinished:
        return None, left_out
    sheet = write_contact_sheet(out)
    write_card(out)
    return sheet, left_out


if __name__ == "__main__":
    sys.exit(main())
