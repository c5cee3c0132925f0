"""The script that the chaos tests start, kill and restart: `chaos_driver.py ROOT AUDIT TASKS`."""

from __future__ import annotations

import sys

from cluster_stages import Work
from exactly_once import AuditedLedger

from cluster import Task, run

FAULTS = {"segfault": "signal 11 (SIGSEGV)", "hang": "no answer within 0.4 s", "raise": "has no faces"}


class ShortTimeout(Work):
    timeout_s = 0.4


def tasks(count: int) -> list[Task]:
    """Return `count` tasks of 50 ms, including one for each kind of fault."""
    result = [Task(f"task-{i}", {"seconds": 0.05}) for i in range(count - len(FAULTS))]
    for place, fault in enumerate(FAULTS):
        result.insert((place + 1) * count // 5, Task(fault, {"do": fault}))
    return result


def expected(count: int) -> dict[str, str]:
    """Return key → "done" or the cause of its quarantine."""
    return {task.key: FAULTS.get(task.key, "done") for task in tasks(count)}


def main() -> None:
    root, audit, count = sys.argv[1:]
    from chaos_driver import ShortTimeout  # not from __main__, which other processes cannot import

    report = run(ShortTimeout(), tasks(int(count)), AuditedLedger(root, audit), workers=3)
    print(f"{report.total} tasks, {report.resumed} resumed, {report.actors_lost} actors lost")


if __name__ == "__main__":
    main()
