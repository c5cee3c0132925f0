"""The pool of worker actors: started as resources allow, given one task each, replaced when they die."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from cluster.child import ChildSpec
from cluster.ledger import Ledger
from cluster.session import Session
from cluster.stage import Failure, Stage, StageError, Task
from cluster.storage import StorageError
from cluster.worker import TaskReply, Worker

MAX_FAILED_STARTS = 3  # child processes that failed to start, in a row, across all workers
RESIZE_S = 5.0
STOP_S = 5.0


@dataclass(eq=False)
class _Slot:
    """An actor and its current task.

    Attributes:
        since: when it received the task, `time.monotonic`.
        children: number of child processes it had started by its last reply.
    """

    actor: Any
    task: Task | None = None
    since: float = 0.0
    children: int = 0


class WorkerPool:
    """The actors of a run.

    Args:
        session: connection to Ray.
        stage: defines the resources of each worker.
        spec: the pickled stage, sent to the workers.
        ledger: the workers commit through copies of it.
        workers: number of workers; None to follow the size of the cluster.

    Attributes:
        size: current target number of workers.
        lost: number of actors that died.
        children_restarted: number of child processes started beyond the first one of each actor.

    Raises:
        StageError: this machine is too small for a single worker.
        StorageError: the output folder cannot be written.
    """

    def __init__(
        self, session: Session, stage: Stage, spec: ChildSpec, ledger: Ledger, workers: int | None
    ) -> None:
        import ray

        self._session, self._stage, self._spec, self._ledger = session, stage, spec, ledger
        self._probe = ""
        self._fixed_size = workers
        self._actor_class = ray.remote(Worker)
        self._slots: list[_Slot] = []
        self._idle: list[_Slot] = []
        self._pending: dict[
            Any, _Slot
        ] = {}  # Ray's reference to a future reply → the actor that will give it
        self._failed_starts = 0
        self._consecutive_losses = 0
        self._next_resize = 0.0
        self.size = 0
        self.lost = 0
        self.children_restarted = 0
        if session.embedded and not session.workers_for(stage):
            available = ray.cluster_resources()
            raise StageError(
                f"one {spec.name} worker needs {stage.num_cpus:g} CPUs and {stage.num_gpus:g} GPUs, this "
                f"machine has {available.get('CPU', 0):g} and {available.get('GPU', 0):g}: run on a larger machine "
                f"or on a cluster (set RAY_ADDRESS)"
            )
        if not session.embedded and ledger.storage.is_local:
            self._probe = f"{ledger.storage.temporary}/probe-{uuid.uuid4().hex}"
            ledger.storage.write(self._probe, b"")

    @property
    def has_idle(self) -> bool:
        """Whether a started worker has no task."""
        return bool(self._idle)

    @property
    def running(self) -> list[Task]:
        """The tasks being processed."""
        return [slot.task for slot in self._pending.values() if slot.task is not None]

    def running_since(self) -> list[tuple[Task, float]]:
        """The tasks being processed, with the `time.monotonic` since which they are."""
        return [(slot.task, slot.since) for slot in self._pending.values() if slot.task is not None]

    @property
    def alive(self) -> int:
        """Number of workers that have started."""
        return len(self._idle) + len(self.running)

    def resize(self) -> None:
        """Start missing actors. Without a fixed size, the target follows the cluster every `RESIZE_S`."""
        if time.monotonic() >= self._next_resize:
            self._next_resize = time.monotonic() + RESIZE_S
            # At least one, even without free resources: a pending actor is what makes an autoscaler add a machine.
            self.size = self._fixed_size or max(1, self._session.workers_for(self._stage))
        while len(self._slots) < self.size:
            self._start_actor()

    def _start_actor(self) -> None:
        demand = self._session.demand(self._stage, self._fixed_size or 1)
        actor_class = self._actor_class.options(
            num_cpus=demand["CPU"],
            num_gpus=demand["GPU"],
            memory=demand["memory"],
            max_restarts=0,
            max_task_retries=0,
        )
        slot = _Slot(actor_class.remote(self._spec, self._ledger, self._probe))
        self._slots.append(slot)
        # The actor may have to wait for a machine, so it receives no task before it has started.
        self._pending[slot.actor.ready.remote()] = slot

    def submit(self, task: Task) -> None:
        """Send a task to an idle worker."""
        slot = self._idle.pop()
        slot.task, slot.since = task, time.monotonic()
        # One name for all calls: for each name Ray keeps a series of its metric `ray_tasks`, in the driver, the agents
        # and in Prometheus, for as long as they run. The worker shows the task in the title of its process.
        process = slot.actor.process.options(name=f"Worker, {self._spec.name}")
        self._pending[process.remote(task)] = slot

    def wait(self, timeout: float) -> list[tuple[Task, TaskReply | None]]:
        """Return the replies that arrive within `timeout` seconds; None for a task whose worker died.

        Raises:
            StageError: the stage does not start, or too many workers died in a row.
            StorageError: a worker could not write its result.
        """
        import ray

        ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        replies = []
        for reference in ready:
            slot = self._pending.pop(reference)
            task, slot.task = slot.task, None
            reply = self._fetch(reference)
            if isinstance(reply, Exception):
                self._handle_loss(slot, reply)
            elif task is None:
                self._idle.append(slot)  # the reply to `ready`: the actor has started
            else:
                self._handle_reply(slot, reply)
            if task is not None:
                replies.append((task, reply if isinstance(reply, TaskReply) else None))
        return replies

    def _fetch(self, reference: Any) -> Any:
        """Return the actor's reply, or Ray's error if the actor is dead."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, StorageError) else error from None
        except RayError as error:
            return error

    def _handle_reply(self, slot: _Slot, reply: TaskReply) -> None:
        self._consecutive_losses = 0
        self.children_restarted += max(reply.children - max(slot.children, 1), 0)
        slot.children = reply.children
        if reply.not_started is None:
            self._failed_starts = 0
            self._idle.append(slot)
        else:
            self._remove(slot)
            self._count_failed_start(reply.not_started)

    def _handle_loss(self, slot: _Slot, error: Exception) -> None:
        self._remove(slot)
        if "creation task" in str(error):  # Ray's wording when the actor's class could not be imported
            self._count_failed_start(Failure("the worker itself could not start", str(error)))
            return
        self.lost += 1
        self._consecutive_losses += 1
        if self._consecutive_losses > 20 + 2 * self.size:
            raise StageError(
                f"{self._consecutive_losses} workers in a row died without a reply, so the cause is most likely the "
                f"machines, not the tasks: check their memory and Ray's logs (/tmp/ray/session_latest/logs), then run "
                f"the same command again. Last error: {error}"
            )

    def _count_failed_start(self, failure: Failure) -> None:
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise StageError(
                f"{self._spec.name} cannot start, tried {MAX_FAILED_STARTS} times: {failure.reason}\n"
                f"{failure.detail}".rstrip()
            )

    def _remove(self, slot: _Slot) -> None:
        import ray

        self._slots.remove(slot)
        ray.kill(slot.actor)

    def stop(self) -> None:
        """Close the stage in all idle workers, for at most `STOP_S` seconds."""
        import ray

        closing = [slot.actor.stop.remote() for slot in self._idle]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=STOP_S)

    def kill(self) -> None:
        """Kill all actors. Their child processes end with them."""
        for slot in list(self._slots):
            self._remove(slot)
        if self._probe:
            self._ledger.storage.remove(self._probe)
