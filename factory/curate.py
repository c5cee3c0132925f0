"""`python -m factory.curate report|duplicates|takedown|caption|export|rerender`: look after a finished dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import Ledger, OutputLock, Storage, atomic_path
from factory.assets.exclusions import BENCHMARKS, DenyListError
from factory.clips.rerender import rerender
from factory.clips.review import duplicate_lines, report, tombstone_line
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
from factory.dataset.captioning import LEDGER as CAPTIONING
from factory.dataset.captioning import PROMPT, CaptionStage, caption_dataset
from factory.dataset.captions import newest_captions, read_caption_rows
from factory.dataset.lerobot import ExportError, export_lerobot
from factory.dataset.names import input_url
from factory.dataset.output import check_dataset_folder
from factory.dataset.pages.card import write_card
from factory.dataset.reader import DatasetError, load_clips
from factory.dataset.takedown import TakedownError, takedown
from factory.run_report import RunReport
from factory.training.machine import check_resources
from renderers.gltf import GltfError
from renderers.meshes import RenderError
from zoo.hub_access import check_pretrained
from zoo.names import HUB_SCHEMES
from zoo.terminal import printable

_WRITING = ("takedown", "caption")
RENAMED = {"--out": "--data", "--num-gpus": "--gpus"}


@dataclass(frozen=True)
class DataOptions:
    """Which dataset."""

    data: str = option(
        help="the dataset: a folder or an fsspec URL; to read it also local:PATH or hub:org/name"
    )


@dataclass(frozen=True)
class ReportOptions:
    """What the report looks for."""

    deny_list: tuple[str, ...] = option(
        (), "further files of benchmark test objects, one uid per line", metavar="FILE"
    )


@dataclass(frozen=True)
class TakedownOptions:
    """Why, and which of several sources."""

    source: str = option("", "of the asset, if several sources have one of that uid")
    reason: str = option("", "kept in the tombstone, not published")


@dataclass(frozen=True)
class CaptionOptions:
    """Which model writes the captions, and how."""

    model: str = option(help="any that AutoModelForImageTextToText loads: a hub name or a folder")
    prompt: str = option(PROMPT, "the question that the model answers", show_default=False)
    gpus: float = option(1.0, "GPUs per worker; 0: on the CPU", at_least=0)
    workers: int | None = option(
        None,
        "parallel workers; 0: in this process, without Ray (default: as many as the cluster has room for)",
        at_least=0,
    )
    batch: int = option(8, "clips per forward pass", at_least=1)
    frames: int = option(8, "frames of each clip that the model sees", at_least=1)


@dataclass(frozen=True)
class ExportOptions:
    """Where the copy goes, and what it contains."""

    to: str = option(help="folder of the LeRobot dataset (version 3); must not exist or be empty")
    split: str | None = option(None, "train, validation or test (default: all)")


@dataclass(frozen=True)
class RerenderOptions:
    """From which file, and where the clip goes."""

    to: str = option(help="Parquet file to write, with the clip as its only row", metavar="FILE")
    asset: str | None = option(
        None, "the file that it was rendered from; creatures of this package need none", metavar="FILE"
    )


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.curate") -> int:
    """Run the command; exit code 1 if it could not be done."""
    parser = argparse.ArgumentParser(prog=prog, description="Look after a finished dataset.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, action, options, text in (
        ("report", _report, ReportOptions, "quality, benchmark leaks, near-duplicates, takedowns"),
        ("duplicates", _duplicates, None, "assets that look or move alike"),
        ("takedown", _takedown, TakedownOptions, "remove an asset for good; the same command resumes"),
        ("caption", _caption, CaptionOptions, "caption the clips with a video-language model"),
        ("export", _export, ExportOptions, "copy the clips to the layout of LeRobot datasets"),
        ("rerender", _rerender, RerenderOptions, "render a clip again from its own row, and compare"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "takedown":
            command.add_argument("uid", help="of the asset, as in the column asset_uid")
        if name == "rerender":
            command.add_argument("clip", help="of the clip, as in the column clip_id", metavar="CLIP_ID")
        add_options(command, DataOptions)
        if options:
            add_options(command, options)
        add_options(command.add_argument_group("output"), OutputOptions)
        command.set_defaults(action=action)
    argv = rename_flags(argv, RENAMED)
    args = parser.parse_args(argv, argparse.Namespace(argv=argv[1:]))
    output = read_options(args, OutputOptions)
    return run_command(
        "factory.curate",
        lambda: args.action(args, _dataset(args), output),
        errors=(DatasetError, DenyListError, ExportError, TakedownError, GltfError, RenderError),
        json_errors=output.json,
    )


def _dataset(args: argparse.Namespace) -> str:
    """The folder or URL of the dataset. Published ones can only be read."""
    name = read_options(args, DataOptions).data
    if args.command not in _WRITING:
        return input_url(name)
    if name.startswith((*HUB_SCHEMES, "local:")):
        raise DatasetError(
            f"{name} is a published dataset, which {args.command} does not change: give the folder that was published, "
            f"and publish it again"
        )
    return name


def _report(args: argparse.Namespace, data: str, output: OutputOptions) -> int:
    lines = list(report(data, [str(BENCHMARKS), *read_options(args, ReportOptions).deny_list]))
    print_result(output, "\n".join(lines), {"lines": lines})
    return OK


def _duplicates(args: argparse.Namespace, data: str, output: OutputOptions) -> int:
    lines = list(duplicate_lines(load_clips(data).table()))
    print_result(output, "\n".join(lines), {"lines": lines})
    return OK


def _takedown(args: argparse.Namespace, data: str, output: OutputOptions) -> int:
    options = read_options(args, TakedownOptions)
    check_dataset_folder(data)
    with OutputLock(Storage(data), "factory.curate takedown", on_wait=notice):
        tombstone = takedown(data, args.uid, options.source, options.reason)
    text = f"taken down, and excluded from later runs:\n{tombstone_line(tombstone)}"
    if not tombstone.clips:
        text += "\nthe dataset had no clip of it; check the uid if you expected some"
    print_result(output, text, vars(tombstone))
    return OK


def _caption(args: argparse.Namespace, data: str, output: OutputOptions) -> int:
    options = read_options(args, CaptionOptions)
    stage = CaptionStage(
        data, options.model, options.prompt, options.gpus, batch=options.batch, frames=options.frames
    )
    check_dataset_folder(data)
    load_clips(data)
    check_resources(1, options.gpus, options.workers)
    check_pretrained(options.model, "--model")
    ledger = Ledger(data, CAPTIONING)
    report = RunReport("factory.curate caption", ledger, ("CaptionStage",), args.argv, notice)
    with OutputLock(Storage(data), "factory.curate caption", on_wait=notice), report:
        with ProgressDisplay(output) as display:
            result = caption_dataset(data, stage, workers=options.workers, show=display.update)
        write_card(data)
        captioned, failed = len(newest_captions(read_caption_rows(data))), result.counts["quarantined"]
        text = f"{captioned} clips have a caption written by a model"
        if failed:
            text += f"\n{failed} groups of clips failed, see {CAPTIONING}/quarantine/"
        report.result = text
    print_result(output, text, {"captioned": captioned, "failed": failed})
    return OK


def _export(args: argparse.Namespace, data: str, output: OutputOptions) -> int:
    options = read_options(args, ExportOptions)
    Storage(options.to).check_writable()
    clips = load_clips(data, options.split)
    folder = export_lerobot(clips, options.to)
    print_result(
        output,
        f"{len(clips)} clips as a LeRobot dataset in {folder}",
        {"clips": len(clips), "to": str(folder)},
    )
    return OK


def _rerender(args: argparse.Namespace, data: str, output: OutputOptions) -> int:
    options = read_options(args, RerenderOptions)
    result = rerender(load_clips(data), args.clip, options.asset)
    with atomic_path(Path(options.to)) as part:
        part.write_bytes(result.to_bytes())
    same, total = len(result.same), len(result.same) + len(result.different)
    text = f"{same} of {total} columns of pixels have the bytes of the dataset\nthe clip is in {options.to}"
    if result.different:
        stored, drawn = (printable(name) for name in (result.stored_renderer, result.row["renderer_version"]))
        text += f"\nothers differ, e.g. {result.different[0]}: it was rendered by {stored}, now by {drawn}"
    print_result(output, text, {"same": result.same, "different": result.different, "to": options.to})
    return OK if not result.different else FAILED


if __name__ == "__main__":
    sys.exit(main())
