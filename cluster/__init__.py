"""Work on many machines. The only package that imports Ray, and not before a run starts.

A `Stage` turns a `Task` into an `Outcome`; `run` does that for many tasks on a Ray cluster or on an embedded
Ray; a `Ledger` keeps what has become of each. See docs/cluster.md.
"""

from cluster.backlog import Progress, Report
from cluster.inline import run_inline
from cluster.ledger import Failure, Ledger, Record
from cluster.stage import Outcome, Stage, StageError, Task
from cluster.storage import StorageError

__all__ = [
    "Failure",
    "Ledger",
    "Outcome",
    "Progress",
    "Record",
    "Report",
    "Stage",
    "StageError",
    "StorageError",
    "Task",
    "run_inline",
]
