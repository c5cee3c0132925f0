from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_stages import Work
from process_tree import LOOPBACK, command, descendants, listening_addresses

from cluster import Session, connect
from cluster.session import _patient_raylet, gpu_share


def test_an_embedded_ray_listens_on_loopback_only(session: Session) -> None:
    pids = [os.getpid(), *descendants(os.getpid())]
    names = " ".join(command(pid) for pid in pids)
    assert "raylet" in names and "gcs_server" in names
    addresses = listening_addresses(pids)
    assert addresses and addresses <= LOOPBACK


def test_the_loopback_check_can_fail() -> None:
    with socket.create_server(("0.0.0.0", 0)):
        assert not listening_addresses([os.getpid()]) <= LOOPBACK


def test_a_nested_connect_uses_the_same_ray(session: Session) -> None:
    import ray

    with connect() as inner:
        assert inner.embedded
    assert ray.is_initialized()


def test_the_number_of_workers_follows_from_the_resources(session: Session) -> None:
    stage = Work()
    assert session.workers_for(stage) == 2
    stage.num_cpus = 0.5
    assert session.workers_for(stage) == 4
    stage.num_gpus = 1.0
    assert session.workers_for(stage) == 0
    stage.num_gpus, stage.memory = 0.0, 2**60  # more than available: one worker, not none
    assert session.workers_for(stage) == 1
    one, four = session.demand(stage)["memory"], session.demand(stage, workers=4)["memory"]
    assert four == one / 4  # four workers fit


def test_the_address_of_a_job_server_is_refused() -> None:
    code = "from cluster import connect\nwith connect(): pass"
    env = {**os.environ, "RAY_ADDRESS": "http://127.0.0.1:8265"}
    result = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True)
    assert result.returncode == 1 and "ray job submit" in result.stderr


STARTS_LATE = """
import ray
from ray._private import services
from cluster import StageError, connect
from process_tree import command, descendants
import os

calls, get_node = [], services.get_node
def late(*args):
    calls.append(1)
    if len(calls) <= FAILURES:
        raise Exception("The current node timed out during startup.")
    return get_node(*args)
services.get_node = late
try:
    with connect(1):
        print("raylets", sum("raylet/raylet" in command(pid) for pid in descendants(os.getpid())))
except StageError as error:
    print(error, "raylets", sum("raylet/raylet" in command(pid) for pid in descendants(os.getpid())))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("failures", "message"), [(1, "raylets 1"), (3, "did not start in 3 attempts")])
def test_a_failed_start_of_ray_is_retried(failures: int, message: str) -> None:
    """One raylet runs if a retry succeeded; none, and an error is raised, if all attempts failed."""
    code = STARTS_LATE.replace("FAILURES", str(failures))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    result = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert message in result.stdout and ("raylets 0" in result.stdout) == (failures == 3)


def test_ray_starts_without_waiting_for_the_agent_of_the_dashboard(tmp_path: Path) -> None:
    """On a busy machine it takes longer to start than the 15 s that Ray's node daemon would wait for it."""
    slow = "import sys, time\nif 'dashboard/agent.py' in ' '.join(sys.orig_argv):\n    time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    code = """
import functools, time
from cluster import connect
from ray._private import services
start, starts = services.start_raylet, []
@functools.wraps(start)
def counted(*arguments, **options):
    starts.append(time.monotonic())
    if len(starts) == 2:
        raise SystemExit("the first node daemon did not survive")
    return start(*arguments, **options)
services.start_raylet = counted
with connect(1):
    import ray
    print(ray.get(ray.remote(lambda: "works").remote()), len(starts))
"""
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True)
    assert result.stdout == "works 1\n", result.stdout + result.stderr


def test_versions_of_ray_that_announce_ports_in_another_way_start_as_they_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray 2.50, the oldest supported version, has no `persist_port`."""
    from ray import _raylet
    from ray._private import services

    original = services.start_raylet
    with _patient_raylet():
        assert services.start_raylet is not original
    monkeypatch.delattr(_raylet, "persist_port")
    with _patient_raylet():
        assert services.start_raylet is original


@pytest.mark.slow
def test_a_session_leaves_nothing_behind(tmp_path: Path) -> None:
    """No process, no saved token, no changed environment, no signal handler."""
    code = """
import os, signal
from cluster import connect
before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
with connect(1):
    pass
changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
print(changed, signal.getsignal(signal.SIGTERM) == handler)
import sys; from process_tree import descendants
print(descendants(os.getpid()))
"""
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    result = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True)
    assert result.stdout.splitlines() == ["set() True", "[]"], result.stdout + result.stderr
    assert not (tmp_path / ".ray").exists()


def test_an_unreachable_address_is_an_error() -> None:
    code = "from cluster import connect\nwith connect(): pass"
    env = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    result = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True)
    assert result.returncode == 1 and "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    ("types", "need_gib", "num_gpus", "share"),
    [
        (["H200"], 10, 1.0, 1 / 12),  # 126.9 GiB usable
        (["H200", "L4"], 10, 1.0, 1 / 2),  # a worker may be placed on either
        (["A100"], 40, 1.0, 1.0),  # does not fit by the declared need: a GPU of its own
        (["T4"], 1, 0.05, 0.05),  # the fraction that was asked for is smaller
        (["P100"], 1, 1.0, 1.0),  # unknown type
        ([], 1, 1.0, 1.0),  # no GPU yet: an autoscaler adds one
        (["L4"], 10, 0.0, 0.0),  # the stage runs on CPUs
        (["L4"], 0, 0.5, 0.5),  # no need declared
    ],
)
def test_workers_share_a_gpu_by_its_memory(
    types: list[str], need_gib: int, num_gpus: float, share: float
) -> None:
    stage = Work()
    stage.num_gpus, stage.gpu_memory = num_gpus, need_gib * 2**30
    machines = [{"CPU": 8.0}, *({"CPU": 8.0, "GPU": 4.0, f"accelerator_type:{name}": 1.0} for name in types)]
    assert gpu_share(stage, machines) == pytest.approx(share, abs=1e-4)
