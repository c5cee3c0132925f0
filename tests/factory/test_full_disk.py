"""A full disk, a real one: one sentence that names the file, nothing lost, and the same command then completes."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import on_a_full_disk, requires_namespaces
from tiny_dataset import grow

from renderers.files import atomic_path
from zoo.console import describe

RENDER = (
    "factory.render --source creatures://bird --out new --resolution 32 --views 2 --num-frames 4 --fps 4 "
    "--max-animations 3 --quiet --workers 0"
)
SLOW = pytest.mark.slow


def content(folder: Path) -> dict[str, str]:
    """Path → SHA-256 of every file, without ledgers, which record times."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "_factory" not in file.parts
    }


@requires_namespaces
@pytest.mark.parametrize(
    ("command", "kib", "words"),
    [
        ("zoo sample dimo/bird --frames 2 --out new.npz", 16, "zoo: new.npz: No space left on device: free some space"),
        pytest.param("zoo sample dimo/bird --frames 2 --out new.mp4", 16, "zoo: new.mp4: No space left", marks=SLOW),
        pytest.param("zoo sample dimo/bird --frames 2 --out new.glb", 16, "zoo: new.glb: No space left", marks=SLOW),
        ("zoo publish dimo/bird local:dimo/x --home home", 400, "was not published: No space left on device: home/"),
        ("factory.curate export --data {discs} --to new", 16, "factory.curate: new: No space left on device"),
        pytest.param("factory.curate export --data {discs} --to new", 4, "No space left on device", marks=SLOW),
        pytest.param("factory.publish --data {discs} --to local:new", 40, ": No space left on device", marks=SLOW),
        *(
            pytest.param(RENDER, kib, f"factory.render: cannot write {words}", marks=marks)
            for kib, words, marks in ((8, "", SLOW), (60, "", SLOW), (150, "the shard ", SLOW))
        ),
    ],
)  # fmt: skip
def test_a_full_disk_is_one_sentence_and_the_same_command_completes(command, kib, words, tmp_path):
    grow(tmp_path / "discs", 0, 2)
    command = command.format(discs=tmp_path / "discs") if "{discs}" in command else command
    runs = on_a_full_disk(command, kib, tmp_path)
    assert runs.codes == (1, 0), runs.errors
    (line,) = runs.errors[0].strip().splitlines()
    assert words in line and "No space left on device" in line, line
    assert "free" in line and "again" in line
    whole = tmp_path / "whole"
    whole.mkdir()
    subprocess.run([sys.executable, "-P", "-m", *command.split()], cwd=whole, check=True, capture_output=True)
    assert content(runs.result) == content(whole)
    if command.startswith("zoo sample") or "export" in command:
        assert runs.left == [""], "no part of the result is left"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_error_of_a_full_disk_names_the_file_that_has_no_room(code, tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.npz"):
        raise OSError(code, "cannot")
    assert describe(caught.value).startswith(f"{tmp_path / 'a.npz'}: ") and not list(tmp_path.iterdir())
    copied = OSError(code, "cannot", "source.bin", None, "copy.bin")
    assert describe(copied).startswith("copy.bin: ") and "free some space" in describe(copied)
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.npz"):
        raise OSError(errno.EACCES, "denied", "other")
    assert describe(caught.value) == "other: denied"
