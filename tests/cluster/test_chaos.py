"""Drivers, actors and machines are killed, and every task still ends exactly once."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos_driver import expected
from cluster_stages import Work, wait_until
from exactly_once import AuditedLedger, problems
from process_tree import age, command, descendants, is_running, started

from cluster import Failure, Ledger, Task, run_inline

SUPPORT = Path(__file__).parents[1] / "support"
TASKS = 300
Finished = tuple[AuditedLedger, Callable[[], list[str]]]
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class Watched:
    """A driver process. All its descendants are recorded, so that orphans can be found."""

    def __init__(self, script: str, *arguments: object, home: Path) -> None:
        # Makes Ray listen on loopback only, even where the script starts nodes itself.
        env = {
            **os.environ,
            "PYTHONPATH": str(SUPPORT),
            "HOME": str(home),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Ray's default of 15 starves the actors on a machine with other load: they would be killed as soon as
            # they have started, without doing any work.
            "RAY_worker_niceness": "0",
        }
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_ADDRESS"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SUPPORT / script), *map(str, arguments)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # Nobody reads the pipe before the driver has ended, so a driver that says more than a few lines never ends.
        assert self.process.stdout is not None
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGE_SIZE"))
        self.processes: set[tuple[int, int]] = set()  # (pid, start time)

    def look(self) -> list[int]:
        """Record all descendants; return the actors whose child has run for a second, so that starting one succeeds."""
        pids = descendants(self.process.pid)
        self.processes.update((pid, started(pid)) for pid in pids)
        actors = [pid for pid in pids if command(pid).startswith("ray::Worker")]
        return [pid for pid in actors if any(age(child) > 1.0 for child in descendants(pid)[:1])]

    def kill(self) -> None:
        self.look()
        self.process.kill()
        self.process.communicate()

    def orphans(self, timeout: float = 10.0) -> list[str]:
        """List the processes that outlive the driver.

        Ray's two agents are excluded: they end as well, but first try to reach Ray's server for up to a minute.
        """

        def alive() -> dict[int, str]:
            pids = [pid for pid, start in self.processes if is_running(pid) and started(pid) == start]
            commands = {pid: command(pid) for pid in pids}
            return {pid: line for pid, line in commands.items() if not line.startswith(AGENTS)}

        wait_until(lambda: not alive(), timeout)
        return [f"{pid} {line}" for pid, line in alive().items()]


def committed(root: Path) -> int:
    return sum(1 for _ in root.glob("_factory/done/*/*.json"))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "driver_kills"), [(TASKS, 2), (10_000, 5)])
def test_actors_and_drivers_are_killed(tmp_path: Path, count: int, driver_kills: int) -> None:
    root, audit, home = tmp_path / "out", tmp_path / "audit", tmp_path / "home"
    audit.touch()
    home.mkdir()
    kills = {"actors": 0, "drivers": 0}
    drivers, begin = [], time.monotonic()
    for stop_at in [*(count * (i + 1) // (driver_kills + 2) for i in range(driver_kills)), None]:
        driver = Watched("chaos_driver.py", root, audit, count, home=home)
        drivers.append(driver)
        next_kill = time.monotonic() + 0.7
        while driver.process.poll() is None:
            actors = driver.look()
            if stop_at is not None and audit.read_bytes().count(b"\n") >= stop_at:
                driver.kill()
                kills["drivers"] += 1
            elif time.monotonic() >= next_kill:
                next_kill = max(next_kill + 0.7, time.monotonic())
                for pid in actors[:1]:
                    os.kill(pid, signal.SIGKILL)
                    kills["actors"] += 1
            time.sleep(0.1)
    output = driver.process.communicate()[0]
    print(f"{count} tasks in {time.monotonic() - begin:.0f} s, killed: {kills}; {output.strip()}")
    assert driver.process.returncode == 0, output
    assert kills["drivers"] == driver_kills and kills["actors"] >= max(4, count // 300), kills
    assert problems(root, audit, expected(count)) == []
    assert f"{count} tasks" in output
    assert [driver.orphans() for driver in drivers] == [[]] * len(drivers)
    assert not (home / ".ray").exists()  # no saved token, which would affect a later `ray start`


@pytest.mark.slow
def test_a_machine_is_lost(tmp_path: Path) -> None:
    """Two nodes; the raylet of one is killed halfway."""
    root, audit = tmp_path / "out", tmp_path / "audit"
    audit.touch()
    driver = Watched("node_loss_driver.py", root, audit, TASKS, home=tmp_path)
    while driver.process.poll() is None:
        driver.look()
        time.sleep(0.1)
    output = driver.process.communicate()[0]
    assert driver.process.returncode == 0, output
    assert "2 nodes before, 1 after" in output and "1 actors lost" in output, output
    assert problems(root, audit, expected(TASKS)) == []
    assert driver.orphans() == []


@pytest.mark.slow
def test_actors_and_drivers_are_killed_while_markers_are_packed(tmp_path: Path) -> None:
    root, audit, home = tmp_path / "out", tmp_path / "audit", tmp_path / "home"
    audit.touch()
    home.mkdir()
    drivers, kills = [], 0
    for stop_at in (TASKS // 6, TASKS // 3, TASKS // 2, 2 * TASKS // 3, None):
        driver = Watched("compacting_chaos_driver.py", root, audit, TASKS, home=home)
        drivers.append(driver)
        next_kill = time.monotonic() + 0.7
        while driver.process.poll() is None:
            actors = driver.look()
            if stop_at is not None and len(audit.read_text().splitlines()) >= stop_at:
                driver.kill()
            elif time.monotonic() >= next_kill:
                next_kill = max(next_kill + 0.7, time.monotonic())
                for pid in actors[:1]:
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
            time.sleep(0.1)
    output = driver.process.communicate()[0]
    assert driver.process.returncode == 0 and f"{TASKS} tasks" in output, output
    assert kills >= 4
    assert problems(root, audit, expected(TASKS)) == []
    segments = Ledger(root).storage.names("_factory/segments")
    assert len(segments) >= 30 and committed(root) < 50, (len(segments), committed(root))
    assert [each.orphans() for each in drivers] == [[]] * len(drivers)


@pytest.fixture
def finished(tmp_path: Path):
    """A small finished job without problems."""
    root, audit = str(tmp_path / "out"), str(tmp_path / "audit")
    ledger = AuditedLedger(root, audit)
    run_inline(Work(), [Task("a"), Task("b"), Task("c"), Task("x", {"do": "raise"})], ledger)
    results = {"a": "done", "b": "done", "c": "done", "x": "has no faces"}
    assert problems(root, audit, results) == []
    return ledger, lambda: problems(root, audit, results)


def test_the_checker_finds_a_lost_task(finished: Finished) -> None:
    ledger, check = finished
    os.unlink(ledger.storage.path(ledger._marker("done", "b")))
    assert check() == ["b: lost"]


def test_the_checker_finds_a_task_committed_twice(finished: Finished) -> None:
    ledger, check = finished
    ledger._write(ledger.record("b"))
    assert check() == ["b: written 2 times"]


def test_the_checker_finds_a_task_both_done_and_quarantined(finished: Finished) -> None:
    ledger, check = finished
    ledger.storage.write(ledger._marker("quarantined", "b"), b"{}")
    assert check() == ["b: 2 markers"]


def test_the_checker_finds_an_incomplete_file(finished: Finished) -> None:
    ledger, check = finished
    ledger.storage.write("data/c.bin", b"half")
    assert check() == ["c: done, but its file is incomplete"]


def test_the_checker_finds_a_wrong_cause(finished: Finished) -> None:
    ledger, check = finished
    os.unlink(ledger.storage.path(ledger._marker("quarantined", "x")))
    Ledger(ledger.root).quarantine(Task("x"), Failure("worker lost 5 times"))
    assert check() == ["x: expected 'has no faces', got 'worker lost 5 times'"]


def test_the_orphan_check_finds_an_orphan(tmp_path: Path) -> None:
    code = "import subprocess, time\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)"
    (tmp_path / "spawns.py").write_text(code)
    driver = Watched(str(tmp_path / "spawns.py"), home=tmp_path)
    assert wait_until(lambda: driver.look() == [] and len(driver.processes) == 1)
    driver.process.kill()
    driver.process.wait()
    driver.process.stdout.close()
    assert ["sleep 60" in orphan for orphan in driver.orphans(1.0)] == [True]
    for pid, _ in driver.processes:
        os.kill(pid, signal.SIGKILL)
