"""The job of the tests on several hosts: `python -m hosts_driver ROOT AUDIT TASKS`, submitted with its folder."""

from __future__ import annotations

import sys

from cluster_stages import Work
from exactly_once import AuditedLedger

from cluster import Task, run

FAULTS = {"segfault": "signal 11 (SIGSEGV)", "hang": "no answer within 10 s", "raise": "has no faces"}


class Short(Work):
    timeout_s = 10.0  # of which a task needs 0.1


def tasks(count: int) -> list[Task]:
    """Return `count` tasks of 0.1 s, including some for each kind of fault."""
    faults = {f"{fault}-{number}": fault for fault in FAULTS for number in range(2)}
    result = [Task(f"task-{number:05}", {"seconds": 0.1}) for number in range(count - len(faults))]
    for place, (key, fault) in enumerate(faults.items()):
        result.insert((place + 1) * count // 8, Task(key, {"do": fault}))
    return result


def expected(count: int) -> dict[str, str]:
    """Return key → "done" or the cause of its quarantine."""
    return {task.key: FAULTS.get(task.payload.get("do", ""), "done") for task in tasks(count)}


def main() -> None:
    root, audit, count = sys.argv[1:]
    from hosts_driver import Short  # not from __main__, which other processes cannot import

    report = run(Short(), tasks(int(count)), AuditedLedger(root, audit))
    print(f"{report.total} tasks, {report.resumed} resumed, {report.actors_lost} actors lost")


if __name__ == "__main__":
    main()
