"""The cost of the ledger at scale: tasks without work, inline and over Ray, and the resume of a finished job.

    python -m benchmarks.dispatch_scale                      # 10 000 and 100 000 tasks
    python -m benchmarks.dispatch_scale --tasks 1000000

Every measurement runs in a process of its own, so that its peak memory is its own. Rates are per second of wall clock
and per second of the driver's CPU time; on a machine with other load only the latter is comparable. The folder should
be on a tmpfs (the default is /dev/shm if it exists): on a disk, the wall clock measures its `fsync`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.busy import Nothing
from benchmarks.common import describe_machine
from cluster import Ledger, Storage, Task, run, task_key

BAR_MEMORY_MB = 400.0  # driver, at a million tasks
BAR_RESUME_S = 60.0  # CPU time, at a million tasks
BAR_WRITES = 1.2  # per task, beside the files of the task
BAR_RATE = 1000.0  # tasks per second of CPU time, inline


class CountedStorage(Storage):
    """Counts the requests of this process as an object store would bill them. The copies of workers count their own."""

    def _open(self) -> None:  # also when a worker receives its copy
        super()._open()
        self.requests: Counter[str] = Counter()

    def write(self, name: str, data: bytes) -> None:
        self.requests["writes"] += 1
        self.requests["bytes"] += len(data)
        super().write(name, data)

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        names = list(names)
        self.requests["reads"] += len(names)
        return super().read_many(names)

    def names(self, folder: str) -> list[str]:
        result = super().names(folder)
        self.requests["lists"] += 1 + len(result) // 1000
        return result

    def remove(self, name: str) -> None:
        self.requests["removes"] += 1
        super().remove(name)

    def remove_many(self, names: Iterable[str]) -> None:
        names = list(names)
        self.requests["removes"] += -(-len(names) // 1000)
        super().remove_many(names)


def tasks(count: int) -> Iterator[Task]:
    """Tasks with keys as the factory makes them."""
    return (
        Task(task_key("scale", str(number)), {"number": number}, f"task {number}") for number in range(count)
    )


def measure(folder: str, count: int, workers: int) -> dict[str, Any]:
    """Run or resume the job in this process; return its figures."""
    ledger = Ledger(folder)
    storage = CountedStorage(folder)
    ledger.storage = storage
    start, cpu = time.monotonic(), time.process_time()
    report = run(Nothing(), tasks(count), ledger, workers=workers)
    return {
        "tasks": report.total,
        "resumed": report.resumed,
        "wall_s": report.wall_s if workers and not report.resumed else time.monotonic() - start,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "requests": dict(storage.requests),
    }


def in_process(folder: str, count: int, workers: int) -> dict[str, Any]:
    """Call `measure` in a new process."""
    arguments = ["--measure", folder, "--tasks", str(count), "--workers", str(workers)]
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.dispatch_scale", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def objects_below(folder: str) -> tuple[int, int]:
    """Number of files below a folder, and their bytes."""
    sizes = [entry.stat().st_size for entry in Path(folder).rglob("*") if entry.is_file()]
    return len(sizes), sum(sizes)


def compare(count: int, workers: int, parent: str | None) -> dict[str, Any]:
    """Run the job, then resume it; print one row."""
    folder = tempfile.mkdtemp(prefix="dispatch-scale-", dir=parent)
    try:
        first, again = in_process(folder, count, workers), in_process(folder, count, workers)
        files, size = objects_below(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if (first["tasks"], again["resumed"]) != (count, count):
        raise SystemExit(f"expected {count} tasks, got {first['tasks']}, resumed {again['resumed']}")
    per_task = {name: value / count for name, value in first["requests"].items()}
    print(
        f"{'inline' if not workers else f'{workers} workers':10} {count:9,} tasks: "
        f"{count / first['wall_s']:6.0f} tasks/s ({count / first['cpu_s']:6.0f} per CPU second), "
        f"driver {first['peak_mb']:5.0f} MB; resume {again['wall_s']:6.1f} s ({again['cpu_s']:6.1f} s CPU, "
        f"{again['peak_mb']:5.0f} MB, {sum(v for k, v in again['requests'].items() if k != 'bytes'):,} requests); "
        f"{files:,} objects, {size / count:.0f} B a task; requests a task: "
        + ", ".join(
            f"{name} {per_task.get(name, 0):.3f}" for name in ("writes", "reads", "lists", "removes")
        ),
        flush=True,
    )
    return {"first": first, "again": again, "writes": per_task.get("writes", 0.0)}


def main() -> None:
    """Measure every size; print a row each and the headline."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--ray-tasks", type=int, nargs="*", default=[10_000], help="sizes of the runs over Ray"
    )
    parser.add_argument("--workers", type=int, default=2, help="of the runs over Ray")
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.tasks[0], arguments.workers)))
        return
    print(describe_machine(), flush=True)
    rows = [compare(count, 0, arguments.folder) for count in arguments.tasks]
    for count in arguments.ray_tasks:
        compare(count, arguments.workers, arguments.folder)
    count, row = arguments.tasks[-1], rows[-1]
    print(
        f"HEADLINE {count:,} tasks inline: {count / row['first']['cpu_s']:.0f} tasks per CPU second (target "
        f"{BAR_RATE:.0f}), driver {max(row['first']['peak_mb'], row['again']['peak_mb']):.0f} MB (target "
        f"{BAR_MEMORY_MB:.0f} at 1,000,000), resume {row['again']['cpu_s']:.1f} s CPU (target {BAR_RESUME_S:.0f} at "
        f"1,000,000), {row['writes']:.3f} writes a task (target {BAR_WRITES})"
    )


if __name__ == "__main__":
    main()
