"""`python -m factory.motions`: render the motion videos that a motion space is trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cluster import Interrupted, Ledger, StageError, StorageError
from factory.motion_videos.options import add_options, film_as_asked, read_options
from factory.motion_videos.run import summary
from factory.sources import SourceError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if there are videos of at least one object: the table says which are missing."""
    parser = argparse.ArgumentParser(
        prog="python -m factory.motions",
        description="Film every motion of an object for a motion space to learn. The same command resumes.",
    )
    add_options(parser)
    args = parser.parse_args(argv)
    objects, recipe = read_options(parser, args)
    try:
        made = film_as_asked(args, Ledger(args.out), objects, recipe)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 130
    except (SourceError, StageError, StorageError) as error:
        print(f"factory.motions: {error}", file=sys.stderr)
        return 1
    print(summary(made))
    return 0 if any(one.folder for one in made) else 1


if __name__ == "__main__":
    sys.exit(main())
