"""`ray job submit` as documented, to a cluster started for the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos_driver import expected
from cluster_stages import wait_until
from exactly_once import problems
from process_tree import LOOPBACK, command, descendants, is_running, listening_addresses

SUPPORT = Path(__file__).parents[1] / "support"
RAY = Path(sys.executable).with_name("ray")
TASKS = 30


@pytest.fixture
def cluster(tmp_path: Path):
    """Environment to reach a one-node, loopback-only cluster on this machine, and its head process."""
    gcs, dashboard, agent = free_ports(3)  # the default agent port is in use by the session fixture
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(tmp_path),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    options = f"--port={gcs} --dashboard-host=127.0.0.1 --dashboard-port={dashboard} --num-cpus=2 "
    options += f"--dashboard-agent-listen-port={agent}"
    with open(tmp_path / "ray.log", "w") as log:
        head = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--include-dashboard=true", *options.split()],
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    processes = [head.pid]
    try:
        assert wait_until(lambda: "runtime started" in (tmp_path / "ray.log").read_text(), 90)
        processes += descendants(head.pid)
        assert listening_addresses(processes) <= LOOPBACK
        yield {**env, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}, head.pid
    finally:
        processes += descendants(head.pid)
        for pid in filter(is_running, processes):
            os.kill(pid, signal.SIGKILL)
        head.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def submit(entrypoint: list, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    """Submit a job as documented; retry while the cluster is still starting."""
    for _ in range(20):
        submitted = subprocess.run(
            [RAY, "job", "submit", "--working-dir", ".", "--", *entrypoint],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if "No available agent" not in submitted.stderr:
            break
        time.sleep(1)
    return submitted


@pytest.mark.slow
def test_a_submitted_job_runs_on_the_cluster_and_resumes(
    cluster: tuple[dict[str, str], int], tmp_path: Path
) -> None:
    """The stage's modules are uploaded with the working directory; they are installed in neither actor nor child."""
    env, head = cluster
    for module in ("chaos_driver", "cluster_stages", "exactly_once"):
        (tmp_path / "job").mkdir(exist_ok=True)
        shutil.copy(SUPPORT / f"{module}.py", tmp_path / "job")
    root, audit = tmp_path / "out", tmp_path / "audit"
    entrypoint = [sys.executable, "-m", "chaos_driver", root, audit, str(TASKS)]
    for resumed in (0, TASKS):
        submitted = submit(entrypoint, tmp_path / "job", env)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        assert f"{TASKS} tasks, {resumed} resumed" in submitted.stdout
    assert problems(root, audit, expected(TASKS)) == []
    assert wait_until(lambda: not any("cluster.child" in command(pid) for pid in descendants(head)), 5)
