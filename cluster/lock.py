"""One writer per output folder.

A command writes a claim, `<namespace>/locks/<token>.json`, which names its process and has a heartbeat, and removes it
at the end. A claim whose process is gone does not count, so that a crash, a kill or a lost machine blocks nobody.

Object stores have no portable "create if absent", so the protocol needs consistent listings only: a claim is first
written as "waiting"; its writer then lists all claims and either withdraws or marks its own as "held". It withdraws if
another claim is held, or if an older one is waiting. If a younger one is waiting, it lists again: the writer of that
claim either listed before this one was written, and will hold, or will see this one and withdraw.
"""

from __future__ import annotations

import _thread
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cluster.arguments import function, instance, text
from cluster.storage import Storage, StorageError

HEARTBEAT_S = 10.0
STALE_S = 60.0  # without a heartbeat; only for processes that cannot be looked up from here
WATCH_S = 2.5 * HEARTBEAT_S  # a stale claim is watched for this long, since the clocks of machines differ
_POLL_S = 0.1


class OutputInUseError(StorageError):
    """Another command is writing to the same output folder."""


@dataclass(frozen=True)
class Claim:
    """A process that writes to an output folder.

    Attributes:
        token: unique name of the claim.
        command: shown to other users of the folder.
        scope: two claims exclude each other if their scopes are equal, or one of them is "" (the whole folder).
        host: name of the machine. pid: of the process.
        machine: identifies the machine and its process table: within one, `pid` and `started` identify a process.
        started: start time of the process, in the unit of the operating system; "" where that is unknown.
        since, beat: time of the claim and of its last heartbeat, seconds since 1970.
        held: whether the writer has the folder; otherwise it is still waiting.
    """

    token: str
    command: str
    scope: str
    host: str
    pid: int
    machine: str
    started: str
    since: float
    beat: float
    held: bool = False

    @classmethod
    def of_this_process(cls, command: str, scope: str) -> Claim:
        pid, now = os.getpid(), time.time()
        started = _start_time(pid) or ""
        return cls(uuid.uuid4().hex, command, scope, socket.gethostname(), pid, _machine(), started, now, now)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Claim:
        claim = cls(**data)
        return replace(claim, pid=int(claim.pid), since=float(claim.since), beat=float(claim.beat))

    def excludes(self, other: Claim) -> bool:
        return not self.scope or not other.scope or self.scope == other.scope

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        age = max(0, round(time.time() - self.beat))
        return f"{self.command}, process {self.pid} on {self.host} since {since}, last heartbeat {age} s ago"


