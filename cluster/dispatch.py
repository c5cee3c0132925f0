"""The driver loop: one task per actor call, depth one, so that every loss and every crash has one owner.

An actor's death blames nobody: its task is tried again elsewhere, until its losses stand out. A child's death
is an attempt of its task, and the actor writes that down. Ray restarts and retries nothing.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cluster.backlog import Backlog, Progress, Report, Resolved
from cluster.child import ChildSpec
from cluster.ledger import Ledger
from cluster.session import Session, connect
from cluster.stage import Failure, Stage, StageError, Task
from cluster.storage import StorageError
from cluster.worker import Answer, Worker

MAX_LOSSES = 5  # workers that one task loses in a row
MAX_FAILED_STARTS = 3  # in a row, without an answer from anybody
TICK_S = 0.5
RESIZE_S = 5.0
STOP_S = 5.0


class Interrupted(KeyboardInterrupt):
    """Stopped by Ctrl-C or SIGTERM. What was committed stays; `report` says how far it came."""

    def __init__(self, report: Report) -> None:
        super().__init__(
            f"stopped after {report.total} tasks; everything that was committed stays, "
            f"and the same command goes on from here"
        )
        self.report = report


def run(
    stage: Stage,
    tasks: Iterable[Task],
    ledger: Ledger,
    *,
    workers: int | None = None,
    on_resolved: Resolved | None = None,
    on_tick: Callable[[Progress], None] | None = None,
    max_in_backlog: int = 256,
) -> Report:
    """Do every task once, on the cluster of RAY_ADDRESS or on an embedded Ray, whatever dies meanwhile.

    Args:
        stage: defined in an importable module; it runs in child processes of the workers.
        tasks: pulled lazily, so there may be very many.
        ledger: what it has resolved already is not done again.
        workers: how many side by side; None for as many as the cluster has room for, now and later.
        on_resolved: called once for every task of this run, those of earlier runs included, in this process.
        on_tick: called about twice a second.
        max_in_backlog: tasks taken from the source ahead of the workers.

    Raises:
        StageError: the stage cannot run here. StorageError: the output cannot be written.
        Interrupted: Ctrl-C or SIGTERM. After each of them the same command resumes.
    """
    if not ledger.storage.is_shared:
        raise ValueError(f"{ledger.root} exists in this process only and workers are others: use run_inline")
    spec = ChildSpec.of(stage)
    backlog = Backlog(tasks, ledger, on_resolved, max_in_backlog)
    if (first := backlog.next()) is None:
        return backlog.report  # an earlier run has done it all: no need for Ray
    backlog.requeue(first)
    cpus = math.ceil(workers * stage.num_cpus) if workers else None
    fleet = None
    try:
        with _sigterm_interrupts(), connect(cpus) as session:
            backlog.start_clock()
            fleet = _Fleet(session, stage, spec, ledger, workers)
            try:
                _drive(backlog, fleet, ledger, on_tick)
                fleet.stop()
            finally:
                fleet.kill()
            return _final_report(backlog, fleet)
    except KeyboardInterrupt:
        raise Interrupted(_final_report(backlog, fleet) if fleet else backlog.report) from None


def _drive(
    backlog: Backlog, fleet: _Fleet, ledger: Ledger, on_tick: Callable[[Progress], None] | None
) -> None:
    losses: Counter[str] = Counter()
    next_tick = 0.0
    while True:
        while fleet.idle and (task := backlog.next()) is not None:
            fleet.give(task)
        if not fleet.running and not len(backlog) and backlog.exhausted:
            return
        fleet.resize()
        # While everybody is busy, look one task further ahead each time round.
        looked_ahead = not fleet.idle and backlog.pull()
        for task, answer in fleet.wait(0.0 if looked_ahead else TICK_S):
            if answer is None:
                losses[task.key] += 1
                _after_loss(task, losses[task.key], fleet.lost, backlog, ledger)
                continue
            del losses[task.key]  # whatever the answer, this task leaves its worker alive
            backlog.report.busy_s[answer.worker] += answer.seconds
            if answer.record is not None:
                backlog.resolve(task, answer.record)
            else:
                backlog.requeue(task)
        if on_tick is not None and time.monotonic() >= next_tick:
            next_tick = time.monotonic() + TICK_S
            on_tick(_progress(backlog, fleet))


def _after_loss(task: Task, losses: int, all_losses: int, backlog: Backlog, ledger: Ledger) -> None:
    """Its worker died. Perhaps it had committed already; perhaps this task kills workers."""
    record = ledger.record(task.key)
    if record is None and _stands_out(losses, all_losses):
        reason = f"worker lost {losses} times"
        detail = "Its worker process or machine died each time: most likely it ran out of memory."
        record = ledger.quarantine(task, Failure(reason, detail))
    if record is None:
        backlog.requeue(task)
    else:
        backlog.resolve(task, record)


def _stands_out(losses: int, all_losses: int) -> bool:
    """Whether a task has lost so many workers in a row that it must be the task.

    Where machines are taken away all the time, five in a row happen to anybody: they have to be most of all
    that were lost, too.
    """
    return (losses >= MAX_LOSSES and losses > all_losses / 2) or losses >= 4 * MAX_LOSSES


@dataclass(eq=False)
class _Seat:
    """An actor and what it is doing. `children`: child processes it has started, as far as is known."""

    actor: Any
    task: Task | None = None
    children: int = 0


class _Fleet:
    """The actors: started as far as there is room, given one task each, replaced when they die."""

    def __init__(self, session: Session, stage: Stage, spec: ChildSpec, ledger: Ledger, workers: int | None):
        import ray

        self._session, self._stage, self._spec, self._ledger = session, stage, spec, ledger
        self._fixed = workers
        self._actor_class = ray.remote(Worker)
        self._seats: list[_Seat] = []
        self._calls: dict[Any, _Seat] = {}  # Ray's reference to an answer → who gives it
        self._failed_starts = 0
        self._losses_in_a_row = 0
        self._next_resize = 0.0
        self.idle: list[_Seat] = []
        self.size = 0
        self.lost = 0
        self.children_restarted = 0
        room = session.workers_for(stage)
        if session.embedded and not room:
            has = ray.cluster_resources()
            raise StageError(
                f"one {spec.name} worker needs {stage.num_cpus:g} CPUs and {stage.num_gpus:g} GPUs, this "
                f"machine has {has.get('CPU', 0):g} and {has.get('GPU', 0):g}: run it on a bigger one or on "
                f"a cluster (RAY_ADDRESS)"
            )

    @property
    def running(self) -> list[Task]:
        return [seat.task for seat in self._calls.values() if seat.task is not None]

    @property
    def alive(self) -> int:
        return len(self.idle) + len(self.running)

    def resize(self) -> None:
        """Fill empty seats; without a fixed number, follow the cluster as it grows."""
        if time.monotonic() >= self._next_resize:
            self._next_resize = time.monotonic() + RESIZE_S
            # At least one, even without room: a waiting actor is what makes a cluster grow.
            self.size = self._fixed or max(1, self._session.workers_for(self._stage))
        while len(self._seats) < self.size:
            self._start_one()

    def _start_one(self) -> None:
        demand = self._session.demand(self._stage, self._fixed or 1)
        actor_class = self._actor_class.options(
            num_cpus=demand["CPU"],
            num_gpus=demand["GPU"],
            memory=demand["memory"],
            max_restarts=0,
            max_task_retries=0,
        )
        seat = _Seat(actor_class.remote(self._spec, self._ledger))
        self._seats.append(seat)
        self._calls[seat.actor.ready.remote()] = seat  # no task before it is there: it may wait for a machine

    def give(self, task: Task) -> None:
        """Hand a task to an idle worker."""
        seat = self.idle.pop()
        seat.task = task
        self._calls[seat.actor.process.remote(task)] = seat

    def wait(self, timeout: float) -> list[tuple[Task, Answer | None]]:
        """The answers that come within `timeout` seconds; None for a task whose worker died.

        Raises StageError and StorageError, which are the job's end.
        """
        import ray

        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout)
        answers = []
        for reference in ready:
            seat = self._calls.pop(reference)
            task, seat.task = seat.task, None
            heard = self._hear(reference)
            if isinstance(heard, Exception):
                self._lose(seat, heard)
            elif task is None:
                self.idle.append(seat)  # it has started
            else:
                self._note(seat, heard)
            if task is not None:
                answers.append((task, heard if isinstance(heard, Answer) else None))
        return answers

    def _hear(self, reference: Any) -> Any:
        """What the actor says, or Ray's error if it is dead."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, StorageError) else error from None
        except RayError as error:
            return error

    def _note(self, seat: _Seat, answer: Answer) -> None:
        self._losses_in_a_row = 0
        self.children_restarted += max(answer.children - max(seat.children, 1), 0)
        seat.children = answer.children
        if answer.not_started is None:
            self._failed_starts = 0
            self.idle.append(seat)
        else:
            self._dismiss(seat)
            self._count_failed_start(answer.not_started)

    def _lose(self, seat: _Seat, error: Exception) -> None:
        self._dismiss(seat)
        if "creation task" in str(error):  # Ray's words for: it could not be imported there
            self._count_failed_start(Failure("the worker itself could not start", str(error)))
            return
        self.lost += 1
        self._losses_in_a_row += 1
        if self._losses_in_a_row > 20 + 2 * self.size:
            raise StageError(
                f"{self._losses_in_a_row} workers in a row died without a single answer, so something is "
                f"wrong with the machines, not with the tasks. The last words were: {error}"
            )

    def _count_failed_start(self, failure: Failure) -> None:
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise StageError(
                f"{self._spec.name} cannot start, tried {MAX_FAILED_STARTS} times: {failure.reason}\n"
                f"{failure.detail}"
            )

    def _dismiss(self, seat: _Seat) -> None:
        import ray

        self._seats.remove(seat)
        ray.kill(seat.actor)

    def stop(self) -> None:
        """Let every stage close."""
        import ray

        closing = [seat.actor.stop.remote() for seat in self.idle]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=STOP_S)

    def kill(self) -> None:
        """End every actor; its child ends with it."""
        for seat in list(self._seats):
            self._dismiss(seat)


def _progress(backlog: Backlog, fleet: _Fleet) -> Progress:
    return Progress(
        counts=dict(backlog.report.counts),
        resumed=backlog.report.resumed,
        running=tuple(task.label for task in fleet.running),
        queued=len(backlog),
        exhausted=backlog.exhausted,
        workers=fleet.alive,
        seconds=backlog.seconds,
        busy_s=backlog.report.busy_s.total(),
    )


def _final_report(backlog: Backlog, fleet: _Fleet) -> Report:
    return replace(
        backlog.report,
        wall_s=backlog.seconds,
        workers=fleet.size,
        children_restarted=fleet.children_restarted,
        actors_lost=fleet.lost,
    )


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, the way a cluster asks a job to end, is treated as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
