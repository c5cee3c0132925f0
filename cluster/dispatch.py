"""Run a job on Ray: the driver loop.

Each actor processes one task at a time, so every crash and every lost worker can be attributed to one task. A child
process that dies is a failed attempt of its task, recorded by the actor. The death of an actor does not count as a
failure of the task: the task is retried on another actor, until `_kills_workers` holds for its number of lost actors.
Ray's own restarts and retries are disabled.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from cluster.arguments import integer
from cluster.backlog import Backlog, OnResolved, OnTick, Report, check_job
from cluster.child import ChildSpec
from cluster.inline import run_inline
from cluster.ledger import Ledger
from cluster.metrics import RunMetrics
from cluster.pool import WorkerPool
from cluster.progress import RunState
from cluster.session import connect
from cluster.signals import sigterm_as_interrupt
from cluster.stage import Failure, Stage, Task

MAX_LOSSES = 5  # workers lost by one task in a row
TICK_S = 0.5


class Interrupted(KeyboardInterrupt):
    """The run was stopped by Ctrl-C or SIGTERM. Committed results are kept.

    Attributes:
        report: statistics up to the interruption.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(
            f"stopped after {report.total} tasks; all committed results are kept: "
            f"run the same command again to resume"
        )
        self.report = report


def _checked_workers(workers: int | None, max_in_backlog: int) -> int | None:
    integer(max_in_backlog, "run: max_in_backlog", 1)
    return None if workers is None else integer(workers, "run: workers", 0)


def run(
    stage: Stage,
    tasks: Iterable[Task],
    ledger: Ledger,
    *,
    workers: int | None = None,
    on_resolved: OnResolved | None = None,
    on_tick: OnTick | None = None,
    max_in_backlog: int = 256,
) -> Report:
    """Process every task exactly once, also if child processes, workers or machines are lost.

    Args:
        stage: defined in an importable module; it runs in child processes of the workers.
        tasks: pulled lazily, so there may be millions.
        ledger: tasks that it lists as resolved are not processed again.
        workers: number of concurrent workers; None for as many as fit on the cluster, adjusted as it changes size;
            0 for this process, without Ray and without what requires a child process (see `run_inline`).
        on_resolved: called in this process once per task, including those resolved by earlier runs.
        on_tick: called about twice per second.
        max_in_backlog: maximum number of tasks pulled from the source ahead of the workers.

    Returns:
        Statistics of the run.

    Raises:
        ValueError: the ledger is in `memory://`, which worker processes cannot see.
        StageError, StorageError: the stage cannot run here, or the output cannot be written.
        Interrupted: Ctrl-C or SIGTERM. After any of these three, the same call resumes the job.
    """
    workers = _checked_workers(workers, max_in_backlog)
    check_job(stage, ledger, on_resolved, on_tick)
    if workers == 0:
        return run_inline(stage, tasks, ledger, on_resolved, on_tick)
    if not ledger.storage.is_shared:
        raise ValueError(
            f"{ledger.root} is visible to this process only, not to workers: use run_inline, a folder or an "
            f"object store"
        )
    ledger.storage.check_lasting()
    spec = ChildSpec.of(stage)
    backlog = Backlog(tasks, ledger, on_resolved, max_in_backlog, spec.name)
    if (first := backlog.next()) is None:
        return backlog.report  # all tasks were resolved by earlier runs, so Ray is not needed
    backlog.requeue(first)
    cpus = math.ceil(workers * stage.num_cpus) if workers else None
    pool = None
    try:
        with sigterm_as_interrupt(), connect(cpus) as session:
            backlog.start_clock()
            pool = WorkerPool(session, stage, spec, ledger, workers)
            metrics = None if session.embedded else RunMetrics(spec.name)
            try:
                _drive_to_end(backlog, pool, ledger, on_tick, metrics)
                pool.stop()
            finally:
                pool.kill()
            return _final_report(backlog, pool)
    except KeyboardInterrupt:
        raise Interrupted(_final_report(backlog, pool) if pool else backlog.report) from None


def _drive_to_end(
    backlog: Backlog, pool: WorkerPool, ledger: Ledger, on_tick: OnTick | None, metrics: RunMetrics | None
) -> None:
    """Dispatch all tasks, and write into the progress file how that ended."""
    state: RunState = "failed"
    try:
        _drive(backlog, pool, ledger, on_tick, metrics)
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        progress = backlog.write_progress(list, 0, pool.lost, state)
        if metrics is not None and progress is not None:
            metrics.update(progress)


def _drive(
    backlog: Backlog, pool: WorkerPool, ledger: Ledger, on_tick: OnTick | None, metrics: RunMetrics | None
) -> None:
    """Dispatch tasks until the backlog is empty and no task is running."""
    losses: Counter[str] = Counter()  # key → workers lost in a row
    next_tick = 0.0
    while True:
        while pool.has_idle and (task := backlog.next()) is not None:
            pool.submit(task)
        if not pool.running and not len(backlog) and backlog.exhausted:
            return
        pool.resize()
        # While all workers are busy, pull one more task per iteration.
        pulled = not pool.has_idle and backlog.pull()
        for task, reply in pool.wait(0.0 if pulled else TICK_S):
            if reply is None:
                losses[task.key] += 1
                backlog.keep_marker(task)
                _handle_loss(task, losses[task.key], pool.lost, backlog, ledger)
                continue
            del losses[task.key]  # any reply shows that this task left its worker alive
            backlog.report.add_busy(reply.worker, reply.seconds)
            if reply.record is not None:
                backlog.resolve(task, reply.record)
            elif reply.failure is not None:
                backlog.retry(task, reply.failure.reason)
            else:
                backlog.requeue(task)
        if pool.running:
            progress = backlog.write_progress(pool.running_since, pool.alive, pool.lost)
            if metrics is not None and progress is not None:
                metrics.update(progress)
        if on_tick is not None and time.monotonic() >= next_tick:
            next_tick = time.monotonic() + TICK_S
            on_tick(backlog.progress(pool.running, pool.alive))


def _handle_loss(task: Task, losses: int, all_losses: int, backlog: Backlog, ledger: Ledger) -> None:
    """Handle the death of a task's worker, which may have committed the task, or have been killed by it."""
    record = ledger.record(task.key)
    if record is None and _kills_workers(losses, all_losses):
        reason = f"worker lost {losses} times"
        detail = "Its worker process or machine died each time: most likely it ran out of memory."
        record = ledger.quarantine(task, Failure(reason, detail))
    if record is None:
        backlog.requeue(task)
    else:
        backlog.resolve(task, record)


def _kills_workers(losses: int, all_losses: int) -> bool:
    """Whether the number of workers that a task has lost in a row shows that the task is the cause.

    On preemptible machines, any task may lose five workers in a row by chance. Its losses must therefore also be more
    than half of all losses, unless there are four times as many.
    """
    return (losses >= MAX_LOSSES and losses > all_losses / 2) or losses >= 4 * MAX_LOSSES


def _final_report(backlog: Backlog, pool: WorkerPool) -> Report:
    return replace(
        backlog.report,
        wall_s=backlog.seconds,
        workers=pool.size,
        children_restarted=pool.children_restarted,
        actors_lost=pool.lost,
    )
