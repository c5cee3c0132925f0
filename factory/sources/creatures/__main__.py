"""`python -m factory.sources.creatures gallery` and `… export SPECIES --seed N -o file.glb`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from factory.sources.creatures import catalogue as creatures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m factory.sources.creatures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    gallery = commands.add_parser("gallery", help="draw every species, a few seeds and strips of motions")
    gallery.add_argument(
        "--out", type=Path, default=Path("docs/creatures"), help="folder (default: %(default)s)"
    )
    export = commands.add_parser("export", help="write one creature as GLB, one animation a motion")
    export.add_argument(
        "species", choices=creatures.species(), metavar="SPECIES", help=", ".join(creatures.species())
    )
    export.add_argument("--seed", type=int, default=0, help="the individual (default: 0, the portrait)")
    export.add_argument("--motion", action="append", metavar="NAME", help="only these motions (default: all)")
    export.add_argument("-o", "--out", type=Path, help="file (default: SPECIES-SEED.glb)")
    options = parser.parse_args(arguments)
    if options.command == "gallery":
        for path in _gallery(options.out):
            print(path)
        return
    path = options.out or Path(f"{options.species}-{options.seed}.glb")
    try:
        data = creatures.build(options.species, options.seed, options.motion)
    except ValueError as error:
        sys.exit(f"export: {error}")
    path.write_bytes(data)
    print(f"{path}: {len(data):,} bytes")


def _gallery(out: Path) -> list[Path]:
    from factory.sources.creatures.gallery import write  # renders: not needed to export

    return write(out)


if __name__ == "__main__":
    main()
