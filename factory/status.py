"""`python -m factory.status`: how far a command has come, from the files in its output folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from cluster import JobStatus, Storage, StorageError, read_status
from cluster.status import status_lines
from factory.console import OK, OutputOptions, add_options, print_result, read_options, run_command

# The ledgers that commands write, relative to the output folder. Captioning a dataset has one of its own.
LEDGERS = ("_factory", "_factory/captioning")
EVERY_S = 5.0


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory.status") -> int:
    """Run the command; exit code 1 if the folder has no ledger or cannot be read."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show how far a command has come: tasks done, failing and left, rates, ETA. Works from any machine "
        "that can read the output folder, while the command runs and afterwards; writes nothing.",
    )
    parser.add_argument("out", metavar="OUT", help="the output folder of a command: a path or an fsspec URL")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_interval,
        const=EVERY_S,
        metavar="SECONDS",
        help=f"show it again every SECONDS (default: {EVERY_S:g}) until the command ends",
    )
    add_options(parser.add_argument_group("output"), OutputOptions)
    args = parser.parse_args(argv)
    if not args.out or "\0" in args.out:
        parser.error(f"OUT: expected a path or a URL, got {args.out!r}")
    output = read_options(args, OutputOptions)

    def action() -> int:
        storage = Storage(args.out)
        while True:
            found = {name: status for name in LEDGERS if (status := read_status(storage, name)) is not None}
            if not found:
                raise StorageError(
                    f"{storage.url} has no ledger: expected the output folder of a command of the factory"
                )
            if args.watch is not None and not output.json and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")
            print_result(
                output, _text(found), {"jobs": {name: each.to_json() for name, each in found.items()}}
            )
            if args.watch is None or all(each.state != "running" for each in found.values()):
                return OK
            time.sleep(args.watch)

    return run_command("factory.status", action, json_errors=output.json)


def _text(found: dict[str, JobStatus]) -> str:
    blocks = []
    for name, status in found.items():
        lines = status_lines(status)
        blocks.append("\n".join([f"ledger       {name}", *lines] if len(found) > 1 else lines))
    return "\n\n".join(blocks)


def _interval(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 86400 seconds, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
