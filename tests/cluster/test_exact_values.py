"""Decisions of the dispatcher and of the ledger against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import Ledger, Outcome, Task
from cluster.dispatch import _kills_workers
from cluster.stage import Failure


@pytest.mark.parametrize(
    ("losses", "all_losses", "blamed"),
    [(4, 4, False), (5, 5, True), (5, 9, True), (5, 10, False), (19, 1000, False), (20, 1000, True)],
)
def test_a_task_is_blamed_for_five_workers_that_are_most_of_the_lost_ones_or_for_twenty(
    losses, all_losses, blamed
):
    assert _kills_workers(losses, all_losses) is blamed


def test_a_commit_outweighs_an_earlier_quarantine(tmp_path: Path):
    """A worker that was believed lost may commit after all: both markers exist, and the task is done."""
    ledger, task = Ledger(tmp_path), Task("task", {}, "task")
    assert ledger.quarantine(task, Failure("worker lost 5 times")).status == "quarantined"
    assert ledger.commit(task, Outcome("done")).status == "done"
    ledger.refresh()
    assert ledger.records(["task"])["task"].status == "done"
    assert [record.status for record in ledger] == ["done"]
