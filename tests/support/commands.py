"""The `main` functions of all commands that have options of their own, and what a test needs to run them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import factory.animate
import factory.curate
import factory.evaluate
import factory.motions
import factory.publish
import factory.render
import factory.status
import factory.train
import zoo.__main__

MAINS = {
    "animate": factory.animate.main,
    "render": factory.render.main,
    "motions": factory.motions.main,
    "train": factory.train.main,
    "curate": factory.curate.main,
    "evaluate": factory.evaluate.main,
    "publish": factory.publish.main,
    "status": factory.status.main,
    "zoo": zoo.__main__.main,
}


def contents(folder: Path) -> dict[str, str]:
    """Every path below a folder, with the hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def outcome(main, argv: list[str]) -> int:
    """The exit code of a command."""
    try:
        return main(argv)
    except SystemExit as stop:  # argparse
        return stop.code
