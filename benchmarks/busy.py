"""Stages of known cost for benchmarks/dispatch.py.

Run as a script, this is the plain process against which dispatch is compared.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

from cluster import Outcome, Stage, Task

MEGABYTE = bytes(2**20)


class Nothing(Stage):
    """No work and no files, which leaves the cost of dispatch and of the commit marker."""

    def process(self, task: Task) -> Outcome:
        return Outcome("done")


class Busy(Stage):
    """A given number of CPU-bound steps, and a file of 200 KB, the size of a clip."""

    def process(self, task: Task) -> Outcome:
        for _ in range(task.payload["steps"]):
            hashlib.sha256(MEGABYTE).digest()
        return Outcome("done", files={f"{task.key}.bin": bytes(200_000)})


def steps_for(seconds: float) -> int:
    """Return the number of steps of `Busy` that take `seconds` of CPU time on this machine."""
    stage = Busy()
    start = time.process_time()
    stage.process(Task("calibration", {"steps": 50}))
    return max(1, round(seconds / ((time.process_time() - start) / 50)))


def main() -> None:
    """Process a range of tasks: `busy.py FOLDER FIRST COUNT STEPS`. Waits for the file FOLDER/go."""
    folder, first, count, steps = Path(sys.argv[1]), *map(int, sys.argv[2:])
    stage = Busy()
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)
    for number in range(first, first + count):
        for path, data in stage.process(Task(f"t{number}", {"steps": steps})).files.items():
            (folder / path).write_bytes(data)


if __name__ == "__main__":
    main()
