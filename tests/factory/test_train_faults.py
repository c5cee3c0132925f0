"""A full disk and Ctrl-C during `factory.train`: one sentence, and the same command trains the same model."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from full_disk import on_a_full_disk, requires_namespaces
from interrupted import interrupt
from train_driver import RECIPE, TINY
from train_mvvdm_driver import arguments, write_discs

DIMO = " ".join(
    [
        "factory.train dimo --objects creatures://robot?motions=2 --heldout 0 --text none --out new --workers 0",
        f"--resolution {RECIPE.resolution} --frames {RECIPE.frames} --views {RECIPE.views} --quiet",
        f"--heldout-views {RECIPE.heldout_views} --points {RECIPE.points} --checkpoint-seconds 0.1",
        *(f"--set {change.replace(' ', '')}" for change in TINY),
    ]
)


@pytest.fixture(autouse=True)
def interruptible():
    """Child processes inherit an ignored SIGINT, as that of a job in the background of a script is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[str, str]:
    """Name → command, without spaces inside an argument; those with "once" save a single checkpoint, at the end."""
    data = tmp_path_factory.mktemp("clips") / "discs"
    write_discs(data)
    mvvdm = arguments(data, Path("new"), "--workers", "0", "--quiet")
    commands = {
        "dimo": DIMO,
        "mvvdm": " ".join(["factory.train", *(part.replace(", ", ",") for part in mvvdm)]),
    }
    once = {
        "dimo once": DIMO.replace("--checkpoint-seconds 0.1", "--checkpoint-seconds 1000"),
        "mvvdm once": commands["mvvdm"].replace("--save-every 4", "--save-every 1000"),
    }
    return commands | once


@pytest.fixture(scope="module")
def undisturbed(commands, tmp_path_factory) -> Callable[[str], dict[str, bytes]]:
    """The files of the model that a family's command trains without a fault."""

    @cache
    def files(family: str) -> dict[str, bytes]:
        folder, command = (
            tmp_path_factory.mktemp(family),
            [sys.executable, "-P", "-m", *commands[family].split()],
        )
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return model(folder / "new")

    return files


def model(out: Path) -> dict[str, bytes]:
    """The files of the one model in a registry, by name; none if there is no model."""
    assert not [path for path in out.rglob(".*") if path.is_file() or path.name.startswith(".unfinished")]
    snapshots = list(out.glob("models/*/*/snapshots/*"))
    assert len(snapshots) <= 1
    return {file.name: file.read_bytes() for snapshot in snapshots for file in snapshot.iterdir()}


@requires_namespaces
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kib", "words"),
    [
        ("dimo", 100, "motions/robot/"),
        ("dimo", 260, "checkpoint.safetensors"),
        ("dimo", 380, "checkpoint.safetensors"),  # a later one
        ("dimo once", 370, "local:dimo/robot was not published"),
        ("mvvdm", 1000, "autoencoder.safetensors"),
        ("mvvdm", 6000, "network.safetensors"),
        ("mvvdm", 8500, "network.safetensors"),  # the second one: the first stays until it is whole
        ("mvvdm once", 7600, "local:mvvdm/tiny was not published"),
    ],
)
def test_a_full_disk_stops_a_training_that_the_same_command_completes(
    commands, undisturbed, family, kib, words, tmp_path
):
    runs = on_a_full_disk(commands[family], kib, tmp_path)
    assert runs.codes == (1, 0), runs.errors
    (line,) = runs.errors[0].strip().splitlines()
    assert (
        words in line and "No space left on device" in line and "free" in line.lower() and "again" in line
    ), line
    assert not [file for file in runs.left if ".part" in file or ".unfinished" in file]
    assert model(runs.result / "new") == undisturbed(family.split()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("dimo", "checkpoint.safetensors"),
        ("dimo", "progress.json"),
        ("dimo", "snapshots/"),
        ("dimo", "leaderboard.md"),
        ("mvvdm", "autoencoder.safetensors"),
        ("mvvdm", "network-loss.json"),
        ("mvvdm", "network.safetensors"),
        ("mvvdm", "result.json"),
    ],
)
def test_ctrl_c_while_a_training_writes_a_file(commands, undisturbed, family, written, tmp_path):
    stopped = interrupt(commands[family], f"rename:{written}", tmp_path)
    assert stopped.returncode == 130 and "Traceback" not in stopped.stderr, stopped.stderr
    (line,) = stopped.stderr.strip().splitlines()
    assert "stopped" in line
    again = interrupt(commands[family], "never", tmp_path)
    assert again.returncode == 0, again.stderr
    assert model(tmp_path / "new") == undisturbed(family)
