"""Stages for the tests of `cluster`, including ones that fail in the ways in which native libraries fail."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import Outcome, Stage, Task

MAP_NORESERVE = 0x4000  # not in Python's mmap


class Work(Stage):
    """Sleeps for `payload["seconds"]`, then runs the method `do_<payload["do"]>`; its file depends on the key only."""

    memory = 2 * 2**30
    timeout_s = 2.0

    def setup(self) -> None:
        self.done = 0

    def process(self, task: Task) -> Outcome:
        time.sleep(task.payload.get("seconds", 0.0))
        self.done += 1
        summary = getattr(self, "do_" + task.payload.get("do", "well"))(task) or {}
        follow_up = [Task(**child) for child in task.payload.get("follow_up", [])]
        data = bytes(64 * 2**20) if task.payload.get("do") == "large" else content(task.key)
        return Outcome("done", summary, {f"data/{task.key}.bin": data}, follow_up)

    def do_well(self, task: Task) -> None:
        pass

    do_large = do_well

    def do_tell(self, task: Task) -> dict[str, Any]:
        """Report the child process and its environment."""
        return {"pid": os.getpid(), "done": self.done, "env": dict(os.environ), "path": sys.path}

    def do_segfault(self, task: Task) -> None:
        print("about to read address zero")
        ctypes.string_at(0)

    def do_hang(self, task: Task) -> None:
        print("about to sleep for ever")
        time.sleep(3600)

    def do_raise(self, task: Task) -> None:
        raise ValueError(f"{task.label}: mesh 'body' has no faces")

    def do_exit(self, task: Task) -> None:
        os._exit(7)

    def do_allocate(self, task: Task) -> None:
        bytearray(64 * 2**30)

    def do_storm(self, task: Task) -> None:
        """Write 300 000 lines to both descriptors, bypassing Python's buffers."""
        for _ in range(300):
            os.write(1, b"noise on stdout\n" * 500)
            os.write(2, b"noise on stderr\n" * 500)

    def do_kill_worker(self, task: Task) -> None:
        """Kill the worker, as the kernel does when a machine runs out of memory."""
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)

    def do_measure(self, task: Task) -> dict[str, int]:
        """Return the resident pages of the child and of its actor."""
        pids = {"child": os.getpid(), "actor": os.getppid()}
        return {who: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for who, pid in pids.items()}

    def do_title(self, task: Task) -> dict[str, str]:
        """Return the title of the actor's process."""
        return {"title": Path(f"/proc/{os.getppid()}/cmdline").read_text().strip("\0")}

    def do_spawn(self, task: Task) -> dict[str, int]:
        """Start a grandchild in the same process group, then hang."""
        grandchild = subprocess.Popen(["sleep", "3600"])
        with open(task.payload["pid_file"], "w") as file:
            file.write(f"{os.getpid()} {grandchild.pid}")
        time.sleep(task.payload.get("then", 3600))
        return {"grandchild": grandchild.pid}


class Reserves(Work):
    """Reserves 8 GiB of address space in its setup, more than its tasks may allocate."""

    memory = 2**28

    def setup(self) -> None:
        super().setup()
        self.addresses = mmap.mmap(-1, 2**33, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)


class CannotStart(Stage):
    """Fails in its setup."""

    def setup(self) -> None:
        print("looking for the driver")
        raise RuntimeError("no EGL device")


def content(key: str) -> bytes:
    """Return the content of the file of a task."""
    return f"the content of {key}\n".encode() * 200


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Poll until the condition holds; False after a timeout."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
