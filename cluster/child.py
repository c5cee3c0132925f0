"""A stage in a child process that may crash, hang or run out of memory without harm to anybody else.

`Child` is the supervisor's side: it starts the process, hands it one task at a time, waits no longer than
allowed, and turns every way to die into a `ChildFailure` with the true cause. `main` is what runs in the
process. They speak length-prefixed pickles over a socket of their own, so that whatever a native library
prints cannot get between; what is printed is read from a pipe, and its tail goes into error messages.

Nobody survives the supervisor: the child asks the kernel for a parent-death signal, and a guard (a shell that
waits for the end of its standard input) kills the child's process group, grandchildren included.
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
from typing import Any

from cluster.stage import Failure, Outcome, Stage, StageError, Task

START_TIMEOUT_S = 300.0  # for the stage's imports and its setup
CLOSE_TIMEOUT_S = 10.0
TAIL_BYTES = 8000
RAY_PATHS = (
    "ray/thirdparty_files",
    "ray/_private/workers",
)  # Ray's copies of others' packages, not for a stage
LENGTH = struct.Struct(">Q")
PR_SET_PDEATHSIG = 1

# One thread per numeric library: a worker is one core, and more workers use more cores.
DEFAULT_ENV = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}

# The kernel sends the parent-death signal when the *thread* that started the child ends, so that one thread,
# which lasts as long as the process, starts them all.
_starter = ThreadPoolExecutor(1, thread_name_prefix="child-starter")


class ChildFailure(Exception):
    """The child raised, died or did not answer; `failure` says which."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass(frozen=True)
class ChildSpec:
    """A stage, ready to be sent to a machine that need not be able to import it in the supervisor.

    Attributes:
        name: the stage's, for messages. stage: the pickled stage. sys_path: where to import it from.
        memory: bytes a task may take, None for no limit. See `Stage` for the others.
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
        if type(stage).__module__ == "__main__":
            raise StageError(
                f"{type(stage).__name__} is defined in the script that is being run, so no other process can "
                f"import it: move it into a module"
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
    """A running child whose stage has been set up.

    Raises ChildFailure if that does not come about. `tasks` counts what it did, `rss` is its memory in bytes.
    """

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._log = bytearray()
        self.tasks = 0
        _starter.submit(self._start).result()
        try:
            self.rss = self._first_rss = self._ask((spec.memory, spec.stage), START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        own = [path for path in sys.path if not path.endswith(RAY_PATHS)]
        sys_path = list(dict.fromkeys([*own, *self._spec.sys_path]))
        code = (
            f"import sys; sys.path[:] = {sys_path!r}; "
            f"from cluster.child import main; main({theirs.fileno()}, {os.getpid()})"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
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
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._socket.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def is_worn(self) -> bool:
        """Whether it is time for a new one: many tasks, or a quarter of its memory limit leaked."""
        grown = self.rss - self._first_rss
        return self.tasks >= self._spec.tasks_per_child or grown > (self._spec.memory or 16 * 2**30) / 4

    def process(self, task: Task) -> Outcome:
        """Do one task. Raises ChildFailure; after that the child is of no use: `kill` it."""
        self._log.clear()
        self.tasks += 1
        outcome, self.rss = self._ask(task, self._spec.timeout_s)
        if self.tasks == 1:
            self._first_rss = self.rss  # after the first task, when caches and lazy imports are there
        return outcome

    def close(self) -> None:
        """Let the stage close; then end it."""
        try:
            self._ask(None, CLOSE_TIMEOUT_S)
        except ChildFailure:
            pass  # it is killed all the same
        self.kill()

    def kill(self) -> None:
        """End the child and everything it started. The group is killed before the child is reaped."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._guard.kill()
        for process in (self._process, self._guard):
            process.wait()
        self._guard.stdin.close()
        self._output.close()
        self._socket.close()

    def _ask(self, message: Any, timeout: float) -> Any:
        """Send one message and wait for the answer, reading the output meanwhile so that it never blocks."""
        outgoing = memoryview(_frame(message))
        incoming = bytearray()
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while True:
                # Before looking for an answer, so that a dead child's last one is still seen. A process that
                # the child forked may hold the socket open, so the end of file alone is not enough.
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
                            return self._unwrap(incoming[LENGTH.size : end])
                    continue
                if mask & selectors.EVENT_WRITE:
                    outgoing = outgoing[self._send(outgoing) :]
                    if not outgoing:
                        selector.modify(self._socket, selectors.EVENT_READ)
                if died:
                    raise self._death()
                if time.monotonic() > deadline:
                    raise self._hang(timeout)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 20)
        except ConnectionError:
            return b""

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data[: 1 << 20])
        except ConnectionError:
            return len(data)  # nobody reads: the next look at the socket finds its end

    def _read_output(self) -> bool:
        """Keep the tail of what the child prints; False at its end."""
        try:
            chunk = os.read(self._output.fileno(), 1 << 16)
        except BlockingIOError:
            return True
        self._log += chunk
        del self._log[:-TAIL_BYTES]
        return bool(chunk)

    def _unwrap(self, answer: bytes) -> Any:
        result = pickle.loads(answer)
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

    def _hang(self, timeout: float) -> ChildFailure:
        """Ask faulthandler where it hangs, for the detail."""
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
        return ChildFailure(self._with_output(Failure(f"no answer within {timeout:g} s")))

    def _with_output(self, failure: Failure) -> Failure:
        # What is in the pipe now, and no more: someone may be printing without end.
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


# The child's side


def main(fd: int, parent: int) -> None:
    """Serve one stage to the supervisor `parent` over the socket `fd` until told to end."""
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine runs out of memory, this is the process to end
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as channel, channel.makefile("rwb") as stream:
        memory, pickled = _receive(stream)
        try:
            stage = pickle.loads(pickled)
            stage.setup()
            _limit(memory)
        except BaseException as error:
            _reply(stream, Failure.of(error))
            return
        _reply(stream, _memory_bytes()[1])
        while (task := _receive(stream)) is not None:
            _reply(stream, _attempt(stage, task))
        stage.close()
        _reply(stream, None)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _limit(memory: int | None) -> None:
    """What tasks may take on top of what the setup has made: libraries reserve addresses they never use."""
    if memory is not None:
        limit = _memory_bytes()[0] + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _attempt(stage: Stage, task: Task) -> tuple[Outcome, int] | Failure:
    try:
        outcome = stage.process(task)
        if not isinstance(outcome, Outcome):
            raise TypeError(
                f"{type(stage).__name__}.process: expected an Outcome, got {type(outcome).__name__}"
            )
        return outcome, _memory_bytes()[1]
    except BaseException as error:  # SystemExit too: whatever it was, it was not an answer
        return Failure.of(error)


def _memory_bytes() -> tuple[int, int]:
    """Addresses taken and memory resident."""
    with open("/proc/self/statm") as file:
        pages = file.read().split()
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


def _receive(stream) -> Any:
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        os._exit(0)  # the supervisor is gone
    return pickle.loads(stream.read(LENGTH.unpack(header)[0]))


def _reply(stream, message: Any) -> None:
    stream.write(_frame(message))
    stream.flush()
