"""The units of a job: a `Task` to process, the `Outcome` of processing it, and the `Stage` that processes it."""

from __future__ import annotations

import errno
import hashlib
import json
import traceback
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.arguments import file_name, instance, task_key_text, text

Status = Literal["done", "filtered", "quarantined"]


class StageError(RuntimeError):
    """The stage cannot run at all, for example because its `setup` fails. It fails the job, not a single task.

    `setup` may raise it with a sentence for the user, who then gets no traceback.
    """


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Attributes:
        key: permanent identifier, derived from the content of the inputs and the settings (see `task_key`). At most
            200 letters, digits, `.`, `_` and `-`, because it is used as a file name.
        payload: JSON-serialisable input of the stage. Pass paths, not data.
        label: human-readable name for messages, such as the name of the asset. Defaults to the key.
    """

    key: str
    payload: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        task_key_text(self.key, "Task.key")
        text(self.label, "Task.label")
        object.__setattr__(self, "payload", _json_round_trip(self.payload, f"Task {self.key!r}: payload"))
        object.__setattr__(self, "label", self.label or self.key)

    def __hash__(self) -> int:  # the generated one would hash the payload, a dict
        return hash(self.key)

    def to_json(self) -> dict[str, Any]:
        """Return the task as a JSON object."""
        return {"key": self.key, "payload": self.payload, "label": self.label}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """Create a task from the result of `to_json`."""
        return cls(data["key"], data["payload"], data["label"])


def task_key(*parts: str) -> str:
    """Derive a task's key from all inputs that affect its result.

    The parts are joined with the ASCII unit separator, so ("ab", "c") and ("a", "bc") give different keys.

    Returns:
        The first 40 hexadecimal digits of a SHA-256.
    """
    for part in parts:
        text(part, "task_key: part")
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Outcome:
    """Result of processing a task.

    Attributes:
        status: "done"; "filtered" (deliberately excluded); or "quarantined" (known to be bad, never retried).
        summary: small JSON-serialisable metadata, stored in the ledger.
        files: path relative to the output root → content. Written before the commit marker.
        follow_up: tasks created by this one; allowed with "done" only. They are stored in the marker, so a resumed
            run restores them without repeating the work.
        reason: one line; required with "filtered" and "quarantined".
    """

    status: Status
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    follow_up: list[Task] = field(default_factory=list)
    reason: str = ""

    def __post_init__(self) -> None:
        text(self.reason, "Outcome.reason")
        if not isinstance(self.files, dict):
            raise TypeError(f"Outcome.files: expected a dictionary, got {type(self.files).__name__}")
        if not isinstance(self.follow_up, list | tuple):
            raise TypeError(
                f"Outcome.follow_up: expected a list of tasks, got {type(self.follow_up).__name__}"
            )
        for task in self.follow_up:
            instance(task, Task, "Outcome.follow_up")
        if self.status not in ("done", "filtered", "quarantined"):
            raise ValueError(
                f"Outcome.status: expected 'done', 'filtered' or 'quarantined', got {self.status!r}"
            )
        if self.status != "done" and not self.reason:
            raise ValueError(
                f"Outcome.reason: expected one line for a {self.status} task, got an empty string"
            )
        if self.status != "done" and self.follow_up:
            raise ValueError(
                f"Outcome.follow_up: expected no tasks for a {self.status} task, got {len(self.follow_up)}; "
                f"only a done task can have follow-up tasks"
            )
        for path, data in self.files.items():
            if not isinstance(data, bytes):
                raise TypeError(f"Outcome.files: expected bytes for {path!r}, got {type(data).__name__}")
            file_name(path, "Outcome.files")
        object.__setattr__(self, "summary", _json_round_trip(self.summary, "Outcome.summary"))


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        reason: one line, identical for identical causes, so that failures can be counted by reason.
        detail: traceback, end of the output, native stack.
        disk_full: the disk was full. This stops the run instead of counting as an attempt of the task.
    """

    reason: str
    detail: str = ""
    disk_full: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Convert an exception: its type and message as the reason, the end of its traceback as the detail.

        A `StageError` is a sentence for the user already: only its message is kept.
        """
        instance(error, BaseException, "Failure.of: error")
        if isinstance(error, StageError):
            return cls(" ".join(str(error).split()))
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(": ")
        detail = "".join(traceback.format_exception(error))[-4000:]
        return cls(reason, detail, _is_disk_full(error))


class Stage:
    """Base class for processing steps: subclass it in an importable module and override `process`.

    The object is pickled in the driver and unpickled in a child process, which may crash in a native library.
    Create large objects in `setup`, not in the constructor.

    Attributes:
        num_cpus, num_gpus: resources reserved for each worker; fractions are allowed.
        gpu_memory: bytes of GPU memory that a worker needs; 0 if not known. As many workers share a GPU as its memory
            has room for, instead of `num_gpus` each. It is not enforced.
        memory: bytes. Without a GPU, this also limits the address space that tasks may allocate in addition to what
            `setup` allocated: exceeding it raises a MemoryError in the task instead of exhausting the machine.
            A quarter of it is reserved for each worker.
        timeout_s: time limit of a task in seconds, after which its child process is killed.
        tasks_per_child: number of tasks after which the child process is replaced, since native libraries leak.
        child_env: environment variables of the child process. They override the defaults, which allow one thread
            per numeric library.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    gpu_memory: int = 0
    memory: int = 4 * 2**30
    timeout_s: float = 600.0
    tasks_per_child: int = 500
    child_env: dict[str, str] = {}

    def setup(self) -> None:
        """Create what all tasks share, once per child process. An exception here fails the job."""

    def process(self, task: Task) -> Outcome:
        """Process one task.

        An exception counts as a failed attempt. The third failed attempt quarantines the task with its cause.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.process is not implemented: override it in the subclass"
        )

    def close(self) -> None:
        """Release what `setup` created."""


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error is that of a full disk or an exceeded quota, or was raised from one."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _json_round_trip(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Encode and decode `value`, so that a fresh run sees the same types as a resumed one (lists for tuples)."""
    instance(value, dict, name)
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected JSON-serialisable values, got {value!r} ({error})") from None
