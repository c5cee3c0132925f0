"""What a job is made of: a `Task` to do, the `Outcome` of doing it, and the `Stage` that does it."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import traceback
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

Status = Literal["done", "filtered", "quarantined"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class StageError(RuntimeError):
    """The stage cannot run here at all (its `setup` fails, say): the job's failure, not a task's."""


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Attributes:
        key: names the task for ever, so it is made from the content of the inputs and the settings. At most
            200 letters, digits, `.`, `_`, `-`: it becomes a file name.
        payload: what the stage needs to know, JSON-serialisable; pass paths, not data.
        label: what people call it (the asset's name).
    """

    key: str
    payload: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(
                f"Task.key: expected at most 200 letters, digits, '.', '_', '-', not starting with a sign, "
                f"got {self.key!r}; hash the inputs into a hexadecimal key"
            )
        object.__setattr__(self, "payload", _plain(self.payload, f"Task {self.key!r}: payload"))
        object.__setattr__(self, "label", self.label or self.key)

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "payload": self.payload, "label": self.label}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        return cls(data["key"], data["payload"], data["label"])


def task_key(*parts: str) -> str:
    """Derive a task's key from everything that decides its result: 40 hexadecimal digits of a SHA-256.

    The parts are joined with the ASCII unit separator, so ("ab", "c") and ("a", "bc") differ.
    """
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        status: "done"; "filtered" = left out on purpose; "quarantined" = known to be bad, no retry.
        summary: a few numbers and words, JSON-serialisable, kept in the ledger.
        files: relative path under the output root → content. Written before the commit marker.
        follow_up: tasks that this one gives rise to; only with "done". Kept in the marker, so that a resumed
            run finds them without doing the work again.
        reason: one line; needed with "filtered" and "quarantined".
    """

    status: Status
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    follow_up: list[Task] = field(default_factory=list)
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in ("done", "filtered", "quarantined"):
            raise ValueError(
                f"Outcome.status: expected 'done', 'filtered' or 'quarantined', got {self.status!r}"
            )
        if self.status != "done" and not self.reason:
            raise ValueError(f"Outcome: a {self.status} task needs a reason, in one line")
        if self.status != "done" and self.follow_up:
            raise ValueError(f"Outcome: only a done task can have a follow_up, this one is {self.status}")
        for path, data in self.files.items():
            if not isinstance(data, bytes):
                raise TypeError(f"Outcome.files: expected bytes for {path!r}, got {type(data).__name__}")
            parts = PurePosixPath(path).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"Outcome.files: expected a relative path below the output, got {path!r}")
        object.__setattr__(self, "summary", _plain(self.summary, "Outcome.summary"))


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        reason: one line, the same for the same cause.
        detail: traceback, last lines of output, native stack.
        disk_full: no fault of the task; it stops the run instead of counting as an attempt.
    """

    reason: str
    detail: str = ""
    disk_full: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """An exception as a failure: its type and message, and the last lines of its traceback."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(": ")
        detail = "".join(traceback.format_exception(error))[-4000:]
        return cls(reason, detail, getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT))


class Stage:
    """Subclass it in a module that can be imported, and override `process`.

    The object is pickled in the driver and unpickled in a child process that a native library may crash, so
    keep heavy things out of the constructor: make them in `setup`.

    Attributes:
        num_cpus, num_gpus: what one worker takes of a machine; fractions are fine.
        memory: bytes. Without a GPU, also a limit on the address space tasks may take on top of what `setup`
            took, so that one that wants more gets a MemoryError instead of taking the machine down. A quarter
            of it is reserved on the machine.
        timeout_s: seconds a task may take before its child is killed.
        tasks_per_child: after so many tasks the child is replaced (native libraries leak).
        child_env: environment variables of the child, over the defaults of one thread per numeric library.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 4 * 2**30
    timeout_s: float = 600.0
    tasks_per_child: int = 500
    child_env: dict[str, str] = {}

    def setup(self) -> None:
        """Make what every task needs, once per child. Raising here is the job's failure."""

    def process(self, task: Task) -> Outcome:
        """Do one task. Raising is one attempt; the third puts the task into quarantine with its cause."""
        raise NotImplementedError(f"{type(self).__name__}.process: override it")

    def close(self) -> None:
        """Release what `setup` made."""


def _plain(value: dict[str, Any], what: str) -> dict[str, Any]:
    """The value as JSON would give it back, so that a fresh and a resumed run see the same."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what}: expected plain JSON values, got {value!r} ({error})") from None
