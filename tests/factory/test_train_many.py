"""64 motion spaces trained by one command on two workers, while the workers and the command are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_tree import age, command, descendants
from train_driver import TINY

import zoo

OBJECTS = int(os.environ.get("MENAGERIE_TRAIN_OBJECTS", "64"))
KILL_EVERY_S = 20.0
VIEWS = (
    "--resolution 32 --frames 4 --seconds 1 --views 4 --heldout-views 2 --points 32 --heldout 0 --samples 1"
)
TRAINING = ("--skip-heldout", "--text", "none", "--checkpoint-seconds", "1", "--json", "--set", *TINY)


def start(out: Path, objects: str, workers: int) -> subprocess.Popen[str]:
    """Start the command, with its output in a file beside `out`."""
    argv = [sys.executable, "-P", "-m", "factory.train", "dimo", "--renderer", "cpu", "--out", str(out)]
    argv += ["--objects", objects, "--workers", str(workers), *VIEWS.split(), *TRAINING]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)


def result(out: Path) -> dict:
    return json.loads(out.with_suffix(".log").read_text().splitlines()[-1])


@pytest.mark.slow
def test_64_objects_with_kills(tmp_path: Path) -> None:
    alone, many = tmp_path / "alone", tmp_path / "many"
    begin = time.monotonic()
    assert start(alone, "creatures://robot?motions=4", 1).wait(900) == 0, alone.with_suffix(
        ".log"
    ).read_text()
    wall_alone = time.monotonic() - begin
    print(f"one alone: {wall_alone:.0f} s", flush=True)

    def trained() -> int:
        return len(list(many.glob("models/dimo/*/refs/main")))

    objects = f"creatures://*?count={OBJECTS}&motions=4"
    begin, killed = time.monotonic(), 0
    process, next_kill, reported = start(many, objects, 2), begin + KILL_EVERY_S, 0
    driver_killed = False
    while process.poll() is None:
        time.sleep(0.5)
        if trained() >= reported + 8:
            reported = trained()
            print(
                f"{time.monotonic() - begin:.0f} s: {reported} trained, {killed} workers killed", flush=True
            )
        if not driver_killed and trained() >= OBJECTS // 2:
            driver_killed = True
            process.kill()
            process.wait()
            process = start(many, objects, 2)
        elif time.monotonic() > next_kill:
            next_kill = time.monotonic() + KILL_EVERY_S
            pids = descendants(process.pid)
            workers = [pid for pid in pids if re.match(r"ray::Worker, ", command(pid)) and age(pid) > 5]
            for pid in workers[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
    wall = time.monotonic() - begin
    assert process.returncode == 0, many.with_suffix(".log").read_text()[-4000:]
    print(
        f"{OBJECTS} objects: {wall:.0f} s, {killed} workers and a driver killed; {wall / OBJECTS:.1f} s per object, "
        f"{wall_alone:.0f} s for one alone"
    )
    rows = re.findall(r"^\| (dimo/\S+) \| (\S+) ", (many / "leaderboard.md").read_text(), re.M)
    assert len(rows) == len({name for name, _ in rows}) == OBJECTS
    assert sorted(name for name, _ in rows) == [
        name.removeprefix("local:") for name in sorted(zoo.list_models("local:*", home=many))
    ]
    scores = [float(score) for _, score in rows]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 8
    answer = result(many)
    assert answer["failed"] == {} and len(answer["models"]) == len(answer["objects"]) == OBJECTS
    assert not list((many / "_factory" / "attempts").glob("*")) and killed >= 2
    assert wall / OBJECTS <= wall_alone
