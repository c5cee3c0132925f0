"""`python -m factory.render`: render animated 3D models into an MV-Video dataset.

Running the same command again resumes: committed work is not repeated, and clips come out byte for byte the same
however often a run was interrupted and however many workers it has.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from cluster import Ledger, Report
from factory.assets.exclusions import DenyListError, read_deny_list
from factory.clips.options import RenderCommand, parse_arguments
from factory.clips.report import summary, tally_to_json, write_run_file
from factory.clips.run import render
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult
from factory.console import OK, ProgressDisplay, print_result, run_command
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.sources import SourceError, open_source
from factory.sources.downloads import DownloadError

_FETCH_S = 600.0  # for one file; a partial download is kept, and the next attempt continues it


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.render") -> int:
    """Run the command; exit code 0 even if assets were quarantined, which the closing table lists."""
    command = parse_arguments(argv, prog)
    return run_command(
        "factory.render",
        lambda: _run(command),
        errors=(SourceError, DownloadError, DenyListError),
        json_errors=command.output.json,
    )


def _run(command: RenderCommand) -> int:
    options = command.render
    denied = read_deny_list(*command.selection.deny_list)
    stage = RenderStage(
        command.recipe,
        options.settings(command.recipe),
        options.renderer,
        options.heldout,
        options.dry_run,
        options.quality,
    )
    if any(open_source(uri).is_remote for uri in options.source):
        stage = replace(stage, fetch_s=_FETCH_S)
    if options.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            result = _render(command, stage, denied, scratch)
        planned = (
            f"would render {result.tally.planned} clips of {result.tally.assets} assets into {options.out}\n"
        )
        table = summary(RenderResult(Report(), result.tally, []), stage).partition("\n")[2]
        print_result(command.output, planned + table, tally_to_json(result.tally))
        return OK
    result = _render(command, stage, denied, options.out)
    sheet = _write_pages(command, stage, result)
    closing = f"\ndataset      {options.out}" + (f", contact sheet {sheet}" if sheet else ": nothing new")
    print_result(
        command.output,
        summary(result, stage) + closing,
        {"dataset": options.out, **tally_to_json(result.tally)},
    )
    return OK


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


def _write_pages(command: RenderCommand, stage: RenderStage, result: RenderResult) -> str | None:
    """Write the run's record, the contact sheet and the card; the sheet's path, or None if nothing changed."""
    out = command.render.out
    storage = Ledger(out).storage
    # The card is written last: without it an earlier run was interrupted here, and this one completes it.
    unfinished = result.tally.rendered and (result.shards or storage.read("README.md") is None)
    if unfinished or result.report.total > result.report.resumed:
        write_run_file(storage, command.arguments, stage, result)
    if not unfinished:
        return None
    sheet = write_contact_sheet(out)
    write_card(out)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
