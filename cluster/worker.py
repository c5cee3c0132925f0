"""The actor: one child process and the pen for the ledger. It imports neither Ray nor the stage."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass

from cluster.child import Child, ChildFailure, ChildSpec
from cluster.ledger import Ledger, Record
from cluster.stage import Failure, Task

WATCH_S = 0.5


@dataclass(frozen=True)
class Answer:
    """What the driver hears about a task.

    Attributes:
        record: the task's final state; None if it is to be tried again.
        not_started: why the child could not start; then the task was not touched.
        worker: who answers, "host:pid". seconds: spent on the task.
        children: how many child processes this worker has started so far.
    """

    record: Record | None
    not_started: Failure | None
    worker: str
    seconds: float
    children: int


class Worker:
    """Does tasks in a child, one at a time, and writes down what became of them, the marker last."""

    def __init__(self, spec: ChildSpec, ledger: Ledger) -> None:
        self._spec = spec
        self._ledger = ledger
        self._child: Child | None = None
        self._children = 0
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()

    def ready(self) -> str:
        return self.name

    def process(self, task: Task) -> Answer:
        """Do one task. Raises StorageError if what became of it cannot be written down."""
        try:
            child = self._living_child()
        except ChildFailure as error:
            return Answer(None, error.failure, self.name, 0.0, self._children)
        except OSError as error:  # no process, no memory, no descriptor left on this machine
            return Answer(None, Failure.of(error), self.name, 0.0, self._children)
        start = time.monotonic()
        try:
            outcome = child.process(task)
        except ChildFailure as error:
            # A fresh child for every attempt: three of them failing is the task's fault, not a leftover's.
            self._end_child()
            seconds = time.monotonic() - start
            record = self._ledger.fail(task, error.failure, seconds, self.name)
        else:
            try:
                record = self._ledger.commit(task, outcome, time.monotonic() - start, self.name)
            except ValueError as error:
                record = self._ledger.fail(task, Failure.of(error), time.monotonic() - start, self.name)
        return Answer(record, None, self.name, time.monotonic() - start, self._children)

    def stop(self) -> None:
        """Close the stage."""
        if self._child is not None:
            self._child.close()

    def _living_child(self) -> Child:
        child = self._child
        if child is not None and child.is_worn:
            child.close()
        elif child is not None and not child.is_alive:
            child.kill()  # it died between two tasks: nobody's attempt
        elif child is not None:
            return child
        self._child = None
        self._children += 1
        self._child = Child(self._spec)
        return self._child

    def _end_child(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child = None


def _end_with(parent: int) -> None:
    """Ray's node daemon is the parent; without it nobody hears the answers, and working on only does harm."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)
