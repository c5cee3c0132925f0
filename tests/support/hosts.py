"""Several machines on one: each host has its own network, host name, processes, IPC, /tmp/ray, /dev/shm and home.

A host is a process in namespaces of its own (`unshare`). All its processes end with it, and it ends with the process
that started it, so nothing is left behind, even if a test is killed. The hosts are connected by a switch, which is a
further network namespace with a bridge. The link of a host is a veth pair, or, where it has to be slow or lossy, a
cable in user space (`slow_wire.py`).

The file system is the same on all of them, as with a network file system, except for the folders named above.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from process_tree import is_running

NETWORK = "10.77.0"
PR_SET_PDEATHSIG = 1
SLOW_WIRE = Path(__file__).with_name("slow_wire.py")
# Mounts of a host, made before anything runs in it. $1: its folder.
SETUP = """
set -e
hostname "$2"
mkdir -p /tmp/ray "$1"/ray "$1"/home
mount --make-rprivate /
mount --bind "$1"/ray /tmp/ray
mount -t tmpfs -o size=2g tmpfs /dev/shm
for hidden in $3; do mount -t tmpfs -o size=1m tmpfs "$hidden"; done
ip link set lo up
echo ready
exec bash -c 'while :; do sleep 1000 & wait $!; done'  # as init does, it reaps the processes that others leave
"""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def missing() -> str:
    """Why hosts cannot be created here; "" if they can."""
    for program in ("ip", "unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            return f"the program {program} is missing (Debian: iproute2, util-linux)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened"
    probe = "ip link add name probe0 type bridge && ip link add name probe1 type veth peer name probe2"
    result = subprocess.run(
        ["unshare", "--net", "--pid", "--uts", "--ipc", "--mount", "--fork", "sh", "-c", probe],
        capture_output=True,
        text=True,
    )
    return (
        f"this process may not create network namespaces ({result.stderr.strip()})"
        if result.returncode
        else ""
    )


@dataclass
class Host:
    """A machine of its own.

    Attributes:
        name: its host name.
        address: its IP address.
        folder: its private files.
        pid: its first process, as seen from outside.
        env: environment variables of what runs on it.
    """

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[str]
    pid: int
    env: dict[str, str] = field(default_factory=dict)

    def command(self, argv: Sequence[object], folder: object = "") -> list[str]:
        """The command that runs another one on this host, in a folder (default: its private one)."""
        target = ["--target", str(self.pid), "--all", f"--wdns={folder or self.folder}"]
        return ["nsenter", *target, *map(str, argv)]

    def popen(self, argv: Sequence[object], **options: Any) -> subprocess.Popen[str]:
        """Start a process on this host. Options: of `subprocess.Popen`; `env` is added to the host's."""
        env = {**self.env, **options.pop("env", {})}
        command = self.command(argv, options.pop("cwd", ""))
        # A session of its own, so that it receives no signals meant for the test.
        return subprocess.Popen(
            command,
            env=env,
            text=True,
            start_new_session=True,
            preexec_fn=_die_with_parent,
            **options,
        )

    def run(self, argv: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end, with its output captured."""
        timeout = options.pop("timeout", 120)
        process = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{self.name}: no end within {timeout} s: {argv}\n{out}\n{err}") from None
        return subprocess.CompletedProcess(list(map(str, argv)), process.returncode, out, err)

    def processes(self) -> list[int]:
        """All processes of this host, as seen from outside."""
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        pids = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                    pids.append(int(entry))
            except OSError:
                pass  # it has ended
        return pids

    def stop(self) -> None:
        """Switch the machine off: the kernel kills all processes in it."""
        if is_running(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


class Hosts:
    """A network of hosts, as a context manager.

    Args:
        folder: for the private files of the hosts.
        names: of the hosts; host n has the address 10.77.0.n, from 1.
        slow: names of the hosts whose links can be made slow (`condition`).
        hidden: folders that are empty on the hosts.
        env: environment variables of what runs on the hosts.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        slow: Sequence[str] = (),
        hidden: Sequence[Path] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        self._folder, self._names, self._slow, self._hidden = folder, names, slow, hidden
        self._env = env or {}
        self._hosts: dict[str, Host] = {}
        self._wires: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Hosts:
        try:
            self._switch = self._start("switch", "")
            self._ip(self._switch, "link add switch type bridge")
            self._ip(self._switch, "link set switch up")
            for number, name in enumerate(self._names, 1):
                self.add(name, f"{NETWORK}.{number}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def add(self, name: str, address: str) -> Host:
        """Start a host and connect it to the switch; instead of one with the same name, if that has been stopped."""
        if name in self._hosts:
            self._hosts.pop(name).stop()
        if wire := self._wires.pop(name, None):
            _end_wire(wire)
        host = self._hosts[name] = self._start(name, address)
        port = f"port-{name}"[:15]
        # The port of a host that was switched off may still be there for a moment.
        subprocess.run(self._switch.command(["ip", "link", "delete", port]), capture_output=True)
        if name in self._slow:
            self._wires[name] = self._connect_slowly(host, port)
        else:
            self._ip(host, f"link add eth0 type veth peer name {port} netns {self._switch.pid}")
        self._ip(self._switch, f"link set {port} master switch up")
        self._ip(host, f"address add {address}/24 dev eth0")
        self._ip(host, "link set eth0 up")
        return host

    def _start(self, name: str, address: str) -> Host:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        unshare = "unshare --net --uts --ipc --mount --pid --fork --kill-child --mount-proc sh -c".split()
        process = subprocess.Popen(
            [*unshare, SETUP, "sh", str(folder), name, " ".join(map(str, self._hidden))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=_die_with_parent,
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            process.kill()
            raise OSError(f"host {name} did not start")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            **self._env,
        }
        return Host(name, address, folder, process, int(children[0]), env)

    def _connect_slowly(self, host: Host, port: str) -> subprocess.Popen[str]:
        arguments = [host.pid, "eth0", self._switch.pid, port]
        wire = subprocess.Popen(
            [sys.executable, "-P", str(SLOW_WIRE), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_die_with_parent,
        )
        assert wire.stdout is not None
        if wire.stdout.readline() != "ready\n":
            raise OSError(f"the link of host {host.name} could not be made")
        return wire

    def condition(
        self, name: str, *, delay_s: float = 0.0, loss: float = 0.0, bits_per_s: float = 0.0
    ) -> None:
        """Set the condition of a slow link, for each direction: a round trip takes twice the delay."""
        wire = self._wires[name]
        assert wire.stdin is not None and wire.stdout is not None
        wire.stdin.write(f"{delay_s} {loss} {bits_per_s}\n")
        wire.stdin.flush()
        assert wire.stdout.readline() == "set\n"

    def cut(self, name: str) -> None:
        """Unplug the cable of a host."""
        self._ip(self._switch, f"link set {f'port-{name}'[:15]} down")

    def mend(self, name: str) -> None:
        """Plug the cable of a host in again."""
        self._ip(self._switch, f"link set {f'port-{name}'[:15]} up")

    def _ip(self, host: Host, arguments: str) -> None:
        # In the host's network, but with the process ids of this one, as `netns PID` needs.
        command = ["nsenter", "--target", str(host.pid), "--net", "ip", *arguments.split()]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, f"{host.name}: ip {arguments}: {result.stderr}"

    def close(self) -> None:
        """Switch everything off."""
        for host in self._hosts.values():
            host.stop()
        for wire in self._wires.values():
            _end_wire(wire)
        if hasattr(self, "_switch"):
            self._switch.stop()


def _end_wire(wire: subprocess.Popen[str]) -> None:
    assert wire.stdin is not None and wire.stdout is not None
    wire.stdin.close()
    try:
        wire.wait(5)
    except subprocess.TimeoutExpired:
        wire.kill()
        wire.wait()
    wire.stdout.close()


def open_ports(client: Host, address: str, ports: range = range(1, 65536), at_once: int = 500) -> set[int]:
    """The TCP ports of an address that accept connections from a host."""
    code = f"""
import asyncio
async def probe(port, gate):
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection({address!r}, port), 5)
        except (OSError, asyncio.TimeoutError):
            return None
        writer.close()
        return port
async def main():
    gate = asyncio.Semaphore({at_once})
    found = await asyncio.gather(*(probe(port, gate) for port in range({ports.start}, {ports.stop})))
    print(*(port for port in found if port))
asyncio.run(main())
"""
    result = client.run([sys.executable, "-c", code], timeout=300)
    assert result.returncode == 0, result.stderr
    return set(map(int, result.stdout.split()))


def wait_for(condition: Any, seconds: float, message: str = "") -> None:
    """Poll until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message or "it did not happen in time"
        time.sleep(0.1)
