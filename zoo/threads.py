"""How many CPU threads to compute with: as many as there are free CPUs when the work begins.

The threads of torch wait for each other after every operation, and spin while they wait. If another process occupies
one of their CPUs, all of them wait for the one that does not run, and two threads are several times slower than one.

A CPU is free if this process may run on it (affinity), its group may use it (cgroup quota), and no other process
occupied it just before. `fitting_threads` only ever lowers the number that the user set, with OMP_NUM_THREADS or
`torch.set_num_threads`, and restores it.

`exclusive` is for objects that keep state during a call, such as the schedulers of diffusers.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
WINDOW_S = 0.1  # time over which the use of CPUs is measured, if there is no recent measurement
VALID_S = 1.0  # a measurement is used again for this long
RECENT_S = 15.0  # and is the beginning of the next one for this long
TOLERANCE = 0.25  # part of a CPU that other processes may use of one that counts as free


class Usage(NamedTuple):
    """CPU time used until a moment.

    Attributes:
        at: the moment, seconds of a monotonic clock.
        machine: CPU seconds used by all processes on the CPUs that this process may run on.
        own: CPU seconds used by this process.
    """

    at: float
    machine: float
    own: float


def free_cpus() -> int:
    """The number of CPUs that this process can use now, at least 1.

    Takes `WINDOW_S` seconds if the last measurement is older than `RECENT_S`.
    """
    available = min(float(_cpus()), _quota())
    return max(1, math.floor(available - _used_by_others() + TOLERANCE))


@contextmanager
def fitting_threads() -> Iterator[int]:
    """Compute with at most as many threads as there are free CPUs.

    Yields:
        The number of threads of torch, and of the CPU back end of `renderers.gaussians`, which follows it.
    """
    import torch

    before = torch.get_num_threads()
    threads = min(before, free_cpus()) if before > 1 else before
    if threads == before:
        yield before
        return
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def worker_threads(workers: object) -> AbstractContextManager[object]:
    """`fitting_threads` if there are 0 workers, which means this process; others have numbers of their own."""
    return fitting_threads() if workers == 0 else nullcontext()


@contextmanager
def exclusive(shared: object) -> Iterator[None]:
    """Let one thread at a time use an object. The thread that uses it may enter again, for example in a callback."""
    with _guard:
        lock = _locks.setdefault(shared, threading.RLock())
    with lock:
        yield


_guard = threading.Lock()
_locks: WeakKeyDictionary[object, Any] = WeakKeyDictionary()


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota() -> float:
    """CPUs that the cgroups of this process may use together; infinite without a limit."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        # Version 2 has one hierarchy without controllers, version 1 one per controller. In a container, the path is
        # that of the host, and the container's own group is mounted at the root.
        for folder in (Path(group.lstrip("/")), *Path(group.lstrip("/")).parents):
            if not controllers:
                quotas.append(_ratio(CGROUP / folder / "cpu.max"))
            elif "cpu" in controllers.split(","):
                quotas += [
                    _ratio(CGROUP / name / folder / "cpu.cfs_quota_us") for name in ("cpu", controllers)
                ]
    return min(quotas)


def _ratio(file: Path) -> float:
    """The quota of a group: runtime over period, both in microseconds."""
    try:
        words = file.read_text().split()
        if file.name == "cpu.cfs_quota_us":
            words += (file.parent / "cpu.cfs_period_us").read_text().split()
        runtime, period = float(words[0]), float(words[1])  # "max" if there is no limit, in version 1 -1
    except (OSError, ValueError, IndexError):
        return math.inf
    return runtime / period if runtime > 0 and period > 0 else math.inf


def _used_by_others() -> float:
    """CPUs that other processes used just before, a mean over at least `WINDOW_S` seconds.

    On systems without /proc, the load average of the last minute, which includes this process.
    """
    global _last, _others
    now = _measure()
    if now is None or _last is None:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    age = now.at - _last.at
    if _others is not None and age < VALID_S:
        return _others
    before = _last
    if not WINDOW_S <= age <= RECENT_S:
        before = now
        time.sleep(WINDOW_S)
        now = _measure() or now
    used = (now.machine - before.machine) - (now.own - before.own)
    _last, _others = now, max(0.0, used / max(now.at - before.at, 1e-9))
    return _others


def _measure() -> Usage | None:
    """The CPU time used until now; None where /proc/stat does not exist."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    own = os.times()
    allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in lines:
        name, *values = line.split()
        if name in allowed:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, values[:8])
            ticks += user + nice + system + irq + softirq + steal
    return Usage(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own.user + own.system)


_last: Usage | None = _measure()  # at the import, which is usually some seconds before the first call
_others: float | None = None  # CPUs used by other processes until `_last`
