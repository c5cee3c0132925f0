"""Distributed processing of tasks with Ray: dispatch, retries, quarantine and resuming.

A `Stage` processes a `Task` and returns an `Outcome`. `run` does that for many tasks on a Ray cluster or on an embedded
Ray, `run_inline` in the current process, and a `Ledger` stores the state of every task. `train_together` trains one
model on a group of workers. See docs/cluster.md.

This is the only package that imports Ray. Importing it does not: Ray is imported when a run starts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from cluster.backlog import Progress, Report
from cluster.dispatch import Interrupted, run
from cluster.inline import run_inline
from cluster.ledger import Ledger, Record
from cluster.local_files import atomic_path
from cluster.lock import OutputInUseError, OutputLock
from cluster.output import ForeignFolderError, check_idle, check_output
from cluster.session import Session, connect
from cluster.stage import Failure, Outcome, Stage, StageError, Task, task_key
from cluster.status import JobStatus, read_status
from cluster.storage import Storage, StorageError

if TYPE_CHECKING:
    from cluster.data import from_parts
    from cluster.training import Group, train_together

__all__ = [
    "Failure",
    "ForeignFolderError",
    "Group",
    "Interrupted",
    "JobStatus",
    "Ledger",
    "Outcome",
    "OutputInUseError",
    "OutputLock",
    "Progress",
    "Record",
    "Report",
    "Session",
    "Stage",
    "StageError",
    "Storage",
    "StorageError",
    "Task",
    "__version__",
    "atomic_path",
    "check_idle",
    "check_output",
    "connect",
    "from_parts",
    "read_status",
    "run",
    "run_inline",
    "task_key",
    "train_together",
]

# Names whose modules import Ray, loaded on first use.
_LAZY = {"from_parts": "cluster.data", "Group": "cluster.training", "train_together": "cluster.training"}

__version__: str

if not TYPE_CHECKING:  # a type checker accepts any name of a module with __getattr__

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return importlib.metadata.version("menagerie4d")
        if name in _LAZY:
            return getattr(importlib.import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
