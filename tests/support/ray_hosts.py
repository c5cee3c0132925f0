"""A Ray cluster on several hosts (`hosts.py`), started with the commands and the ports of the deployment files."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hosts import Host, Hosts, wait_for
from process_tree import command, is_running

ROOT = Path(__file__).parents[2]
AUTOSCALER = ROOT / "cluster" / "deploy" / "autoscaler-aws.yaml"
RAY = Path(sys.executable).with_name("ray")
TOKEN = secrets.token_hex(32)
GCS_PORT, DASHBOARD_PORT = 6379, 8265
HEAD, WORKERS, CLIENT = "head", ("w1", "w2", "w3"), "client"
HOSTS = (HEAD, *WORKERS, CLIENT)
# Ray's own time-outs are left alone; only its statistics are not sent.
ENV = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 starves the workers on a machine with other load
    "OMP_NUM_THREADS": "1",
}


def start_command(kind: str) -> str:
    """The last `ray start` in the autoscaler file, with its environment variables. `kind`: head or worker."""
    return yaml.safe_load(AUTOSCALER.read_text())[f"{kind}_start_ray_commands"][-1]


def start_options(kind: str) -> list[str]:
    """Options of that command, without those that name a machine."""
    line = start_command(kind)
    options = re.findall(r"--[a-z-]+(?:=\S+)?", line)
    return [
        option
        for option in options
        if not option.startswith(("--address", "--dashboard-host", "--autoscaling"))
    ]


class RayCluster:
    """Ray on the hosts of a network.

    Args:
        hosts: with the names of `HOSTS`.
        cpus: of each worker; the head has none.
    """

    def __init__(self, hosts: Hosts, cpus: int = 1) -> None:
        self.hosts, self._cpus = hosts, cpus
        self.ray: dict[str, subprocess.Popen[str]] = {}

    @property
    def address(self) -> str:
        return f"{self.hosts[HEAD].address}:{GCS_PORT}"

    @property
    def job_server(self) -> str:
        return f"http://{self.hosts[HEAD].address}:{DASHBOARD_PORT}"

    def start_head(self) -> None:
        """Start the head, with a job server that the other hosts can reach."""
        host = self.hosts[HEAD]
        self._start(host, "head", "--head", f"--dashboard-host={host.address}", "--num-cpus=0")

    def start_worker(self, name: str) -> None:
        self._start(self.hosts[name], "worker", f"--address={self.address}", f"--num-cpus={self._cpus}")

    def _start(self, host: Host, kind: str, *options: str) -> None:
        common = ("--block", f"--node-ip-address={host.address}", "--object-store-memory=80000000")
        with (host.folder / "ray.log").open("w") as log:
            argv = [RAY, "start", *common, *options, *start_options(kind)]
            env = dict(re.findall(r"(\w+_PORT)=(\d+)", start_command(kind)))
            self.ray[host.name] = host.popen(argv, stdout=log, stderr=log, env=env)

    def keep_running(self) -> None:
        """Start Ray again on the workers where it has ended, as a supervisor does (Slurm's script, systemd)."""
        for name, process in list(self.ray.items()):
            if name != HEAD and process.poll() is not None and is_running(self.hosts[name].pid):
                self.start_worker(name)

    def wait_started(self, *names: str, seconds: float = 300) -> None:
        """Wait until Ray runs on these hosts. One that gave up, as it does on a busy machine, is started again."""

        def started(name: str) -> bool:
            if self.ray[name].poll() is not None:
                self.start_head() if name == HEAD else self.start_worker(name)
            return "Ray runtime started" in (self.hosts[name].folder / "ray.log").read_text()

        for name in names:
            log = self.hosts[name].folder / "ray.log"
            wait_for(lambda name=name: started(name), seconds, f"{name}: Ray did not start: {log}")

    def start(self, workers: tuple[str, ...] = WORKERS) -> None:
        """Start the head and then the workers."""
        self.start_head()
        self.wait_started(HEAD)
        for name in workers:
            self.start_worker(name)
        self.wait_started(*workers)

    def submit(
        self, *entrypoint: object, options: tuple[object, ...] = (), **popen: object
    ) -> subprocess.Popen[str]:
        """`ray job submit` on the client, as documented, with its output in `job.log`."""
        client = self.hosts[CLIENT]
        env = {"RAY_ADDRESS": self.job_server}
        argv = [RAY, "job", "submit", *options, "--", *entrypoint]
        with (client.folder / "job.log").open("w") as log:
            return client.popen(argv, stdout=log, stderr=subprocess.STDOUT, env=env, **popen)

    def replace(self, name: str) -> None:
        """A new machine in place of a worker that is switched off."""
        self.hosts.add(name, self.hosts[name].address)
        self.start_worker(name)

    def keep_running_for(self, seconds: float) -> None:
        """Call `keep_running` for a time."""
        end = time.monotonic() + seconds
        wait_for(lambda: self.keep_running() or time.monotonic() > end, seconds + 5)

    def wait_while_running(
        self, job: subprocess.Popen[str], reached: Callable[[], bool], seconds: float, message: str
    ) -> None:
        """Wait for a state of a submitted job, which must not end before."""

        def checked() -> bool:
            self.keep_running()
            if reached():
                return True
            assert job.poll() is None, self.output()
            return False

        wait_for(checked, seconds, message)

    def wait_for_end(self, job: subprocess.Popen[str], seconds: float) -> int:
        """Wait until a submitted job has ended; return its exit code."""
        end = time.monotonic() + seconds
        while job.poll() is None:
            self.keep_running()
            assert time.monotonic() < end, self.output()
            time.sleep(0.2)
        return job.returncode

    def kill_driver(self, job: subprocess.Popen[str], program: str) -> None:
        """Kill the driver of a submitted job, whose command starts with `program`; the client reports a failure."""
        (driver,) = (pid for pid in self.hosts[HEAD].processes() if command(pid).startswith(program))
        os.kill(driver, signal.SIGKILL)
        assert job.wait(120) == 1, self.output()

    def output(self) -> str:
        """What the last submitted job has printed."""
        return (self.hosts[CLIENT].folder / "job.log").read_text()


@contextmanager
def ray_cluster(
    folder: Path, more: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Iterator[RayCluster]:
    """A head whose link may become slow, three workers, a client, and more hosts on which nothing is started."""
    with Hosts(folder, [*HOSTS, *more], slow=[HEAD], env={**ENV, **(env or {})}) as hosts:
        cluster = RayCluster(hosts)
        cluster.start()
        yield cluster


def documented_ports(page: Path = ROOT / "docs" / "deploy.md") -> dict[str, set[int]]:
    """The ports of the table in docs/deploy.md: of the head, and of any other machine."""
    ports: dict[str, set[int]] = {"head": set(), "worker": set()}
    for first, last, use in re.findall(r"^\| (\d+)(?:–(\d+))? \|(.*)\|$", page.read_text(), re.M):
        kinds = ["head"] if "on the head" in use else ["head", "worker"]
        for kind in kinds:
            ports[kind] |= set(range(int(first), int(last or first) + 1))
    return ports
