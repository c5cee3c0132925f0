"""Runs a stage in a child process, so that a crash, a hang or a lack of memory affects one task only.

`Child` is the supervisor's side. It starts the process, sends it one task at a time, enforces the time limit, and
reports every kind of failure as a `ChildFailure` with its cause. `main` runs in the child process. The two exchange
length-prefixed pickles over a dedicated socket, so output of native libraries cannot corrupt the protocol. That output
is read from a pipe, and its end is included in error messages.

No process outlives the supervisor. The child requests a parent-death signal from the kernel, and a guard (a shell that
waits for the end of its standard input) kills the child's process group, including grandchildren.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BufferedRWPair
from typing import IO, Any

from cluster.stage import Failure, Outcome, Stage, StageError, Task

START_TIMEOUT_S = 300.0  # for importing the stage and its setup
CLOSE_TIMEOUT_S = 10.0
TAIL_BYTES = 8000  # of the output, kept for error messages
# Packages that Ray bundles and puts on sys.path; a stage must import the installed ones instead.
RAY_PATHS = ("ray/thirdparty_files", "ray/_private/workers")
LENGTH = struct.Struct(">Q")
PR_SET_PDEATHSIG = 1

# One thread per numeric library: a worker uses one core, and parallelism comes from more workers.
DEFAULT_ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}

# The kernel sends the parent-death signal when the *thread* that started the child ends, so all children are started
# from one thread that lives as long as the process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="child-starter")


class ChildFailure(Exception):
    """The child raised an exception, died or exceeded its time limit; see `failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(frozen=True)
class ChildSpec:
    """A pickled stage, which can be sent through a supervisor that cannot import it.

    Attributes:
        name: class name of the stage, for messages.
        stage: the pickled stage.
        sys_path: module search path of the driver, from which the child imports the stage.
        env: environment variables of the child.
        memory: address space in bytes that tasks may allocate; None for no limit.
        timeout_s, tasks_per_child: see `Stage`.
    """

    name: str
    stage: bytes
    sys_path: tuple[str, ...]
    env: dict[str, str]
    memory: int | None
    timeout_s: float
    tasks_per_child: int

    @classmethod
    def of(cls, stage: Stage) -> ChildSpec:
        """Pickle a stage.

        Raises:
            StageError: the stage is defined in the main script, which child processes cannot import.
        """
        if type(stage).__module__ == "__main__":
            raise StageError(
                f"{type(stage).__name__} is defined in the main script, so child processes cannot import it: "
                f"move it into a module"
            )
        return cls(
            name=type(stage).__name__,
            stage=pickle.dumps(stage),
            sys_path=tuple(path or os.getcwd() for path in sys.path),
            env=DEFAULT_ENV | stage.child_env,
            memory=None if stage.num_gpus else stage.memory,
            timeout_s=stage.timeout_s,
            tasks_per_child=stage.tasks_per_child,
        )


class Child:
    """A running child process with an initialised stage.

    Attributes:
        tasks: number of tasks sent to it.
        rss: resident memory in bytes, after the last task.

    Raises:
        ChildFailure: the process did not start, or the stage's `setup` failed.
    """

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._log = bytearray()
        self.tasks = 0
        _starter.submit(self._start).result()
        try:
            self.rss = self._first_rss = self._request((spec.memory, spec.stage), START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def _start(self) -> None:
        self._socket, child_socket = socket.socketpair()
        local_path = [path for path in sys.path if not path.endswith(RAY_PATHS)]
        sys_path = list(dict.fromkeys([*local_path, *self._spec.sys_path]))
        code = (
            f"import sys; sys.path[:] = {sys_path!r}; "
            f"from cluster.child import main; main({child_socket.fileno()}, {os.getpid()})"
        )
        with child_socket:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[child_socket.fileno()],
                start_new_session=True,
                env={**os.environ, **self._spec.env},
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; kill -KILL -{self._process.pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._output = _piped(self._process.stdout)
        os.set_blocking(self._output.fileno(), False)
        self._socket.setblocking(False)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    @property
    def is_worn(self) -> bool:
        """Whether to replace the child: after `tasks_per_child` tasks, or a leak of a quarter of its memory limit."""
        leaked = self.rss - self._first_rss
        return self.tasks >= self._spec.tasks_per_child or leaked > (self._spec.memory or 16 * 2**30) / 4

    def process(self, task: Task) -> Outcome:
        """Process one task.

        Raises:
            ChildFailure: the attempt failed. The child must not be used again: `kill` it.
        """
        self._log.clear()
        self.tasks += 1
        outcome, self.rss = self._request(task, self._spec.timeout_s)
        if self.tasks == 1:
            self._first_rss = self.rss  # measured here because the first task fills caches and imports lazily
        return outcome

    def close(self) -> None:
        """Close the stage, then end the process."""
        try:
            self._request(None, CLOSE_TIMEOUT_S)
        except ChildFailure:
            pass  # the process is killed in any case
        self.kill()

    def kill(self) -> None:
        """Kill the child and all processes that it started.

        The group is killed before the child is reaped, while its process id cannot have been reused.
        """
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._guard.kill()
        for process in (self._process, self._guard):
            process.wait()
        _piped(self._guard.stdin).close()
        self._output.close()
        self._socket.close()

    def _request(self, message: Any, timeout: float) -> Any:
        """Send one message and wait for the reply, draining the output meanwhile so that the child never blocks."""
        outgoing = memoryview(_frame(message))
        incoming = bytearray()
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while True:
                # Checked before reading, so that the last reply of a dead child is still received. End of file alone
                # is not sufficient, because a process forked by the child may hold the socket open.
                died = not self.is_alive
                wait = 0.0 if died else min(0.2, max(deadline - time.monotonic(), 0.0))
                events = {key.fileobj: mask for key, mask in selector.select(wait)}
                if self._output in events and not self._read_output():
                    selector.unregister(self._output)
                mask = events.get(self._socket, 0)
                if mask & selectors.EVENT_READ:
                    chunk = self._receive()
                    incoming += chunk
                    if not chunk:
                        raise self._death()
                    if len(incoming) >= LENGTH.size:
                        end = LENGTH.size + LENGTH.unpack_from(incoming)[0]
                        if len(incoming) >= end:
                            return self._unwrap(bytes(incoming[LENGTH.size : end]))
                    continue
                if mask & selectors.EVENT_WRITE:
                    outgoing = outgoing[self._send(outgoing) :]
                    if not outgoing:
                        selector.modify(self._socket, selectors.EVENT_READ)
                if died:
                    raise self._death()
                if time.monotonic() > deadline:
                    raise self._timeout(timeout)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 20)
        except ConnectionError:
            return b""

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data[: 1 << 20])
        except ConnectionError:
            return len(data)  # the child is gone: the next read returns the end of file

    def _read_output(self) -> bool:
        """Read available output and keep its last `TAIL_BYTES`; False at the end of file."""
        try:
            chunk = os.read(self._output.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self._log += chunk
        del self._log[:-TAIL_BYTES]
        return bool(chunk)

    def _unwrap(self, reply: bytes) -> Any:
        result = pickle.loads(reply)
        if isinstance(result, Failure):
            if "MemoryError" in result.reason and self._spec.memory is not None:
                limit = f"{self._spec.name}.memory is {self._spec.memory / 2**30:.3g} GiB"
                result = replace(result, reason=f"{result.reason} ({limit})")
            raise ChildFailure(self._with_output(result))
        return result

    def _death(self) -> ChildFailure:
        try:
            code = self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return ChildFailure(self._with_output(Failure("its process closed the connection")))
        if code >= 0:
            return ChildFailure(self._with_output(Failure(f"its process exited with status {code}")))
        cause = f"killed by signal {-code} ({signal.Signals(-code).name})"
        if -code == signal.SIGKILL:
            cause += ", as the kernel does when memory runs out"
        return ChildFailure(self._with_output(Failure(cause)))

    def _timeout(self, timeout: float) -> ChildFailure:
        """Describe a timeout. The signal makes faulthandler print the stacks of all threads."""
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
        return ChildFailure(self._with_output(Failure(f"no answer within {timeout:g} s")))

    def _with_output(self, failure: Failure) -> Failure:
        # A bounded number of reads, because the child or its children may still be printing.
        for _ in range(32):
            before = len(self._log)
            if not self._read_output() or len(self._log) == before < TAIL_BYTES:
                break
        output = self._log.decode(errors="replace").strip()
        parts = [failure.detail.strip(), f"Last output:\n{output}" if output else ""]
        return Failure(failure.reason, "\n".join(filter(None, parts)), failure.disk_full)


def _frame(message: Any) -> bytes:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


def _piped(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # the process was started with a pipe
    return stream


# --- The child's side -------------------------------------------------------------------------------------


def main(fd: int, parent: int) -> None:
    """Run one stage for a supervisor until it sends None or disappears.

    Args:
        fd: file descriptor of the socket to the supervisor.
        parent: process id of the supervisor.
    """
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # the kernel's first choice when the machine runs out of memory
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as channel, channel.makefile("rwb") as stream:
        memory, pickled = _receive(stream)
        try:
            stage = pickle.loads(pickled)
            stage.setup()
            _limit_memory(memory)
        except BaseException as error:
            _reply(stream, Failure.of(error))
            return
        _reply(stream, _memory_bytes()[1])
        while (task := _receive(stream)) is not None:
            _reply(stream, _process(stage, task))
        stage.close()
        _reply(stream, None)


def _die_with(parent: int) -> None:
    """Request SIGKILL for this process when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call above
        os._exit(1)


def _limit_memory(memory: int | None) -> None:
    """Limit the address space to its current size plus `memory` bytes.

    Relative to the current size, because libraries reserve addresses during setup that they never use.
    """
    if memory is not None:
        limit = _memory_bytes()[0] + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _process(stage: Stage, task: Task) -> tuple[Outcome, int] | Failure:
    try:
        outcome = stage.process(task)
        if not isinstance(outcome, Outcome):
            raise TypeError(
                f"{type(stage).__name__}.process: expected an Outcome, got {type(outcome).__name__}"
            )
        return outcome, _memory_bytes()[1]
    except BaseException as error:  # including SystemExit: the stage did not return an outcome
        return Failure.of(error)


def _memory_bytes() -> tuple[int, int]:
    """Return the size of the address space and the resident memory."""
    with open("/proc/self/statm") as file:
        pages = file.read().split()
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


def _receive(stream: BufferedRWPair) -> Any:
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        os._exit(0)  # the supervisor is gone
    return pickle.loads(stream.read(LENGTH.unpack(header)[0]))


def _reply(stream: BufferedRWPair, message: Any) -> None:
    stream.write(_frame(message))
    stream.flush()
