"""Ray for the time of a run: the cluster of RAY_ADDRESS or of a submitted job, an embedded one otherwise."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.stage import Stage, StageError

# Ray reads a token once per process, so all embedded sessions of this process share one. It stays in memory:
# a saved one (~/.ray) would turn authentication on for clusters that the user starts later.
_TOKEN = secrets.token_hex(32)

EMBEDDED_ENV = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # also on Linux: every listener on the loopback address
    "RAY_AUTH_TOKEN": _TOKEN,  # RAY_AUTH_MODE is left to the user; unset, Ray turns it to "token"
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # its server ended with it, and will not come back
}
MEMORY_SHARE = 0.25  # of a stage's limit, reserved for each worker
OBJECT_STORE_BYTES = 128 * 2**20  # nothing large goes through it
STARTS = 3  # on a busy machine the time that Ray gives its own processes can be too short


@dataclass(frozen=True)
class Session:
    """A connection to Ray. `embedded`: started by us on this machine, and stopped at the end."""

    embedded: bool

    def workers_for(self, stage: Stage) -> int:
        """How many workers of this stage the machines that are there now have room for."""
        need = self.demand(stage)
        return sum(_room(node, need) for node in _machines())

    def demand(self, stage: Stage, workers: int = 1) -> dict[str, float]:
        """What each of so many workers asks of Ray: CPU, GPU, memory in bytes.

        `Stage.memory` is a limit that few tasks come near, so a part of it is asked for, and never more than
        there is: a small machine may still do most tasks, and an explicit number of workers is obeyed.
        """
        memories = [machine.get("memory", 0.0) for machine in _machines()]
        memory = min(stage.memory * MEMORY_SHARE, max(memories, default=0.0), sum(memories) / workers)
        return {"CPU": stage.num_cpus, "GPU": stage.num_gpus, "memory": memory}


@contextmanager
def connect(num_workers: int | None = None) -> Iterator[Session]:
    """Join or start Ray; within another `connect`, use that one.

    Args:
        num_workers: CPUs that an embedded Ray pretends to have; None for the machine's.
    Raises:
        StageError: the cluster does not answer, or Ray does not start here.
    """
    import ray

    if ray.is_initialized():
        yield Session(embedded=os.environ.get("RAY_AUTH_TOKEN") == _TOKEN)
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        raise StageError(
            f"RAY_ADDRESS={address} is not the address of a cluster but of a server in front of it: start "
            f"this command with `ray job submit -- …`, or set RAY_ADDRESS to host:6379 on one of its machines"
        )
    if address and address != "local":
        _check_that_it_answers(address)
        with _ray():
            yield Session(embedded=False)
        return
    with (
        _embedded_environment(),
        _ray(
            address="local",
            num_cpus=num_workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
        ),
    ):
        yield Session(embedded=True)


def _check_that_it_answers(address: str) -> None:
    """Ray itself waits, and then ends the process without an exception."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray looks for one on this machine, and says so if there is none
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise StageError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}): start it with "
            f"`ray start --head`, or unset RAY_ADDRESS to work on this machine alone"
        ) from None


@contextmanager
def _ray(**options: Any) -> Iterator[None]:
    import ray

    sigterm = signal.getsignal(signal.SIGTERM)
    _start(log_to_driver=False, logging_level="error", **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, sigterm)  # Ray has put its own there
    try:
        yield
    finally:
        ray.shutdown()


def _start(**options: Any) -> None:
    import ray

    for start in range(STARTS):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray has no class for it
            if "timed out during startup" not in str(error):
                raise
            _stop_what_started(error)
            if start + 1 == STARTS:
                raise StageError(
                    f"Ray did not start in {STARTS} tries of 30 s each: this machine is too busy or short of memory "
                    "(its logs are in /tmp/ray/session_latest/logs); try again when other work is done"
                ) from error


def _stop_what_started(error: Exception) -> None:
    """Stop the processes of a Ray that did not come up; only the frames of its error still know them."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)


@contextmanager
def _embedded_environment() -> Iterator[None]:
    from ray._private import ray_constants

    before = {name: os.environ.get(name) for name in [*EMBEDDED_ENV, "RAY_AUTH_MODE"]}
    was_enabled = ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(EMBEDDED_ENV)
    ray_constants.ENABLE_RAY_CLUSTER = False  # what the variable would have said, had Ray been imported after
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was_enabled
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _machines() -> list[dict[str, Any]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _room(machine: dict[str, Any], need: dict[str, float]) -> int:
    # Ray counts in 1/10000, and 0.1 + 0.2 of a CPU is a little more than 0.3.
    return min(int(machine.get(name, 0.0) / amount + 1e-6) for name, amount in need.items() if amount > 0)