class OutputLock:
    """Hold an output folder while the block runs.

    Args:
        storage: the output folder.
        command: name of the command, shown to those who have to wait.
        scope: see `Claim`.
        namespace: folder of the ledger.
        on_wait: receives a sentence when acquiring takes long, or when the folder was lost.

    Raises:
        OutputInUseError: another command has the folder.
        StorageError: the claim cannot be written.
    """

    def __init__(
        self,
        storage: Storage,
        command: str,
        scope: str = "",
        *,
        namespace: str = "_factory",
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        instance(storage, Storage, "OutputLock: storage")
        text(command, "OutputLock: command")
        text(scope, "OutputLock: scope")
        function(on_wait, "OutputLock: on_wait")
        self._storage, self._namespace = storage, namespace
        self._folder = f"{namespace}/locks"
        self._on_wait = on_wait or (lambda sentence: None)
        self._claim = Claim.of_this_process(command, scope)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        folders = [storage.temporary, namespace, ""]  # a folder's parents come after it
        self._new_folders = [name for name in folders if not os.path.exists(storage.path(name))]

    def __enter__(self) -> OutputLock:
        try:
            self._write()
            self._wait()
            self._claim = replace(self._claim, held=True, beat=time.time())
            self._write()
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._beat, name="output-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._remove()

    def _wait(self) -> None:
        """Return once no live claim excludes this one."""
        order = (self._claim.since, self._claim.token)
        while rivals := self._rivals():
            for rival in rivals:
                if rival.held or (rival.since, rival.token) < order:
                    raise OutputInUseError(
                        f"{self._storage.url} is in use: {rival}. Wait until it has finished, stop it, or choose "
                        f"another folder"
                    )
            time.sleep(_POLL_S)

    def _rivals(self) -> list[Claim]:
        return [
            claim
            for claim in live_claims(self._storage, self._namespace, self._on_wait)
            if claim.token != self._claim.token and claim.excludes(self._claim)
        ]

    def _name(self) -> str:
        return f"{self._folder}/{self._claim.token}.json"

    def _write(self) -> None:
        self._storage.write(self._name(), json.dumps(self._claim.to_json()).encode())

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                if self._storage.read(self._name()) is None and any(each.held for each in self._rivals()):
                    self._on_wait(
                        f"{self._storage.url}: this process did not answer for long, and another command has "
                        f"taken over the folder; stopping"
                    )
                    _thread.interrupt_main()
                    return
                self._claim = replace(self._claim, beat=time.time())
                self._write()
            except StorageError:
                pass  # the command's own writes report a storage that fails; this one tries again

    def _remove(self) -> None:
        """Remove the claim, and the folders that were made for it and are still empty."""
        try:
            self._storage.remove(self._name())
        except StorageError:
            return  # without heartbeat, it is soon stale
        if not self._storage.is_local:
            return
        for folder in (self._folder, *self._new_folders):
            try:
                os.rmdir(self._storage.path(folder))
            except OSError:  # it has other files, or does not exist
                pass


def fresh_claims(storage: Storage, namespace: str = "_factory") -> list[Claim]:
    """The claims on an output folder that look alive, without waiting and without writing anything.

    A process on this machine is looked up. One on another machine counts while its heartbeat is recent.
    """
    names = [f"{namespace}/locks/{name}" for name in storage.names(f"{namespace}/locks")]
    claims = []
    for data in storage.read_many(names).values():
        try:
            claim = Claim.from_json(json.loads(data))
        except (ValueError, TypeError):
            continue
        is_here = _is_running_here(claim)
        if is_here or (is_here is None and -STALE_S < time.time() - claim.beat < STALE_S):
            claims.append(claim)
    return claims


def live_claims(
    storage: Storage, namespace: str = "_factory", on_wait: Callable[[str], object] = lambda sentence: None
) -> list[Claim]:
    """The claims on an output folder whose processes are alive; the others are removed.

    A process on this machine is looked up. One on another machine is alive while its heartbeat is recent; a claim that
    looks stale is watched for `WATCH_S` before it is removed, because the clocks may differ.
    """
    names = [f"{namespace}/locks/{name}" for name in storage.names(f"{namespace}/locks")]
    claims = []
    for name, data in storage.read_many(names).items():
        try:
            claim = Claim.from_json(json.loads(data))
        except (ValueError, TypeError):  # not written by this protocol, which writes whole files
            claim = None
        if claim is not None and _is_alive(claim, storage, name, on_wait):
            claims.append(claim)
        else:
            try:
                storage.remove(name)
            except StorageError:
                pass  # a dataset that may only be read
    return claims


def _is_alive(claim: Claim, storage: Storage, name: str, on_wait: Callable[[str], object]) -> bool:
    is_here = _is_running_here(claim)
    if is_here is not None:
        return is_here
    if abs(time.time() - claim.beat) < STALE_S:
        return True
    on_wait(f"{storage.url} was in use: {claim}. Watching for {WATCH_S:.0f} s whether it still runs")
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 5))
        data = storage.read(name)
        if data is None:
            return False
        if json.loads(data).get("beat") != claim.beat:
            return True
    return False


def _is_running_here(claim: Claim) -> bool | None:
    """Whether the process of a claim runs on this machine; None if it cannot be looked up from here."""
    if claim.machine != _machine():
        return None
    started = _start_time(claim.pid)
    if started is None or (claim.started and started != claim.started):
        return False
    return True if started else None


@cache
def _machine() -> str:
    """Host name, boot and process namespace: containers share the first two, restarted ones the first."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass  # not Linux
    return " ".join(parts)


def _start_time(pid: int) -> str | None:
    """Start time of a process on this machine; "" if it exists and the time is unknown, None if it does not exist."""
    try:
        # The name in parentheses may contain anything, the fields after it are numbers.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        pass
    if sys.platform == "win32":
        return ""  # os.kill would end the process there
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # a process of another user
    return ""
