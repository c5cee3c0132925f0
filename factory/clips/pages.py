"""The files that a finished run writes beside the clips: its record, what was left out, contact sheet and card."""

from __future__ import annotations

from collections.abc import Mapping

from cluster import Ledger
from factory.clips.report import write_run_file
from factory.clips.stage import RenderStage
from factory.clips.tally import RenderResult
from factory.dataset.pages.card import write_card
from factory.dataset.pages.contact_sheet import write_contact_sheet


def write_pages(
    out: str, arguments: Mapping[str, object], stage: RenderStage, result: RenderResult
) -> tuple[str | None, str | None]:
    """Write the run's record, the list of what was left out, the contact sheet and the card.

    Args:
        out: path or URL of the dataset.
        arguments: of the command, for the record.
        stage, result: of the run.

    Returns:
        Path of the sheet, None if nothing changed; path of the list, None if nothing was left out.
    """
    storage = Ledger(out).storage
    # The card is written last: without it an earlier run was interrupted here, and this one completes it.
    unfinished = result.tally.rendered and (result.shards or storage.read("README.md") is None)
    run = None
    if unfinished or result.report.total > result.report.resumed:
        run = write_run_file(storage, arguments, stage, result)
    left_out = result.left_out.write(storage, run)
    if not unfinished:
        return None, left_out
    sheet = write_contact_sheet(out)
    write_card(out)
    return sheet, left_out
