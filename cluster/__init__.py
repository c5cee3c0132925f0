"""Work on many machines. The only package that imports Ray, and not before a run starts.

A `Stage` turns a `Task` into an `Outcome`; `run` does that for many tasks on a Ray cluster or on an embedded
Ray; a `Ledger` keeps what has become of each. See docs/cluster.md.
"""

from cluster.backlog import Progress, Report
from cluster.dispatch import Interrupted, run
from cluster.inline import run_inline
from cluster.ledger import Ledger, Record
from cluster.session import Session, connect
from cluster.stage import Failure, Outcome, Stage, StageError, Task, task_key
from cluster.storage import StorageError

__all__ = [
    "Failure",
    "Interrupted",
    "Ledger",
    "Outcome",
    "Progress",
    "Record",
    "Report",
    "Session",
    "Stage",
    "StageError",
    "StorageError",
    "Task",
    "connect",
    "run",
    "run_inline",
    "task_key",
]
