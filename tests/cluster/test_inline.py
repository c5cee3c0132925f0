from __future__ import annotations

from pathlib import Path

import pytest
from cluster_stages import Work

from cluster import Ledger, Outcome, Record, Stage, Task, run_inline


class Assets(Stage):
    """An asset has clips as follow-up tasks; a clip is rendered, filtered or quarantined."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def setup(self) -> None:
        self.is_open = True

    def process(self, task: Task) -> Outcome:
        self.seen.append(task.key)
        if "clips" in task.payload:
            clips = [Task(f"{task.key}-{i}", {"clip": i}) for i in range(task.payload["clips"])]
            return Outcome("done", follow_up=clips)
        if task.payload.get("clip") == 1:
            return Outcome("filtered", reason="no motion")
        if task.payload.get("bad"):
            return Outcome("quarantined", reason="truncated file")
        return Outcome("done", files={f"{task.key}.bin": b"x"})

    def close(self) -> None:
        self.is_open = False


def test_follow_ups_come_first_and_in_order(tmp_path: Path) -> None:
    stage = Assets()
    tasks = [Task("a", {"clips": 3}), Task("b", {"bad": True}), Task("c", {"clips": 2})]
    report = run_inline(stage, tasks, Ledger(tmp_path))
    assert stage.seen == ["a", "a-0", "a-1", "a-2", "b", "c", "c-0", "c-1"]
    assert report.counts == {"done": 5, "filtered": 2, "quarantined": 1} and report.total == 8
    assert report.reasons == {"filtered": {"no motion": 2}, "quarantined": {"truncated file": 1}}
    assert stage.is_open is False
    assert 0 < report.utilisation <= 1


def test_a_resumed_run_restores_follow_ups_without_repeating_the_work(tmp_path: Path) -> None:
    class Stops(Assets):
        def process(self, task: Task) -> Outcome:
            if task.key == "a-1":
                raise KeyboardInterrupt
            return super().process(task)

    tasks = [Task("a", {"clips": 3}), Task("b", {"clips": 1})]
    with pytest.raises(KeyboardInterrupt):
        run_inline(Stops(), tasks, Ledger(tmp_path))
    stage, resolved = Assets(), []
    report = run_inline(
        stage, tasks, Ledger(tmp_path), lambda task, record: resolved.append((task.key, record.status))
    )
    assert stage.seen == ["a-1", "a-2", "b", "b-0"]
    assert report.resumed == 2 and report.total == 6
    assert sorted(key for key, _ in resolved) == ["a", "a-0", "a-1", "a-2", "b", "b-0"]
    assert dict(resolved)["a-1"] == "filtered"


def test_a_key_is_processed_once(tmp_path: Path) -> None:
    stage = Assets()
    run_inline(
        stage,
        [Task("a", {"clips": 1}), Task("a", {"clips": 1}), Task("a-0"), Task("b"), Task("b")],
        Ledger(tmp_path),
    )
    assert stage.seen == ["a", "a-0", "b"]


def test_raising_three_times_quarantines_with_the_cause(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    report = run_inline(Work(), [Task("x", {"do": "raise"}, "Fox"), Task("y")], ledger)
    assert report.counts == {"done": 1, "quarantined": 1}
    record = ledger.record("x")
    assert record.reason == "ValueError: Fox: mesh 'body' has no faces" and record.attempts == 3
    assert "do_raise" in record.detail


def test_a_source_is_pulled_lazily(tmp_path: Path) -> None:
    pulled = []

    def source():
        for number in range(1000):
            pulled.append(number)
            yield Task(f"t{number}")

    def stop_early(task: Task, record: Record):
        if task.key == "t9":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inline(Assets(), source(), Ledger(tmp_path), stop_early)
    assert len(pulled) <= 11
