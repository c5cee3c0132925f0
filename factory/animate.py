"""`python -m factory.animate`: animate many 3D models by many sentences on the cluster.

    python -m factory.animate --source models/ --prompts prompts.txt --out animated

The same command resumes: an animation is made once, however often a run is interrupted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster import Ledger, OutputLock, Storage, check_output
from factory.animations.models import open_models
from factory.animations.preview import MARK, SHEET
from factory.animations.recipe import AnimationRecipe, VideoModel
from factory.animations.run import INDEX, AnimationRun, animate_models, write_index
from factory.animations.stage import AnimateStage
from factory.assets.exclusions import DenyListError, read_deny_list
from factory.clips.options import RECIPE_HELP, SelectionOptions
from factory.clips.plan import ClipRecipe
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
    run_command,
)
from factory.dataset.reader import DatasetError
from factory.sources import EmptySourceError, SourceError
from factory.sources.downloads import DownloadError
from zoo.errors import OptionError
from zoo.terminal import printable

DATASET = "mv-video"  # in the output folder
_FETCH_S = 600.0
_MOST_LISTED = 20
_LONGEST_SENTENCE = 500


@dataclass(frozen=True)
class AnimateOptions:
    """What is animated, how and where to."""

    source: tuple[str, ...] = option(
        help="folders of 3D models, files, or a source of factory.render: creatures://SPECIES, a manifest, objaverse …"
    )
    prompts: str = option(help="text file with one sentence per line; lines that begin with # are left out")
    out: str = option(help="folder or fsspec URL of the results")
    model: str = option("mvvdm/tiny", "video model (MV-VDM)")
    home: str | None = option(None, "registry that the video model is in")
    workers: int | None = option(
        None,
        "parallel workers; 0: in this process, without Ray (default: as many as the cluster has room for)",
        at_least=0,
    )
    gpus: float = option(0.0, "GPUs of each worker, for the video model; fractions share one", at_least=0)
    limit: int | None = option(None, "take only the first N models", at_least=1)
    retry_quarantined: bool = option(False, "retry the models and animations that earlier runs gave up on")
    dry_run: bool = option(False, "open every model, animate nothing and write nothing")
    mv_video: bool = option(
        False, f"render the results into an MV-Video dataset, OUT/{DATASET}, as factory.render does"
    )
    renderer: str = option("opengl", "mesh renderer of --mv-video", choices=("opengl", "cpu", "pyrender"))


@dataclass(frozen=True)
class AnimateCommand:
    """The parsed command line of `factory.animate`."""

    options: AnimateOptions
    recipe: AnimationRecipe
    selection: SelectionOptions
    clips: ClipRecipe
    output: OutputOptions


def parse_arguments(argv: Sequence[str] | None, prog: str = "python -m factory.animate") -> AnimateCommand:
    """Parse and check the command line; exits with code 2 and a sentence if it makes no sense."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Animate 3D models by sentences: every model by every sentence. The same command resumes.",
    )
    add_options(parser, AnimateOptions)
    add_options(parser.add_argument_group("animation"), AnimationRecipe)
    group = parser.add_argument_group("selection", "which models are taken, decided before they are fetched")
    add_options(group, SelectionOptions)
    group = parser.add_argument_group("recipe", "of the clips of --mv-video")
    add_options(group, ClipRecipe, help=RECIPE_HELP)
    add_options(parser.add_argument_group("output"), OutputOptions)
    args = parser.parse_args(argv)
    options = read_options(args, AnimateOptions)
    if options.mv_video and "://" in options.out:
        parser.error(f"--mv-video: reads the results as files; expected a folder as --out, got {options.out}")
    try:
        clips = read_options(args, ClipRecipe)
    except ValueError as error:
        parser.error(str(error))
    return AnimateCommand(
        options,
        read_options(args, AnimationRecipe),
        read_options(args, SelectionOptions),
        clips,
        read_options(args, OutputOptions),
    )


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.animate") -> int:
    """Run the command; exit code 0 if at least one animation was made, the closing table lists the others.

    If the sources list no model, it is 3.
    """
    command = parse_arguments(argv, prog)
    return run_command(
        "factory.animate",
        lambda: _run(command),
        errors=(SourceError, DownloadError, DenyListError, DatasetError),
        json_errors=command.output.json,
    )


