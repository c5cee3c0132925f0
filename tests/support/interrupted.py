"""Run a command that receives SIGINT, as by Ctrl-C, at an exact moment of its run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Python imports `sitecustomize` before the program. Counting starts with the first module after `zoo.interrupts`:
# nothing of ours runs before that one.
HOOK = """
import os, signal, sys

kind, _, wanted = os.environ["INTERRUPT_AT"].partition(":")
started, imports, done = False, 0, False

def hook(event, arguments):
    global started, imports, done
    if done:
        return
    if event == "import" and kind == "import":
        imports += started
        started = started or arguments[0] == "zoo.lazy"
        done = imports == int(wanted)
    elif event == "os.rename" and kind == "rename":
        done = wanted in str(arguments[1])
    if done:
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
"""


def interrupt(command: str, moment: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m COMMAND` in a folder and send it SIGINT.

    Args:
        command: module and arguments, without spaces inside an argument.
        moment: "import:N", at the Nth import after the command's start; or "rename:TEXT", when a complete file
            is about to be moved to a path that contains TEXT; "never".
        folder: the working directory.
    """
    hooks = folder / ".hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(HOOK)
    return subprocess.run(
        [sys.executable, "-P", "-m", *command.split()],
        env={**os.environ, "PYTHONPATH": str(hooks), "INTERRUPT_AT": moment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
