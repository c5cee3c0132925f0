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
from factory.assets.exclusions import DenyListError, read_deny_list
from factory.clips.options import RECIPE_HELP, SelectionOptions
from factory.clips.pages import write_pages
from factory.clips.plan import ClipRecipe
from factory.clips.report import summary, tally_to_json
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
from factory.dataset.pages import contact_sheet
from factory.dataset.reader import DatasetError
from factory.run_report import RunReport
from factory.sources import EmptySourceError, SourceError, open_source
from factory.sources.downloads import DownloadError
from renderers.meshes import AUTO, BACKENDS, RenderSettings
from zoo.export.html.report import embedded

_FETCH_S = 600.0  # for one file; a partial download is kept, and the next attempt continues it
BUNDLED = ("creatures://kangaroo", "creatures://bird", "creatures://robot")
RENAMED = {"--holdout": "--heldout", "--curate": "--quality"}


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
    last_animation: bool = option(
        False, "make clips of each asset's last animation only, which is the one that factory.animate adds"
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
class RenderCommand:
    """The parsed command line of `factory.render`."""

    render: RenderOptions
    selection: SelectionOptions
    recipe: ClipRecipe
    output: OutputOptions
    argv: tuple[str, ...] = ()

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
    argv = rename_flags(argv, RENAMED)
    args = parser.parse_args(argv)
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
    selection, output = read_options(args, SelectionOptions), read_options(args, OutputOptions)
    return RenderCommand(render, selection, recipe, output, tuple(argv))


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
        last_animation=options.last_animation,
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
    ledger = Ledger(options.out)
    with (
        OutputLock(ledger.storage, "factory.render", on_wait=notice),
        RunReport("factory.render", ledger, ("RenderStage",), command.argv, notice) as report,
    ):
        result = _render(command, stage, denied, options.out)
        sheet, left_out = write_pages(options.out, command.arguments, stage, result)
        _describe(report, result, stage)
    closing = f"\ndataset      {options.out}" + (f", contact sheet {sheet}" if sheet else ": nothing new")
    closing += f"\nnot rendered listed with reasons in {left_out}" if left_out else ""
    print_result(
        command.output,
        summary(result, stage) + closing,
        {"dataset": options.out, "left_out": left_out, **tally_to_json(result.tally)},
    )
    return _exit_code(command, result)


def _describe(report: RunReport, result: RenderResult, stage: RenderStage) -> None:
    """Put the result of a run into its report."""
    tally = result.tally
    report.result = summary(result, stage)
    report.reasons = {
        "left out (asset)": tally.filtered,
        "left out (animation)": tally.rejected,
        "file is gone": tally.dead,
        "drawn differently": tally.notes,
    }
    sheet = report.ledger.storage.read(contact_sheet.NAME)
    report.pictures = lambda: [embedded(sheet, "a sample of the clips", side=1600)] if sheet else []


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


if __name__ == "__main__":
    sys.exit(main())
