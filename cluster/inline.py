"""Run a job in the current process, without Ray and child processes, with the same queue and ledger."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable

from cluster.backlog import Backlog, OnResolved, OnTick, Report, check_job
from cluster.ledger import Ledger, Record
from cluster.progress import RunState
from cluster.stage import Failure, Stage, Task
from cluster.storage import StorageError


def run_inline(
    stage: Stage,
    tasks: Iterable[Task],
    ledger: Ledger,
    on_resolved: OnResolved | None = None,
    on_tick: OnTick | None = None,
) -> Report:
    """Process the tasks one after another in this process, for tests and for debugging with a breakpoint.

    Follow-up tasks, resuming, three attempts and quarantine work as in `run`. What requires a child process does
    not: time and memory limits, and surviving a native crash.

    Args:
        stage: the stage; its `setup` and `close` are called once.
        tasks: pulled lazily.
        ledger: tasks that it lists as resolved are not processed again.
        on_resolved: called once per task, including those resolved by earlier runs.
        on_tick: called before and after each attempt.

    Raises:
        StorageError: the output cannot be written.
    """
    check_job(stage, ledger, on_resolved, on_tick)
    backlog = Backlog(tasks, ledger, on_resolved, max_in_backlog=1, stage=type(stage).__name__)
    stage.setup()
    state: RunState = "failed"
    try:
        while (task := backlog.next()) is not None:
            if on_tick:
                on_tick(backlog.progress([task], workers=1))
            start = time.monotonic()
            backlog.write_progress(functools.partial(list, [(task, start)]), workers=1)
            record = _process(stage, task, ledger)
            backlog.report.add_busy("inline", time.monotonic() - start)
            if isinstance(record, Failure):
                backlog.retry(task, record.reason)
            else:
                backlog.resolve(task, record)
            if on_tick:
                on_tick(backlog.progress([], workers=1))
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        backlog.write_progress(list, 0, state=state)
        stage.close()
    backlog.report.wall_s = backlog.seconds
    backlog.report.workers = 1
    return backlog.report


def _process(stage: Stage, task: Task, ledger: Ledger) -> Record | Failure:
    """Make one attempt and write its result to the ledger; a failure if the task is to be retried."""
    start = time.monotonic()
    try:
        outcome = stage.process(task)
        return ledger.commit(task, outcome, time.monotonic() - start, "inline")
    except StorageError:
        raise
    except Exception as error:
        failure = Failure.of(error)
        return ledger.fail(task, failure, time.monotonic() - start, "inline") or failure
