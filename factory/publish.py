"""`python -m factory.publish`: publish a dataset to a hub or a folder."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster import Storage, check_idle
from factory.console import (
    OK,
    OutputOptions,
    add_options,
    notice,
    option,
    print_result,
    read_options,
    run_command,
)
from factory.dataset.names import input_url
from factory.dataset.pages.contact_sheet import NAME as CONTACT_SHEET
from factory.dataset.reader import DatasetError
from factory.dataset.release import Published, publish
from factory.run_report import MOST_LISTED, duration, write_page
from zoo.export.html.report import Report, embedded, facts, gallery, items, table
from zoo.hub_access import check_hub_repository
from zoo.names import HUB_SCHEMES


@dataclass(frozen=True)
class PublishOptions:
    """Which dataset, where to, under which version."""

    data: str = option(help="the dataset: a folder, local:PATH, hub:org/name, or an fsspec URL")
    to: str = option(help="hub:org/name or local:PATH", metavar="TARGET")
    tag: str | None = option(None, "name of this version, such as v1")
    private: bool = option(False, "if the repository is new: visible to its owners only")
    message: str = option("", "of the commits")

    def check(self) -> None:
        """Check that this account can publish to the hub, before the dataset is read.

        Raises:
            OptionError: it cannot.
        """
        if match := re.fullmatch(r"hub:([^/@]+/[^/@]+)", self.to):
            check_hub_repository(match[1], "--to")


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.publish") -> int:
    """Run the command; exit code 1 if the dataset could not be published."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Publish a dataset. The same command resumes, and later sends only new shards.",
    )
    add_options(parser, PublishOptions)
    add_options(parser.add_argument_group("output"), OutputOptions)
    args = parser.parse_args(_with_data_flag(sys.argv[1:] if argv is None else list(argv)))
    options, output = read_options(args, PublishOptions), read_options(args, OutputOptions)

    def action() -> int:
        options.check()
        check_idle(input_url(options.data))
        started = time.monotonic()
        published = publish(
            options.data, options.to, tag=options.tag, private=options.private, message=options.message
        )
        write_report(options, published, time.monotonic() - started)
        tag = f", {options.tag}" if options.tag else ""
        text = (
            f"published    {options.to}, revision {published.revision}{tag}\n"
            f"files        {len(published.sent)} sent, {published.kept} unchanged, {len(published.gone)} removed\n"
            f'load         datasets.load_dataset("{published.address}", streaming=True)'
        )
        print_result(output, text, asdict(published))
        return OK

    return run_command("factory.publish", action, errors=(DatasetError,), json_errors=output.json)


def write_report(options: PublishOptions, published: Published, seconds: float) -> None:
    """Write report-publish.html into the dataset, unless that is itself on a hub."""
    if options.data.startswith(HUB_SCHEMES):
        return
    storage = Storage(input_url(options.data))
    report = Report("factory.publish", f"{storage.url}: published to {options.to}")
    report.add(
        "Result",
        facts(
            {
                "target": options.to,
                "version": options.tag,
                "revision": published.revision,
                "message": options.message,
                "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
                "time": duration(seconds),
                "load": f'datasets.load_dataset("{published.address}", streaming=True)',
            }
        ),
    )
    sent = Counter(path.rpartition("/")[0] or "card and pages" for path in published.sent)
    numbers = {f"sent, {folder}": number for folder, number in sorted(sent.items())}
    numbers |= {"unchanged": published.kept, "removed": len(published.gone)}
    removed = items(f"removed: {path}" for path in published.gone[:MOST_LISTED])
    report.add("Files", table(("files", "number"), numbers.items()), removed)
    if sheet := storage.read(CONTACT_SHEET):
        report.add("Pictures", gallery([embedded(sheet, "a sample of the clips", side=1600)]))
    write_page(storage, "report-publish.html", report.html(), notice)


def _with_data_flag(argv: list[str]) -> list[str]:
    """Version 0.1 took the dataset as its first argument, without a flag."""
    if argv and not argv[0].startswith("-"):
        notice("the dataset is given with --data; the old spelling will stop working in the next version")
        return ["--data", *argv]
    return argv


if __name__ == "__main__":
    sys.exit(main())
