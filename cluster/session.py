"""Connect to Ray for the duration of a run.

Uses the cluster of RAY_ADDRESS or of a submitted job if there is one, otherwise an embedded Ray on this machine.
"""

from __future__ import annotations

import functools
import inspect
import os
import secrets
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster.address import check_cluster, checked_address, first_line
from cluster.arguments import integer
from cluster.stage import Stage, StageError
from cluster.waiting import logger, waiting_notices

# Ray reads its token once per process, so all embedded sessions of this process share one. It is kept in memory only:
# a saved token (in ~/.ray) would enable authentication for clusters that the user starts later.
_TOKEN = secrets.token_hex(32)

EMBEDDED_ENV = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too, this makes all servers listen on loopback only
    "RAY_AUTH_TOKEN": _TOKEN,  # Ray sets RAY_AUTH_MODE to "token" itself unless the user has set it
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # the server ends with the session and will not come back
}
MEMORY_SHARE = 0.25  # fraction of `Stage.memory` reserved per worker
OBJECT_STORE_BYTES = 128 * 2**20  # small, because files do not pass through Ray
# Type of a GPU in Ray's words → its memory in GiB; where a type has two sizes, the smaller one.
GPU_GIB = {
    **{"T4": 16, "V100": 16, "A10G": 24, "L4": 24, "A100": 40, "A100-40G": 40, "A100-80G": 80, "L40S": 48},
    **{"H100": 80, "H200": 141, "B200": 180, "GB200": 180},
}
GPU_USABLE = 0.9  # of its memory: each process has a CUDA context of its own
START_ATTEMPTS = 3  # on a busy machine, Ray's own processes may exceed its startup timeout
REGISTRATION_S = 120.0  # for Ray's processes to start and register, per attempt
WITHOUT_RAY = "With --workers 0, most commands run in one process without Ray"
# Ray sets them when it is imported and when it starts, the second so that breakpoint() opens its own debugger.
_SET_BY_RAY = ("RAY_CLIENT_MODE", "PYTHONBREAKPOINT")


@dataclass(frozen=True)
class Session:
    """A connection to Ray.

    Attributes:
        embedded: whether Ray was started on this machine by `connect`, and is stopped at its end.
    """

    embedded: bool

    def workers_for(self, stage: Stage) -> int:
        """Return how many workers of this stage fit on the machines that are currently in the cluster."""
        demand = self.demand(stage)
        return sum(_workers_on(machine, demand) for machine in _machines())

    def demand(self, stage: Stage, workers: int = 1) -> dict[str, float]:
        """Return the resources to request from Ray for each of `workers` workers.

        `Stage.memory` is a limit that few tasks approach, so only a fraction of it is requested, and never more than
        is available. A small machine can then still process most tasks, and an explicit number of workers is honoured.

        Returns:
            "CPU" and "GPU" in units, "memory" in bytes.
        """
        memories = [machine.get("memory", 0.0) for machine in _machines()]
        memory = min(stage.memory * MEMORY_SHARE, max(memories, default=0.0), sum(memories) / workers)
        return {"CPU": stage.num_cpus, "GPU": gpu_share(stage, _machines()), "memory": memory}


@contextmanager
def connect(num_workers: int | None = None) -> Iterator[Session]:
    """Join or start Ray. Inside another `connect`, use the existing connection.

    Args:
        num_workers: number of CPUs that an embedded Ray offers; None for those of the machine.

    Raises:
        StageError: the cluster cannot be reached, or Ray does not start on this machine.
    """
    if num_workers is not None:
        integer(num_workers, "connect: num_workers", 1)
    address = os.environ.get("RAY_ADDRESS", "").strip()
    embedded = address in ("", "local")
    host_and_port = "" if embedded else checked_address(address)
    with _restored(_SET_BY_RAY), _connected(embedded, address, host_and_port, num_workers) as session:
        yield session


