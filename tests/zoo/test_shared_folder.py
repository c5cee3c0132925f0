"""Several processes and threads use one folder of models: each gets a whole model, and nothing is left half-written."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_family import Pendulum, pendulum

import zoo
from zoo import families, repository

SUPPORT = Path(__file__).parents[1] / "support"
ROUNDS = 8
PUBLISH = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import zoo
from tiny_family import pendulum
zoo.register_family("tiny", "tiny_family:Pendulum")
home, first = sys.argv[1], int(sys.argv[2])
for seed in range(first, first + {ROUNDS}):
    name = zoo.publish(pendulum(seed), "local:tiny/clock", home=home)
print(name)
"""
SAMPLE = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import zoo
zoo.load("dimo/egg", home=sys.argv[1]).sample(3).save(sys.argv[2])
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(families, "_registered", {})
    zoo.register_family("tiny", "tiny_family:Pendulum")


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return stdout.strip()


def which(model: Pendulum) -> int:
    """The seed of a model; fails if its weights are those of no seed."""
    (seed,) = [
        seed
        for seed in range(2 * ROUNDS + 1)
        if all(np.array_equal(pendulum(seed).weights[name], array) for name, array in model.weights.items())
    ]
    return seed


def test_processes_publish_one_name_while_another_loads_it(tmp_path):
    """Two publish 8 revisions each; every load gives all of one of them, and the last one stays."""
    zoo.publish(pendulum(2 * ROUNDS), "local:tiny/clock", home=tmp_path)
    publishers = [start(PUBLISH, tmp_path, first) for first in (0, ROUNDS)]
    seen = set()
    while any(publisher.poll() is None for publisher in publishers):
        seen.add(which(zoo.load("tiny/clock", home=tmp_path)))
    last = [output(publisher) for publisher in publishers]
    assert zoo.info("tiny/clock", home=tmp_path).name in last and len(seen) > 1
    root = tmp_path / "models" / "tiny" / "clock"
    assert {path.name for path in root.iterdir()} == {"refs", "snapshots"}
    assert [path.name for path in (root / "refs").iterdir()] == ["main"]
    snapshots = list((root / "snapshots").iterdir())
    assert len(snapshots) == 2 * ROUNDS + 1
    for snapshot in snapshots:
        repository.check(snapshot)
        assert repository.revision_of(snapshot) == snapshot.name


def test_threads_load_a_name_while_others_publish_it(tmp_path):
    zoo.publish(pendulum(0), "local:tiny/clock", home=tmp_path)
    done = threading.Event()

    def load() -> set[int]:
        seen = set()
        while not done.is_set():
            seen.add(which(zoo.load("tiny/clock", home=tmp_path)))
        return seen

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        try:
            names = list(
                pool.map(
                    lambda seed: zoo.publish(pendulum(seed), "local:tiny/clock", home=tmp_path), range(8)
                )
            )
        finally:
            done.set()
        assert all(load.result() <= set(range(8)) for load in loads)
    assert len(set(names)) == 8 and zoo.info("tiny/clock", home=tmp_path).name in names


def broken() -> Pendulum:
    """A model that is refused after its weights were written."""
    model = pendulum()
    model.weights["bias"][0] = np.nan
    return model


def test_a_refused_model_leaves_no_folders(tmp_path):
    home = tmp_path / "home"
    with pytest.raises(zoo.ZooError, match="NaN"):
        zoo.publish(broken(), "local:tiny/clock", home=home)
    with pytest.raises(zoo.ZooError, match="is of the family 'tiny'"):
        zoo.publish(pendulum(), "local:dimo/clock", home=home)
    assert not home.exists()
    name = zoo.publish(pendulum(), "local:tiny/bell", home=home)
    with pytest.raises(zoo.ZooError, match="NaN"):
        zoo.publish(broken(), "local:tiny/clock", home=home)
    assert [path.name for path in (home / "models" / "tiny").iterdir()] == ["bell"]
    with pytest.raises(zoo.ZooError, match="NaN"):
        zoo.publish(broken(), "local:tiny/bell", home=home)
    assert zoo.info("tiny/bell", home=home).name == name


def test_a_folder_of_the_users_stays_if_the_model_is_refused(tmp_path):
    own = tmp_path / "models" / "tiny" / "clock"
    own.mkdir(parents=True)
    with pytest.raises(zoo.ZooError, match="NaN"):
        zoo.publish(broken(), "local:tiny/clock", home=tmp_path)
    assert own.is_dir() and not list(own.iterdir())


@pytest.mark.parametrize("removed", ["clock", "snapshots", "refs"])
def test_a_refused_model_does_not_disturb_another_that_is_published(removed, tmp_path, monkeypatch):
    """The folders that the refused one removes may be those that the other is about to write to."""
    mkdir, removals = Path.mkdir, []

    def mkdir_before_another_removes_it(self: Path, *args: object, **options: object) -> None:
        mkdir(self, *args, **options)
        if self.name == removed and len(removals) < 2 and self.exists():
            removals.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir_before_another_removes_it)
    name = zoo.publish(pendulum(), "local:tiny/clock", home=tmp_path)
    assert len(removals) == 2 and zoo.info("tiny/clock", home=tmp_path).name == name


@pytest.mark.parametrize("left", ["refs", "snapshots"])
def test_a_publisher_that_was_killed_between_its_folders_does_not_block_the_name(tmp_path, left):
    root = tmp_path / "models" / "tiny" / "clock"
    (root / left).mkdir(parents=True)
    if left == "snapshots":
        (root / left / ("a" * 40)).mkdir()
    zoo.publish(pendulum(), "local:tiny/clock", home=tmp_path)
    assert which(zoo.load("tiny/clock", home=tmp_path)) == 0
    for name in ("photo.jpg", "notes"):  # the user's
        (root / "snapshots" / name).mkdir()
        with pytest.raises(zoo.ZooError, match="has files that are no published model"):
            zoo.publish(pendulum(1), "local:tiny/clock", home=tmp_path)
        (root / "snapshots" / name).rmdir()


@pytest.mark.slow
def test_processes_that_sample_one_model_write_the_same_file(tmp_path):
    from tiny_dimo import tiny_pipeline

    egg = tiny_pipeline()
    zoo.publish(egg, "local:dimo/egg", home=tmp_path)
    zoo.load("dimo/egg", home=tmp_path).sample(3).save(tmp_path / "alone.npz")
    names = ["one.npz", "shared.npz", "shared.npz"]
    for process in [start(SAMPLE, tmp_path, tmp_path / name) for name in names]:
        output(process)
    for name in set(names):
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alone.npz",
        "models",
        "one.npz",
        "shared.npz",
    ]
