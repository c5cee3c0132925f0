"""`python -m factory.publish`: publish a dataset to a hub or a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cluster.storage import StorageError
from factory.dataset.release import publish
from zoo.errors import ZooError


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m factory.publish",
        description="Publish a dataset. Interrupted, the same command goes on; after an append it sends what is new.",
    )
    parser.add_argument("dataset", help="folder or fsspec URL of the dataset")
    parser.add_argument("--to", required=True, metavar="TARGET", help="hub:org/name or local:PATH")
    parser.add_argument("--tag", help="name this version, for instance v1")
    parser.add_argument(
        "--private", action="store_true", help="if the repository is made: for its owners only"
    )
    parser.add_argument("--message", default="", help="of the commits")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 if it could not be done."""
    args = parse_arguments(argv)
    try:
        done = publish(args.dataset, args.to, tag=args.tag, private=args.private, message=args.message)
    except KeyboardInterrupt:
        print("\nstopped; nothing is lost, the same command goes on", file=sys.stderr)
        return 130
    except (ZooError, StorageError, OSError) as error:
        print(f"factory.publish: {error}", file=sys.stderr)
        return 1
    print(f"published    {args.to}, revision {done.revision}" + (f", {args.tag}" if args.tag else ""))
    print(f"files        {len(done.sent)} sent, {done.kept} there already, {len(done.gone)} removed")
    print(f'load         datasets.load_dataset("{done.address}", streaming=True)')
    return 0


if __name__ == "__main__":
    sys.exit(main())
