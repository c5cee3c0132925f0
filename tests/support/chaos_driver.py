"""The command that the chaos tests start, kill and start again: `chaos_driver.py ROOT AUDIT TASKS`."""

from __future__ import annotations

import sys

from cluster_stages import Work
from exactly_once import AuditedLedger

from cluster import Task, run

ILL = {"segfault": "signal 11 (SIGSEGV)", "hang": "no answer within 0.4 s", "raise": "has no faces"}


class Impatient(Work):
    timeout_s = 0.4


def tasks(count: int) -> list[Task]:
    """`count` tasks of 50 ms, the ill ones among them."""
    well = [Task(f"task-{i}", {"seconds": 0.05}) for i in range(count - len(ILL))]
    for place, what in enumerate(ILL):
        well.insert((place + 1) * count // 5, Task(what, {"do": what}))
    return well


def expected(count: int) -> dict[str, str]:
    return {task.key: ILL.get(task.key, "done") for task in tasks(count)}


def main() -> None:
    root, audit, count = sys.argv[1:]
    from chaos_driver import Impatient  # not this script's own, which no other process could import

    report = run(Impatient(), tasks(int(count)), AuditedLedger(root, audit), workers=3)
    print(f"{report.total} tasks, {report.resumed} resumed, {report.actors_lost} actors lost")


if __name__ == "__main__":
    main()
