"""A job in this very process: no Ray, no child, the same queue and the same ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable

from cluster.backlog import Backlog, Report, Resolved
from cluster.ledger import Ledger, Record
from cluster.stage import Failure, Stage, Task
from cluster.storage import StorageError


def run_inline(
    stage: Stage, tasks: Iterable[Task], ledger: Ledger, on_resolved: Resolved | None = None
) -> Report:
    """Do the tasks one after another in this process, for tests and for debugging with a breakpoint.

    Everything as in `run` (follow-ups, resume, three attempts, quarantine), except what needs a child
    process: timeouts, limits, and surviving a native crash.
    """
    backlog = Backlog(tasks, ledger, on_resolved, max_in_backlog=1)
    stage.setup()
    try:
        while (task := backlog.next()) is not None:
            start = time.monotonic()
            record = _attempt(stage, task, ledger)
            backlog.report.busy_s["inline"] += time.monotonic() - start
            if record is None:
                backlog.requeue(task)
            else:
                backlog.resolve(task, record)
    finally:
        stage.close()
    backlog.report.wall_s = backlog.seconds
    backlog.report.workers = 1
    return backlog.report


def _attempt(stage: Stage, task: Task, ledger: Ledger) -> Record | None:
    start = time.monotonic()
    try:
        outcome = stage.process(task)
        return ledger.commit(task, outcome, time.monotonic() - start, "inline")
    except StorageError:
        raise
    except Exception as error:
        return ledger.fail(task, Failure.of(error), time.monotonic() - start, "inline")
