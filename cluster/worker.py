"""The Ray actor that owns one child process and writes its results to the ledger.

This module imports neither Ray nor the stage, so an actor starts quickly and a broken stage cannot break it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from dataclasses import dataclass

from cluster.child import Child, ChildFailure, ChildSpec
from cluster.ledger import Ledger, Record
from cluster.stage import Failure, Task
from cluster.storage import StorageError

PARENT_CHECK_S = 0.5
VISIBLE_S = 30.0  # until a new file is visible on all machines: network file systems cache listings


@dataclass(frozen=True)
class TaskReply:
    """A worker's reply to the driver about one task.

    Attributes:
        record: final state of the task; None if the task is to be retried.
        not_started: why the child process could not start, in which case the task was not attempted.
        worker: "host:pid" of the worker.
        seconds: time spent on the task.
        children: number of child processes that this worker has started so far.
        failure: of the attempt, if the task is to be retried.
    """

    record: Record | None
    not_started: Failure | None
    worker: str
    seconds: float
    children: int
    failure: Failure | None = None


class Worker:
    """Processes tasks one at a time in a child process and commits their outcomes.

    Args:
        spec: the pickled stage.
        ledger: for the results.
        probe: file of the driver in the output folder, which this machine has to see as well; "" for none.
    """

    def __init__(self, spec: ChildSpec, ledger: Ledger, probe: str = "") -> None:
        self._spec = spec
        self._ledger = ledger
        self._probe = probe
        self._child: Child | None = None
        self._children = 0
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        threading.Thread(target=_exit_with_parent, args=[os.getppid()], daemon=True).start()

    def __repr__(self) -> str:
        """What Ray's dashboard and logs call the actor."""
        return f"{self._spec.name} worker"

    def ready(self) -> str:
        """Return the worker's name once the actor has started.

        Raises:
            StorageError: this machine has another folder at the path of the output folder than the driver.
        """
        storage, end = self._ledger.storage, time.monotonic() + VISIBLE_S
        while self._probe and storage.read(self._probe) is None:
            if time.monotonic() > end:
                raise StorageError(
                    f"{socket.gethostname()} does not see the output folder {storage.url} of the driver: expected a "
                    f"folder that all machines of the cluster share under the same path, or the URL of an object store"
                )
            time.sleep(0.5)
        return self.name

    def process(self, task: Task) -> TaskReply:
        """Make one attempt at a task.

        Raises:
            StorageError: the result could not be written.
        """
        _show(f"ray::Worker, {self._spec.name}: {task.label}")
        try:
            child = self._running_child()
        except ChildFailure as error:
            return TaskReply(None, error.failure, self.name, 0.0, self._children)
        except OSError as error:  # this machine is out of processes, memory or file descriptors
            return TaskReply(None, Failure.of(error), self.name, 0.0, self._children)
        start = time.monotonic()
        failure: Failure | None = None
        try:
            outcome = child.process(task)
        except ChildFailure as error:
            # A new child for every attempt, so that three failures are due to the task, not to leftover state.
            self._kill_child()
            seconds = time.monotonic() - start
            failure = error.failure
            record = self._ledger.fail(task, failure, seconds, self.name)
        else:
            try:
                record = self._ledger.commit(task, outcome, time.monotonic() - start, self.name)
            except ValueError as error:
                failure = Failure.of(error)
                record = self._ledger.fail(task, failure, time.monotonic() - start, self.name)
        return TaskReply(record, None, self.name, time.monotonic() - start, self._children, failure)

    def stop(self) -> None:
        """Close the stage and end the child process."""
        if self._child is not None:
            self._child.close()

    def _running_child(self) -> Child:
        """Return the current child process, or a new one if it is worn or dead."""
        child = self._child
        if child is not None and child.is_worn:
            child.close()
        elif child is not None and not child.is_alive:
            child.kill()  # it died between two tasks, so this is no task's failed attempt
        elif child is not None:
            return child
        self._child = None
        self._children += 1
        self._child = Child(self._spec)
        return self._child

    def _kill_child(self) -> None:
        assert self._child is not None
        self._child.kill()
        self._child = None


def _show(title: str) -> None:
    """Make this the title of the process, for `ps` and Ray's dashboard, without what a title cannot have.

    The title may come from a stranger's file. Ray replaces it when the call ends. Outside of Ray this does nothing.
    """
    if (raylet := sys.modules.get("ray._raylet")) is not None:
        raylet.setproctitle("".join(letter if letter.isprintable() else "?" for letter in title)[:120])


def _exit_with_parent(parent: int) -> None:
    """Exit when Ray's node daemon, the parent process, has died.

    Without it the driver receives no replies and assumes that this worker is lost, so it must not commit anything.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)
