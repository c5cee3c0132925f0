"""`python -m factory.publish`: publish a dataset to a hub or a folder."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cluster import check_idle
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
from factory.dataset.reader import DatasetError
from factory.dataset.release import publish
from zoo.hub_access import check_hub_repository


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
        published = publish(
            options.data, options.to, tag=options.tag, private=options.private, message=options.message
        )
        tag = f", {options.tag}" if options.tag else ""
        text = (
            f"published    {options.to}, revision {published.revision}{tag}\n"
            f"files        {len(published.sent)} sent, {published.kept} unchanged, {len(published.gone)} removed\n"
            f'load         datasets.load_dataset("{published.address}", streaming=True)'
        )
        print_result(output, text, asdict(published))
        return OK

    return run_command("factory.publish", action, errors=(DatasetError,), json_errors=output.json)


def _with_data_flag(argv: list[str]) -> list[str]:
    """Version 0.1 took the dataset as its first argument, without a flag."""
    if argv and not argv[0].startswith("-"):
        notice("the dataset is given with --data; the old spelling will stop working in the next version")
        return ["--data", *argv]
    return argv


if __name__ == "__main__":
    sys.exit(main())
