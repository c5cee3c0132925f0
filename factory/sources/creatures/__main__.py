"""Render the creature gallery, or export one creature as GLB."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from factory.sources.creatures import catalogue as creatures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m factory.sources.creatures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    gallery = commands.add_parser("gallery", help="render every species with several seeds and motions")
    gallery.add_argument(
        "--out", type=Path, default=Path("docs/creatures"), help="output folder (default: %(default)s)"
    )
    export = commands.add_parser("export", help="write one creature as GLB, with one animation per motion")
    export.add_argument(
        "species", choices=creatures.species(), metavar="SPECIES", help=", ".join(creatures.species())
    )
    export.add_argument(
        "--seed", type=int, default=0, help="seed of the individual (default: 0, the species' portrait)"
    )
    export.add_argument(
        "--motion", action="append", metavar="NAME", help="motion to export; repeatable (default: all)"
    )
    export.add_argument("-o", "--out", type=Path, help="output file (default: SPECIES-SEED.glb)")
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
    from factory.sources.creatures.gallery import write  # imports the renderers, which export does not need

    return write(out)


if __name__ == "__main__":
    main()
