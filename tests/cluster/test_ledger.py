from __future__ import annotations

import json
import os
import pickle
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from cluster_stages import Work

from cluster import Failure, Ledger, Outcome, Stage, StorageError, Task, run_inline


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path):
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


def test_outcomes_are_restored_from_the_storage(root: str) -> None:
    ledger = Ledger(root)
    child = Task("child", {"clip": 1}, "Fox, clip 1")
    done = ledger.commit(
        Task("a", label="Fox"), Outcome("done", {"clips": 6}, {"d/a.bin": b"abc"}, [child]), 1.5, "w"
    )
    filtered = ledger.commit(Task("b"), Outcome("filtered", reason="no motion"))
    bad = ledger.commit(Task("c"), Outcome("quarantined", reason="truncated"))
    again = pickle.loads(pickle.dumps(Ledger(root)))
    again.refresh()
    records = again.records("abcd")
    assert records == {"a": done, "b": filtered, "c": bad}
    assert all(record.resumed for record in records.values()) and not done.resumed
    assert done.follow_up == [child] and done.files == {"d/a.bin": 3} and done.summary == {"clips": 6}
    assert again.storage.read("d/a.bin") == b"abc"
    assert [record.key for record in again] == ["a", "b", "c"]
    assert again.record("d") is None


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.commit(Task("a"), Outcome("done"))
    ledger.commit(Task("b"), Outcome("filtered", reason="no motion"))
    ledger.fail(Task("c"), Failure("ValueError: x"))
    ledger.quarantine(Task("d"), Failure("ValueError: x"))
    files = {str(path.relative_to(tmp_path / "_factory")) for path in tmp_path.rglob("*.json")}
    shard = "ca"  # sha256("a") begins with it
    assert files == {f"done/{shard}/a.json", "filtered/b.json", "attempts/c/1.json", "quarantine/d.json"}
    assert not list((tmp_path / "_factory" / "tmp").iterdir())


@pytest.mark.parametrize("corrupt", [b"", b'{"key": "a", "sta', b"\0" * 300, b'{"key": "other"}', b"[]"])
def test_a_corrupt_marker_counts_as_absent(root: str, corrupt: bytes) -> None:
    ledger = Ledger(root)
    ledger.commit(Task("a"), Outcome("done"))
    ledger.storage.write(ledger._marker("done", "a"), corrupt)
    ledger.refresh()
    assert ledger.is_listed("a") and ledger.records(["a"]) == {} and ledger.record("a") is None
    report = run_inline(Work(), [Task("a")], ledger)
    assert report.resumed == 0 and ledger.record("a").status == "done"


def test_the_marker_is_last(tmp_path: Path) -> None:
    """Whenever the writer is killed, a marker refers to complete files only."""
    ledger = Ledger(tmp_path)
    written = []
    write = ledger.storage.write
    ledger.storage.write = lambda name, data: (written.append(name), write(name, data))
    ledger.commit(Task("a"), Outcome("done", files={"x/1": b"1", "x/2": b"2"}))
    assert written[:2] == ["x/1", "x/2"] and written[2].startswith("_factory/done/")


def test_the_first_commit_stays(root: str) -> None:
    ledger = Ledger(root)
    first = ledger.commit(Task("a"), Outcome("done", files={"x": b"first"}), worker="first")
    assert ledger.commit(Task("a"), Outcome("done", files={"x": b"second"}), worker="zombie") == first
    assert ledger.quarantine(Task("a"), Failure("lost")) == first
    assert ledger.storage.read("x") == b"first"


def test_three_attempts_and_retrying_quarantined_tasks(root: str) -> None:
    ledger = Ledger(root)
    task = Task("a", label="Fox")
    assert ledger.fail(task, Failure("one")) is None
    assert Ledger(root).fail(task, Failure("two")) is None  # counted in the storage, not in memory
    record = Ledger(root).fail(task, Failure("killed by signal 11 (SIGSEGV)", "the native stack"))
    assert (record.status, record.attempts, record.label) == ("quarantined", 3, "Fox")
    assert record.reason == "killed by signal 11 (SIGSEGV)" and record.detail == "the native stack"
    assert [failure.reason for failure in ledger.attempts("a")] == ["one", "two", record.reason]
    assert Ledger(root).retry_quarantined() == 1
    assert ledger.record("a") is None and ledger.attempts("a") == [] and Ledger(root).retry_quarantined() == 0
    assert ledger.fail(task, Failure("one")) is None


def test_files_in_folders_of_the_ledger_are_refused(root: str) -> None:
    with pytest.raises(ValueError, match="folder reserved for the ledger"):
        Ledger(root).commit(Task("a"), Outcome("done", files={"_factory/done/x": b""}))


def test_old_temporary_files_are_removed_and_recent_ones_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    folder = tmp_path / "_factory" / "tmp"
    folder.mkdir(parents=True)
    (folder / "dead").write_bytes(b"half")
    (folder / "alive").write_bytes(b"half")
    os.utime(folder / "dead", (time.time() - 7200,) * 2)
    ledger.refresh()
    assert [path.name for path in folder.iterdir()] == ["alive"]


def test_listing_is_cheap(tmp_path: Path) -> None:
    """10 000 keys take a third of a second; the limit is below the time of one listing per key."""
    ledger = Ledger(tmp_path)
    record = ledger.commit(Task("k"), Outcome("done"))
    for number in range(10_000):
        path = Path(ledger.storage.path(ledger._marker("done", f"k{number}")))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**record.to_json(), "key": f"k{number}"}))
    start = time.monotonic()
    ledger.refresh()
    assert len(ledger.records(f"k{number}" for number in range(10_000))) == 10_000
    assert time.monotonic() - start < 3


def test_an_error_names_the_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=f"{tmp_path}/file/out"):
        Ledger(tmp_path / "file" / "out").commit(Task("a"), Outcome("done"))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 KiB, which `grow` enlarges."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(small_disk: Path) -> None:
    tasks = [Task(f"t{i}") for i in range(100)]
    with pytest.raises(StorageError, match=rf"cannot write {small_disk}/.*No space left.*same command again"):
        run_inline(Work(), tasks, Ledger(small_disk))
    ledger = Ledger(small_disk)
    committed = list(ledger)
    assert 5 < len(committed) < 100
    assert all(record.status == "done" for record in committed)
    assert not list((small_disk / "_factory" / "tmp").iterdir())
    for record in committed:
        assert (small_disk / f"data/{record.key}.bin").stat().st_size == record.files[
            f"data/{record.key}.bin"
        ]
    grow(small_disk)
    report = run_inline(Work(), tasks, ledger)
    assert report.counts == {"done": 100} and report.resumed == len(committed)


class FillsItsScratch(Stage):
    def process(self, task: Task) -> Outcome:
        with open("/dev/full", "wb", buffering=0) as scratch:
            scratch.write(b"x")
        return Outcome("done")


def test_a_full_disk_during_a_task_is_not_an_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(StorageError, match=r"'Fox'.*No space left"):
        run_inline(FillsItsScratch(), [Task("a", label="Fox")], ledger)
    assert ledger.attempts("a") == [] and ledger.record("a") is None
