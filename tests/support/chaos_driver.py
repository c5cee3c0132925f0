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
    """Return `count` tasks of 50 ms, or of 5 ms if there are thousands, with each kind of fault once per 1 000."""
    seconds, each = (0.05, 1) if count < 1000 else (0.005, count // 1000)
    result = [Task(f"task-{i}", {"seconds": seconds}) for i in range(count - each * len(FAULTS))]
    faults = [(fault, f"{fault}-{number}" if number else fault) for number in range(each) for fault in FAULTS]
    for place, (fault, key) in enumerate(faults):
        result.insert((place + 1) * count // (len(faults) + 2), Task(key, {"do": fault}))
    return result


def expected(count: int) -> dict[str, str]:
    """Return key → "done" or the cause of its quarantine."""
    return {task.key: FAULTS.get(task.payload.get("do", ""), "done") for task in tasks(count)}


def main() -> None:
    root, audit, count = sys.argv[1:]
    from chaos_driver import ShortTimeout  # not from __main__, which other processes cannot import

    report = run(ShortTimeout(), tasks(int(count)), AuditedLedger(root, audit), workers=3)
    print(f"{report.total} tasks, {report.resumed} resumed, {report.actors_lost} actors lost")


if __name__ == "__main__":
    main()
