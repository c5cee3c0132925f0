"""Run a command in a file system that is too small, enlarge that, and run the command again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# In a mount namespace of its own, which ends with the script: nobody else sees the file system.
SCRIPT = """
mount -t tmpfs -o size=$1 none "$2" || exit 99
cd "$2"
shift 2
"$@" > ../first.out 2> ../first.err; echo $? > ../first.code
find . -type f > ../first.files
mount -o remount,size=500m . && "$@" > ../second.out 2> ../second.err; echo $? > ../second.code
cp -a . ../result
"""
NAMESPACES = (
    subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
    if shutil.which("unshare")
    else 1
)
requires_namespaces = pytest.mark.skipif(
    NAMESPACES != 0, reason="mounting in a namespace is not permitted here"
)


class Runs(NamedTuple):
    """Exit codes and stderr of both runs, the files that the first left, and a copy of what the second left."""

    codes: tuple[int, int]
    errors: tuple[str, str]
    left: list[str]
    result: Path


def on_a_full_disk(command: str, kib: int, folder: Path) -> Runs:
    """Run `python -m COMMAND` in a file system of `kib` KiB, and again in a large one; arguments have no spaces."""
    disk = folder / "disk"
    disk.mkdir()
    arguments = [sys.executable, "-P", "-m", *command.split()]
    script = ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", f"{kib}k", str(disk), *arguments]
    subprocess.run(script, check=True, timeout=600)

    def read(name: str) -> str:
        return (folder / name).read_text()

    codes = int(read("first.code")), int(read("second.code"))
    errors = read("first.err"), read("second.err")
    return Runs(codes, errors, read("first.files").split("\n"), folder / "result")
