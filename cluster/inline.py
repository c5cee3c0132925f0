"""A job in this very process: no Ray, no child, the same queue and the same ledger."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Iterable

from cluster.backlog import Backlog, Report, Resolved
from cluster.ledger import Failure, Ledger, Record
from cluster.stage import Stage, Task
from cluster.storage import StorageError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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
            record = _attempt(stage, task, ledger)
            if record is None:
                backlog.requeue(task)
            else:
                backlog.resolve(task, record)
    finally:
        stage.close()
    backlog.report.wall_s = backlog.seconds
    return backlog.report


def _attempt(stage: Stage, task: Task, ledger: Ledger) -> Record | None:
    start = time.monotonic()
    try:
        outcome = stage.process(task)
        return ledger.commit(task, outcome, time.monotonic() - start, "inline")
    except StorageError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) in DISK_FULL:
            raise StorageError(
                f"task {task.label!r}: {error}. Make room and run the same command again"
            ) from error
        return ledger.fail(task, describe(error), time.monotonic() - start, "inline")


def disk_full(task: Task, failure: Failure) -> StorageError:
    """A full disk under a stage is no fault of its task, so it stops the run instead of being an attempt."""
    return StorageError(f"task {task.label!r}: {failure.reason}. Make room and run the same command again")


def describe(error: BaseException) -> Failure:
    """An exception as a failure: its type and message; the traceback's last lines as detail."""
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return Failure(message[:300].rstrip(": "), "".join(traceback.format_exception(error))[-4000:])
