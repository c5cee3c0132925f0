"""Python for Arm under emulation: by qemu-user, in a root folder that `make arm-root` fills."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import renderers

ROOT = os.environ.get("MENAGERIE_ARM_ROOT")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
needs_arm = pytest.mark.skipif(
    not (ROOT and EMULATOR),
    reason="needs qemu-user (qemu-aarch64-static), and MENAGERIE_ARM_ROOT, the folder that `make arm-root` fills",
)


def run_on_arm(code: str, *arguments: str, folder: Path, path: tuple[Path, ...] = ()) -> str:
    """Run Python code on an emulated Arm processor, with the installed packages of this project, without numba.

    Args:
        arguments: `sys.argv[1:]`.
        folder: an empty folder.
        path: folders to import from, too.
    Returns:
        What it prints on stdout.
    Raises:
        AssertionError: it failed, with what it printed on stderr.
    """
    installed = Path(renderers.__file__).parents[1]
    (metadata,) = installed.glob("menagerie4d-*.dist-info")
    for name in (
        "cluster",
        "factory",
        "renderers",
        "zoo",
        metadata.name,
    ):  # not the libraries, which are for x86-64
        (folder / name).symlink_to(installed / name)
    search = os.pathsep.join(str(part) for part in (folder, f"{ROOT}/opt/site", *path))
    (python,) = Path(f"{ROOT}/usr/bin").glob("python3.[0-9]*[0-9]")
    done = subprocess.run(
        [str(EMULATOR), "-L", str(ROOT), str(python), "-P", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