@contextmanager
def _connected(
    embedded: bool, address: str, host_and_port: str, num_workers: int | None
) -> Iterator[Session]:
    """Join or start Ray, as `connect` found the address."""
    with waiting_notices("Ray to start on this machine" if embedded else f"the Ray cluster at {address}"):
        import ray

    if ray.is_initialized():
        yield Session(embedded=os.environ.get("RAY_AUTH_TOKEN") == _TOKEN)
        return
    if not embedded:
        with waiting_notices(f"the Ray cluster at {address}"):
            check_cluster(address, host_and_port)
        with _ray(_join):
            yield Session(embedded=False)
        return
    with (
        _embedded_environment(),
        _ray(
            _start,
            address="local",
            num_cpus=num_workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
        ),
    ):
        yield Session(embedded=True)


@contextmanager
def _ray(initialise: Callable[..., None], **options: Any) -> Iterator[None]:
    import ray

    sigterm = signal.getsignal(signal.SIGTERM)
    with _errors_as_log_records():
        initialise(log_to_driver=False, logging_level="error", **options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm)  # ray.init installs its own handler
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _errors_as_log_records() -> Iterator[None]:
    """Log what Ray publishes as errors, at level INFO, instead of printing it.

    Even with `log_to_driver=False`, a thread of Ray prints a paragraph on stdout for each worker that dies. That does
    not belong among the output of a command. If nobody reads stdout, it also blocks the thread once the pipe is full,
    and then `ray.shutdown`, which joins the thread. Lost workers are counted by the run.
    """
    from ray._private import worker

    def log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        logger.info("Ray: %s", "\n".join(data["lines"]))

    printer = worker.print_to_stdstream
    worker.print_to_stdstream = log
    try:
        yield
    finally:
        worker.print_to_stdstream = printer


def _join(**options: Any) -> None:
    """Connect to the cluster of RAY_ADDRESS, which `check_cluster` has found alive."""
    import ray

    address = os.environ["RAY_ADDRESS"]
    with waiting_notices(f"the Ray cluster at {address}"):
        try:
            ray.init(**options)
        except Exception as error:  # Ray has no exception class for this
            ray.shutdown()
            raise StageError(
                f"cannot join the Ray cluster at RAY_ADDRESS={address}: {first_line(error)}. Check `ray status`, "
                f"or unset RAY_ADDRESS to run on this machine alone"
            ) from error


def _start(**options: Any) -> None:
    """Start a Ray on this machine; on a busy machine, with patience."""
    import ray

    for attempt in range(1, START_ATTEMPTS + 1):
        tries = f"attempt {attempt} of {START_ATTEMPTS}"
        with (
            waiting_notices("Ray to start on this machine", tries),
            _patient_registration(),
            _patient_raylet(),
        ):
            try:
                ray.init(**options)
                return
            except KeyboardInterrupt as error:
                _kill_partial_start(error)
                raise
            except Exception as error:  # Ray has no exception class for this
                _kill_partial_start(error)
                if "timed out during startup" not in str(error):
                    raise StageError(
                        f"Ray cannot start on this machine: {first_line(error)}. {WITHOUT_RAY}; Ray's logs are in "
                        f"/tmp/ray/session_latest/logs"
                    ) from error
                if attempt == START_ATTEMPTS:
                    raise StageError(
                        f"Ray did not start in {START_ATTEMPTS} attempts of {REGISTRATION_S:.0f} s each, because this "
                        f"machine is too busy or short of memory: stop other processes and run the same command again. "
                        f"{WITHOUT_RAY}; Ray's logs are in /tmp/ray/session_latest/logs"
                    ) from error


@contextmanager
def _patient_registration() -> Iterator[None]:
    """Let `ray.init` wait `REGISTRATION_S` for its node to register, instead of the 30 s that Ray has hard-coded.

    `ray.init` polls `services.get_node` until it succeeds or 30 s have passed, which it checks after each failure.
    """
    from ray._private import services

    get_node = services.get_node
    deadline = time.monotonic() + REGISTRATION_S

    def get_node_patiently(*arguments: Any) -> Any:
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:  # not registered yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    services.get_node = get_node_patiently
    try:
        yield
    finally:
        services.get_node = get_node


