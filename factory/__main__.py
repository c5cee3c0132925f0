"""`python -m factory` and `menagerie`: list the commands, or run one of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "render": "render animated 3D models into an MV-Video dataset",
    "motions": "render the motion videos of objects, for motion spaces to be trained on",
    "train": "train motion spaces (dimo) or a multi-view video diffusion model (mvvdm)",
    "animate": "animate 3D models by sentences",
    "evaluate": "evaluate models under a protocol, and make its truth",
    "curate": "look after a dataset: report, duplicates, takedown, captions, export",
    "publish": "publish a dataset to a hub or a folder",
    "status": "show how far a command has come that writes to an output folder",
}
ZOO = "load, sample, export and publish models (python -m zoo)"


def main(argv: Sequence[str] | None = None, prog: str = "python -m factory") -> int:
    """List the commands without arguments; otherwise run the named one with the rest of them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with_zoo = prog == "menagerie"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_listing(prog, with_zoo))
        return 0
    name, *rest = arguments
    if name == "zoo" and with_zoo:
        return importlib.import_module("zoo.__main__").main(rest, prog="menagerie zoo")
    if name not in COMMANDS:
        names = [*COMMANDS, *(["zoo"] if with_zoo else [])]
        print(f"{prog}: {name!r} is not a command; expected one of {', '.join(names)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"factory.{name}").main(rest, prog=f"{prog} {name}")


def _listing(prog: str, with_zoo: bool) -> str:
    commands = {**COMMANDS, **({"zoo": ZOO} if with_zoo else {})}
    lines = [f"  {name:8} {text}" for name, text in commands.items()]
    return "\n".join(
        [f"usage: {prog} COMMAND …", "", *lines, "", f"{prog} COMMAND --help lists its options."]
    )


def menagerie() -> int:
    """The console script: all commands of the factory and of the zoo."""
    return main(prog="menagerie")


if __name__ == "__main__":
    sys.exit(main())
