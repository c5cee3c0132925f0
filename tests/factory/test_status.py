"""`python -m factory.status` on the outputs of real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster_stages import Work

import factory.status
from cluster import Ledger, Task, run_inline
from factory.dataset import captioning


@pytest.fixture
def out(tmp_path: Path) -> Path:
    tasks = [
        *(Task(f"t{number}", {}, f"Fox, clip {number}") for number in range(4)),
        Task("bad", {"do": "raise"}),
    ]
    run_inline(Work(), tasks, Ledger(tmp_path / "out"))
    return tmp_path / "out"


def test_the_table(out, capsys):
    assert factory.status.main([str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run          Work, process") and lines[1].startswith(
        "state        finished, updated"
    )
    assert "tasks        4 done, 0 filtered, 1 quarantined" in lines
    assert "failing           1  ValueError: bad: mesh 'body' has no faces" in lines
    assert "retried           2  ValueError: bad: mesh 'body' has no faces" in lines
    first = next(number for number, line in enumerate(lines) if line.startswith("slowest"))
    assert sum("Fox, clip" in line for line in lines[first : first + 5]) == 4


def test_json_is_one_object_per_line(out, capsys):
    assert (
        factory.status.main([str(out), "--json", "--watch", "1"]) == 0
    )  # it has finished, so this does not wait
    (line,) = capsys.readouterr().out.splitlines()
    job = json.loads(line)["jobs"]["_factory"]
    assert job["state"] == "finished" and job["counts"] == {"done": 4, "quarantined": 1}
    assert job["run"]["slowest"][0]["label"] and job["run"]["format"] == 1


def test_a_hostile_label_does_not_reach_the_terminal(tmp_path, capsys):
    run_inline(Work(), [Task("a", {}, "fox\x1b[2J\nrun")], Ledger(tmp_path))
    assert factory.status.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\nrun\n" not in out


def test_the_ledger_of_captions_is_shown_too(out, capsys):
    assert captioning.LEDGER in factory.status.LEDGERS
    run_inline(Work(), [Task("caption")], Ledger(out, captioning.LEDGER))
    assert factory.status.main([str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"].keys() == {"_factory", "_factory/captioning"}


@pytest.mark.slow
def test_watching_a_run_until_it_ends(tmp_path):
    """While the command holds its lock; it is interrupted halfway, and resumed."""
    out = tmp_path / "out"
    render = (
        "factory.render --source creatures://bird creatures://fox --resolution 64 --views 2 --num-frames 8"
    )
    command = [sys.executable, "-P", "-m", *render.split(), "--fps", "8", "--workers", "0", "--out", str(out)]
    for is_last in (False, True):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        runs = 2 if is_last else 1
        while len(list(out.glob("_factory/progress/*.json"))) < runs and process.poll() is None:
            time.sleep(0.05)
        watch = [sys.executable, "-P", "-m", "factory.status", str(out), "--watch", "0.5", "--json"]
        watcher = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
        first = (
            watcher.stdout.readline()
        )  # the run may take only seconds, so it is interrupted as soon as it is seen
        if not is_last:
            while len(list(out.glob("_factory/done/*/*.json"))) < 2 and process.poll() is None:
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGINT)
        rest = watcher.communicate(timeout=400)[0]
        lines = [json.loads(line)["jobs"]["_factory"] for line in [first, *rest.splitlines()]]
        assert watcher.returncode == 0 and process.wait(60) == (0 if is_last else 130)
        assert lines[-1]["state"] == ("finished" if is_last else "interrupted")
        assert any(line["state"] == "running" and line["writers"] for line in lines)
        done = [line["counts"].get("done", 0) for line in lines]
        assert done == sorted(done)
    assert lines[-1]["counts"] == {"done": len(list(out.glob("_factory/done/*/*.json")))}