_ANNOUNCED_BY = {"session_dir", "node_id", "runtime_env_agent_port"}  # arguments of `services.start_raylet`
_AGENT_PORTS = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME")


@contextmanager
def _patient_raylet() -> Iterator[None]:
    """Let the node start without the dashboard's agent, for which it otherwise waits for up to 15 s and then aborts.

    The limit is hard-coded (ray-project/ray#65983). The agent needs seconds of CPU time for its imports, too many on a
    busy machine, and nothing uses it here: an embedded Ray has no dashboard and exports no metrics. It announces its
    ports in files, where -1 means that it has none. The agent of the runtime environments is used, so it gets a port.
    """
    from ray import _raylet
    from ray._private import services

    raylet: Any = _raylet  # compiled, without types
    start_raylet = services.start_raylet
    signature = inspect.signature(start_raylet)
    if not hasattr(raylet, "persist_port") or not _ANNOUNCED_BY <= signature.parameters.keys():
        yield  # another version of Ray, which announces ports in another way
        return

    @functools.wraps(start_raylet)
    def start_raylet_at_once(*arguments: Any, **options: Any) -> Any:
        bound = signature.bind(*arguments, **options).arguments
        for name in _AGENT_PORTS:
            raylet.persist_port(bound["session_dir"], bound["node_id"], getattr(raylet, name), -1)
        return start_raylet(*arguments, **options | {"runtime_env_agent_port": _free_port()})

    services.start_raylet = start_raylet_at_once
    try:
        yield
    finally:
        services.start_raylet = start_raylet


def _free_port() -> int:
    """Return a port of the loopback interface on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _kill_partial_start(error: BaseException) -> None:
    """Kill the processes of a Ray that failed to start. Only the frames of its traceback still refer to them."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)


@contextmanager
def _embedded_environment() -> Iterator[None]:
    """Set the environment of an embedded Ray, and restore the previous one on exit."""
    from ray._private import ray_constants

    was_enabled = ray_constants.ENABLE_RAY_CLUSTER
    with _restored([*EMBEDDED_ENV, "RAY_AUTH_MODE"]):
        os.environ.update(EMBEDDED_ENV)
        # Ray reads RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER on import only, which may have happened before.
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = was_enabled


@contextmanager
def _restored(names: Iterable[str]) -> Iterator[None]:
    """Restore environment variables on exit."""
    previous = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def gpu_share(stage: Stage, machines: Iterable[dict[str, Any]]) -> float:
    """Return the fraction of a GPU to reserve for a worker, from the memory that it needs.

    The share is 1/n, so that the n workers of a GPU use it up: Ray would give the rest to a worker that needs more. The
    cluster's smallest GPU counts, since Ray may place a worker on any. If a type is not in `GPU_GIB`, or there is no
    GPU yet, the share is `num_gpus`.

    Args:
        machines: the total resources of each, as Ray names them; `accelerator_type:NAME` is the type of the GPUs.
    """
    types = [
        name.partition(":")[2]
        for machine in machines
        if machine.get("GPU", 0.0) > 0
        for name in machine
        if name.startswith("accelerator_type:")
    ]
    if not stage.gpu_memory or not stage.num_gpus or not types or not GPU_GIB.keys() >= set(types):
        return stage.num_gpus
    fitting = int(min(GPU_GIB[name] for name in types) * 2**30 * GPU_USABLE // stage.gpu_memory)
    # Ray counts in units of 1/10000.
    return min(stage.num_gpus, 10_000 // fitting / 10_000) if fitting else stage.num_gpus


def _machines() -> list[dict[str, Any]]:
    """Return the total resources of each live machine."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _workers_on(machine: dict[str, Any], demand: dict[str, float]) -> int:
    # Ray counts resources in units of 1/10000, so a demand of 0.1 + 0.2 CPUs must fit into 0.3.
    return min(int(machine.get(name, 0.0) / amount + 1e-6) for name, amount in demand.items() if amount > 0)
