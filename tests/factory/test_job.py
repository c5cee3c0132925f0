"""`ray job submit -- python -m factory.render …` as the README writes it, on a cluster of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from factory import load_clips

BIN = Path(sys.executable).parent
# Auth off at server and client alike, or the client is answered 401; loopback listeners only.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# What a head says that answers, but does not take jobs for some more seconds; on a busy machine it hangs up.
NOT_YET = ("No available agent", "Connection aborted", "Connection refused")


def free_ports(count: int) -> list[int]:
    """All held at once: one that was let go may be given again."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def dashboard(tmp_path):
    """The address of a small Ray cluster's dashboard; everything it started is gone afterwards."""
    port, gcs, listen, grpc, metrics, client = free_ports(6)
    command = [
        *(BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=true"),
        *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
        *("--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--disable-usage-stats"),
        # The agents' usual ports belong to whichever Ray of this machine came first.
        *(f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}"),
        *(f"--metrics-export-port={metrics}", f"--ray-client-server-port={client}"),
    ]
    with (tmp_path / "ray.log").open("wb") as log:
        head = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{address}/api/version"):
            assert head.poll() is None and time.monotonic() < deadline, (tmp_path / "ray.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        head.terminate()  # it stops its children
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_the_readme_command_runs_on_a_cluster(dashboard, tmp_path):
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    written = re.search(r"^ray job submit -- python -m factory\.render", readme, re.MULTILINE)
    assert written, "the README no longer says how to submit a job"
    small = ["--resolution", "32", "--fps", "3", "--num-frames", "6", "--views", "4", "--max-animations", "2"]
    for attempt in range(30):
        out = tmp_path / f"dataset-{attempt}"  # of its own: a submission whose answer is lost may still run
        command = [*written.group().split(), "--source", "creatures://bird", "--out", str(out), *small]
        submitted = subprocess.run(
            [BIN / "ray", *command[1:]],
            env={**ENVIRONMENT, "RAY_ADDRESS": dashboard},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        output = submitted.stdout + submitted.stderr
        if not any(sign in output for sign in NOT_YET):
            break
        time.sleep(2)
    assert submitted.returncode == 0, output
    assert "rendered     2 clips of 1 assets" in output
    assert len(load_clips(out)) == 2