def read_sentences(path: str) -> tuple[str, ...]:
    """Read the sentences of a text file, each once.

    Raises:
        OptionError: the file cannot be read or has no sentence, or one is too long.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"--prompts {path}: cannot be read ({reason}); expected a text file with one sentence per line"
        ) from None
    sentences = [" ".join(line.split()) for line in lines if not line.lstrip().startswith("#")]
    sentences = list(dict.fromkeys(filter(None, sentences)))
    if not sentences:
        raise OptionError(f"--prompts {path}: the file has no sentence; write one per line")
    if long := [text for text in sentences if len(text) > _LONGEST_SENTENCE or not text.isprintable()]:
        raise OptionError(
            f"--prompts {path}: expected sentences of at most {_LONGEST_SENTENCE} printable characters, got "
            f"{long[0][:40]!r}…"
        )
    return tuple(sentences)


def _run(command: AnimateCommand) -> int:
    options, output = command.options, command.output
    sentences = read_sentences(options.prompts)
    denied = read_deny_list(*command.selection.deny_list)
    remote = any(open_models(uri).is_remote for uri in options.source)
    stage = AnimateStage(
        command.recipe,
        VideoModel.find(options.model, options.home),
        options.dry_run,
        _FETCH_S if remote else 0.0,
        options.gpus,
    )
    check_output(options.out, pages={INDEX: b'"asset_sha256"', SHEET: MARK})
    if options.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            result = _animate(command, sentences, stage, denied, scratch)
        head = f"would make {result.planned} animations of {result.models} models in {options.out}\n"
        print_result(output, head + "\n".join(_left_out(result)), result.to_json())
        return _exit_code(command, result)
    storage = Storage(options.out)
    storage.check_writable()
    with OutputLock(Ledger(options.out).storage, "factory.animate", on_wait=notice):
        result = _animate(command, sentences, stage, denied, options.out)
        listed = write_index(storage, result.rows)
        left_out = result.left_out.write(storage, None)
    lines = _summary(command, result)
    data: dict[str, Any] = {"out": options.out, "left_out": left_out, **result.to_json()}
    if listed:
        lines.append(f"index        {storage.path(INDEX)}, contact sheet {storage.path(SHEET)}")
    if left_out:
        lines.append(f"not animated listed with reasons in {left_out}")
    if options.mv_video and listed:
        line, data["dataset"] = _render(command)
        lines.append(line)
    print_result(output, "\n".join(lines), data)
    return _exit_code(command, result)


def _animate(
    command: AnimateCommand, sentences: tuple[str, ...], stage: AnimateStage, denied: dict[str, str], out: str
) -> AnimationRun:
    options = command.options
    with ProgressDisplay(command.output) as display:
        return animate_models(
            options.source,
            sentences,
            out,
            stage,
            selection=command.selection.selection(command.clips.seed),
            denied=denied,
            workers=options.workers,
            limit=options.limit,
            retry_quarantined=options.retry_quarantined and not options.dry_run,
            show=display.update,
        )


def _render(command: AnimateCommand) -> tuple[str, dict[str, Any]]:
    """Render the results into an MV-Video dataset: a line about it, and its counts."""
    from factory.clips.pages import write_pages
    from factory.clips.report import tally_to_json
    from factory.clips.run import render
    from factory.clips.stage import RenderStage
    from factory.dataset.output import check_render_folder

    options = command.options
    out = str(Path(options.out) / DATASET)
    check_render_folder(out)
    stage = RenderStage(command.clips, backend=options.renderer, last_animation=True)
    # The licences were checked before the models were animated.
    selection = replace(command.selection.selection(command.clips.seed), policy="any", sample=None, tags=())
    with (
        OutputLock(Ledger(out).storage, "factory.animate", on_wait=notice),
        ProgressDisplay(command.output) as display,
    ):
        result = render(
            [str(Path(options.out) / INDEX)],
            out,
            stage,
            selection=selection,
            denied={},
            workers=options.workers,
            retry_quarantined=options.retry_quarantined,
            show=display.update,
        )
        write_pages(out, {**asdict(options), **asdict(command.clips)}, stage, result)
    tally = result.tally
    left_out = f", {tally.planned - tally.rendered} given up" if tally.planned > tally.rendered else ""
    return f"dataset      {out}: {tally.rendered} clips{left_out}", tally_to_json(tally)


def _exit_code(command: AnimateCommand, result: AnimationRun) -> int:
    if not result.planned and not result.quarantined:
        reasons = [f"{uri} {open_models(uri).why_empty()}" for uri in command.options.source]
        if result.filtered:
            reasons = [f"all models were left out: {', '.join(result.filtered)}"]
        raise EmptySourceError(f"nothing to animate: {'; '.join(reasons)}")
    return OK if result.rows or (command.options.dry_run and result.planned) else FAILED


def _summary(command: AnimateCommand, result: AnimationRun) -> list[str]:
    earlier = f", {result.resumed} of them in earlier runs" if result.resumed else ""
    doubtful = sum(bool(row["doubtful_frames"]) for row in result.rows)
    return [
        f"animated     {len(result.rows)} of {result.planned} pairs of {result.models} models and a sentence{earlier}",
        f"doubtful     {doubtful} animations have frames that the fit does not follow",
        *_left_out(result),
    ]


def _left_out(result: AnimationRun) -> list[str]:
    lines = [f"left out     {sum(result.filtered.values())} models"]
    lines += [
        f"             {count:5d}  {printable(reason)}" for reason, count in result.filtered.most_common(20)
    ]
    lines.append(f"quarantined  {len(result.quarantined)}")
    listed = list(result.quarantined.items())
    lines += [
        f"             {printable(label)}: {printable(cause)}" for label, cause in listed[:_MOST_LISTED]
    ]
    if len(listed) > _MOST_LISTED:
        lines.append(f"             … and {len(listed) - _MOST_LISTED} more, in _factory/quarantine/")
    return lines


if __name__ == "__main__":
    sys.exit(main())
