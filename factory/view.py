"""`python -m factory.view DATASET`: show the clips of a dataset in the browser, or export the pages to a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from factory.browser.api import browse
from factory.browser.export import export_browser
from factory.console import (
    OK,
    OutputOptions,
    ProgressDisplay,
    add_options,
    option,
    print_result,
    read_options,
    run_command,
)
from factory.dataset.reader import DatasetError
from zoo.errors import OptionError
from zoo.viewer.access import LOOPBACK

PORT = 8078


@dataclass(frozen=True)
class ServeOptions:
    """Where the server listens."""

    port: int = option(PORT, "port to listen on; 0: any free one", at_least=0)
    host: str = option(
        LOOPBACK,
        "address to listen on; other machines can connect only if it is another one",
        metavar="ADDRESS",
    )
    token: str | None = option(None, "text that the address must contain (default: random with --host)")
    no_open: bool = option(False, "only print the address")


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and where to."""

    export: str | None = option(None, "write pages that need no server into this folder", metavar="FOLDER")
    limit: int | None = option(None, "with --export: only the first N clips", at_least=1)
    views: int | None = option(None, "with --export: only N views of each clip (default: all)", at_least=1)


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.view") -> int:
    """Run the command; serves until Ctrl-C unless `--export` is given."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show the clips of a dataset in the browser: thumbnails, filters, search, and a page per clip with "
        "all views and columns. Nothing is changed.",
    )
    parser.add_argument(
        "dataset", metavar="DATASET", help="a folder, a URL that fsspec opens, local:PATH, or hub:org/name"
    )
    add_options(parser, ServeOptions)
    add_options(parser.add_argument_group("export"), ExportOptions)
    add_options(parser.add_argument_group("output"), OutputOptions)
    args = parser.parse_args(argv)
    serve, export = read_options(args, ServeOptions), read_options(args, ExportOptions)
    output = read_options(args, OutputOptions)
    if not args.dataset or "\0" in args.dataset:
        parser.error(f"DATASET: expected a folder or a URL, got {args.dataset!r}")
    if serve.port > 65535:
        parser.error(f"--port: expected at most 65535, got {serve.port}")
    if export.export is None and (export.limit or export.views):
        parser.error("--limit and --views: are for --export")

    def action() -> int:
        if export.export is not None:
            return _export(args.dataset, export, output)
        running = browse(
            args.dataset, host=serve.host, port=serve.port, token=serve.token, open_browser=False, block=False
        )
        print_result(output, f"{running.url}  (Ctrl-C ends it)", {"url": running.url})
        running.show(open_browser=not serve.no_open, block=False)
        running.wait()
        return OK

    return run_command("factory.view", action, errors=(DatasetError, OptionError), json_errors=output.json)


def _export(dataset: str, options: ExportOptions, output: OutputOptions) -> int:
    assert options.export is not None
    with ProgressDisplay(output) as display:
        page = export_browser(
            dataset, options.export, limit=options.limit, views=options.views, show=display.update
        )
    print_result(output, f"open {page}", {"page": str(page)})
    return OK


if __name__ == "__main__":
    sys.exit(main())
