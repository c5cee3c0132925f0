"""Dispatch overhead: the same stage run by `cluster.run` and in plain processes.

    python -m benchmarks.dispatch

Each round alternates between one and two plain processes and one and two Ray workers. Rates are measured from the
first completion to the last, which excludes the startup of Ray (seconds). Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.busy import Busy, Nothing, steps_for
from benchmarks.common import describe_machine
from cluster import Ledger, Stage, Task, connect, run

BAR_OVERHEAD = 0.02  # fraction of a 100 ms task
BAR_TWO = 0.9  # rate of two workers / two plain processes
BAR_SCALING = 1.7  # rate of two workers / one worker


def rate(finished: list[float]) -> float:
    """Return completions per second between the first and the last completion time."""
    return (len(finished) - 1) / (max(finished) - min(finished))


def plain(count: int, steps: int, processes: int) -> float:
    """Return tasks per second of plain processes that write the same files and do nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        share = count // processes
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.busy", folder, *map(str, (number * share, share, steps))],
            )
            for number in range(processes)
        ]
        while sum(1 for _ in Path(folder).glob("ready-*")) < processes:
            time.sleep(0.01)
        (Path(folder) / "go").touch()
        for process in started:
            process.wait()
        return rate([path.stat().st_mtime for path in Path(folder).glob("*.bin")])


def dispatched(stage: Stage, count: int, steps: int, workers: int) -> list[float]:
    """Return the completion time of each task processed by `run`."""
    finished: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        tasks = (Task(f"t{number}", {"steps": steps}) for number in range(count))
        run(
            stage, tasks, Ledger(folder), workers=workers, on_resolved=lambda *_: finished.append(time.time())
        )
    return finished


def main() -> None:
    """Run the rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=60, help="tasks of about 100 ms per measurement")
    arguments = parser.parse_args()
    rows: dict[str, list[float]] = {"plain 1": [], "ray 1": [], "plain 2": [], "ray 2": []}
    with connect(2):
        steps = steps_for(0.1)
        empty = dispatched(Nothing(), 500, 0, 1)
        for _ in range(arguments.rounds):
            for processes in (1, 2):
                rows[f"plain {processes}"].append(plain(arguments.tasks, steps, processes))
                rows[f"ray {processes}"].append(rate(dispatched(Busy(), arguments.tasks, steps, processes)))
    medians = {name: statistics.median(rates) for name, rates in rows.items()}
    for name, rates in rows.items():
        print(f"{name}: {medians[name]:6.2f} tasks/s   ({', '.join(f'{value:.2f}' for value in rates)})")

    def ratio(numerator: str, denominator: str) -> float:
        return statistics.median(a / b for a, b in zip(rows[numerator], rows[denominator], strict=True))

    print(f"two workers / two plain processes: {ratio('ray 2', 'plain 2'):.3f} (target {BAR_TWO})")
    print(f"one worker / one plain process:    {ratio('ray 1', 'plain 1'):.3f}")
    print(f"two workers / one worker:          {ratio('ray 2', 'ray 1'):.2f} (target {BAR_SCALING}; ", end="")
    print(f"plain processes: {ratio('plain 2', 'plain 1'):.2f})")
    print(f"{describe_machine()}; load {os.getloadavg()[0]:.1f}")
    overhead = statistics.median(later - earlier for earlier, later in pairwise(empty))
    print(
        f"HEADLINE dispatch and commit cost {overhead * 1000:.2f} ms per task, "
        f"{overhead / 0.1:.1%} of a 100 ms task (target {BAR_OVERHEAD:.0%})"
    )


if __name__ == "__main__":
    main()
