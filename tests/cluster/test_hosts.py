"""A cluster of several hosts with addresses of their own: machines and links fail, and every task ends exactly once."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from exactly_once import problems
from hosts import Hosts, missing, wait_for
from hosts_driver import expected
from process_tree import command
from ray_hosts import ENV, HEAD, HOSTS, RayCluster

SUPPORT = Path(__file__).parents[1] / "support"
TASKS = 2000
CUT_S = 60.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """A head, three workers and a client; the link of the head may become slow."""
    with Hosts(tmp_path / "hosts", HOSTS, slow=[HEAD], env=ENV) as hosts:
        cluster = RayCluster(hosts)
        cluster.start()
        yield cluster


class Job:
    """The job of `hosts_driver`, submitted by the client until it succeeds."""

    def __init__(self, cluster: RayCluster, folder: Path, count: int) -> None:
        self.cluster, self.count = cluster, count
        self.root, self.audit, self.source = folder / "out", folder / "audit", folder / "job"
        self.audit.touch()
        self.source.mkdir()
        for module in ("hosts_driver", "cluster_stages", "exactly_once"):
            shutil.copy(SUPPORT / f"{module}.py", self.source)
        self.submissions = 0
        self.submit()

    def submit(self) -> None:
        entrypoint = (sys.executable, "-m", "hosts_driver", self.root, self.audit, self.count)
        self.process = self.cluster.submit(*entrypoint, options=("--working-dir", "."), cwd=self.source)
        self.submissions += 1

    def written(self) -> int:
        """Number of markers that have been written."""
        return self.audit.read_bytes().count(b"\n")

    def wait(self, written: float, seconds: float) -> None:
        """Wait until so many markers have been written."""

        def reached() -> bool:
            self.cluster.keep_running()
            if self.written() >= written:
                return True
            assert self.process.poll() is None, self.cluster.output()
            return False

        wait_for(reached, seconds, f"{self.written()} of {written} tasks after {seconds} s")

    def kill_driver(self) -> None:
        """Kill the driver, and wait until the client says that the job has failed."""
        (driver,) = (
            pid
            for pid in self.cluster.hosts[HEAD].processes()
            if command(pid).startswith(f"{sys.executable} -m hosts_driver")
        )
        os.kill(driver, signal.SIGKILL)
        assert self.process.wait(120) == 1, self.cluster.output()

    def wait_for_success(self, seconds: float) -> str:
        """Submit again whenever the job has failed, as a user or a `backoffLimit` does; return the output."""
        end = time.monotonic() + seconds
        while True:
            while self.process.poll() is None:
                self.cluster.keep_running()
                assert time.monotonic() < end, self.cluster.output()
                time.sleep(0.2)
            if self.process.returncode == 0:
                return self.cluster.output()
            assert self.submissions < 5, self.cluster.output()
            self.submit()

    def blamed(self) -> set[str]:
        """The tasks with a failed attempt."""
        return {path.name for path in (self.root / "_factory" / "attempts").iterdir()}


def faulty(count: int) -> set[str]:
    return {key for key, result in expected(count).items() if result != "done"}


def test_a_machine_dies_another_is_cut_off_the_head_is_far_away_and_the_driver_is_killed(
    cluster: RayCluster, tmp_path: Path
) -> None:
    hosts = cluster.hosts
    job = Job(cluster, tmp_path, TASKS)
    job.wait(0.1 * TASKS, 240)
    hosts["w1"].stop()
    job.wait(0.15 * TASKS, 120)
    hosts.cut("w2")
    cut_at = time.monotonic()
    hosts.add("w1", hosts["w1"].address)  # a new machine in place of the dead one
    cluster.start_worker("w1")
    wait_for(lambda: cluster.keep_running() or time.monotonic() > cut_at + CUT_S, CUT_S + 5)
    hosts.mend("w2")
    job.wait(0.4 * TASKS, 300)
    hosts.condition(HEAD, delay_s=0.1, loss=0.02)
    job.wait(0.5 * TASKS, 300)
    job.kill_driver()
    job.submit()
    job.wait(0.65 * TASKS, 300)
    hosts.condition(HEAD)
    output = job.wait_for_success(600)
    assert f"{TASKS} tasks" in output
    assert problems(job.root, job.audit, expected(TASKS)) == []
    assert job.blamed() == faulty(TASKS)
    workers = {line.split()[2] for line in job.audit.read_text().splitlines()}
    assert len(workers) >= 6, "not all workers came back"
    assert job.submissions == 2


def test_a_lost_head(cluster: RayCluster, tmp_path: Path) -> None:
    """The same command on a new head resumes; the workers join it by themselves."""
    job = Job(cluster, tmp_path, 400)
    job.wait(100, 240)
    cluster.hosts[HEAD].stop()
    job.process.kill()  # it would try to reach the job server for long
    job.process.wait()
    cluster.hosts.add(HEAD, cluster.hosts[HEAD].address)
    cluster.start_head()
    cluster.wait_started(HEAD)
    before = job.written()
    job.submit()
    output = job.wait_for_success(420)
    assert "400 tasks" in output and before >= 100
    assert problems(job.root, job.audit, expected(400)) == []
    assert job.blamed() == faulty(400)
