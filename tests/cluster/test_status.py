"""The progress file and what `read_status` makes of it and of the ledger."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import cluster.ledger
import cluster.progress
import cluster.status
from cluster import Ledger, Outcome, OutputLock, Stage, Storage, StorageError, Task, read_status, run_inline
from cluster.progress import Moment, ProgressWriter, RunProgress, TaskTime
from cluster.status import rate, status_lines


class Sometimes(Stage):
    """Done, filtered or failing, as the payload demands; `seconds` of waiting."""

    def process(self, task: Task) -> Outcome:
        if task.payload.get("do") == "raise":
            raise ValueError(f"no faces in {task.payload['file']}")
        if task.payload.get("do") == "filter":
            return Outcome("filtered", reason="no motion")
        if task.payload.get("do") == "stop":
            raise KeyboardInterrupt
        time.sleep(task.payload.get("seconds", 0.0))
        return Outcome("done", files={f"{task.key}.bin": b"x"})


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.progress, "WRITE_S", 0.0)


def files(root: str) -> dict[str, bytes]:
    storage = Storage(root)
    return storage.read_many(storage.names(""))


def progress(**values: object) -> RunProgress:
    empty = RunProgress("Stage", "host", 1, "running", 1000.0, 4600.0, {}, 0, None, 0, False, 0, 0, 0, 0)
    return replace(empty, **values)


TASKS = [
    *(Task(f"t{number}") for number in range(5)),
    Task("slow", {"seconds": 0.2}, "Slow, clip 1"),
    *(Task(f"bad{number}", {"do": "raise", "file": "fox.glb"}) for number in range(2)),
    Task("still", {"do": "filter"}),
]


def test_a_finished_run(root: str) -> None:
    run_inline(Sometimes(), TASKS, Ledger(root))
    before = files(root)
    status = read_status(Storage(root))
    assert files(root) == before, "reading the status wrote something"
    assert status.state == "finished" and status.counts == {"done": 6, "filtered": 1, "quarantined": 2}
    assert status.failing == {"ValueError: no faces in fox.glb": 2} and status.left == 0
    run = status.run
    assert run.retries == {"ValueError: no faces in fox.glb": 4}  # two retries of each
    assert run.slowest[0].label == "Slow, clip 1" and run.slowest[0].seconds >= 0.2
    assert len(run.slowest) == 9 and run.reasons["filtered"] == {"no motion": 1}
    assert (run.planned, run.pulled, run.exhausted, run.running, run.queued) == (9, 9, True, 0, 0)
    assert run.resolved == 9 and status.age_s < 30 and status.writers == ()
    assert status.rate_minute == pytest.approx(9 / (run.updated - run.started), rel=0.02)
    assert "6 done, 1 filtered, 2 quarantined" in "\n".join(status_lines(status))


def test_a_run_from_the_outside(root: str) -> None:
    """Read while the run holds its lock, from inside its source of tasks."""
    seen = []

    def source() -> Iterator[Task]:
        for number in range(6):
            if number == 5:
                seen.append(read_status(Storage(root)))
            yield Task(f"t{number}", {}, f"Fox {number}")

    ledger = Ledger(root)
    with OutputLock(ledger.storage, "factory.render"):
        run_inline(Sometimes(), source(), ledger)
    (status,) = seen
    assert status.state == "running" and status.counts == {"done": 4}  # as of the fifth task's start
    assert [each.label for each in status.run.longest] == ["Fox 4"]
    assert status.left is None and status.eta_s is None and "no known size" in status.eta_basis
    assert len(status.writers) == 1 and status.writers[0].startswith("factory.render, process")
    assert "running, 0 waiting, and more in the source (5 taken so far)" in "\n".join(status_lines(status))


def test_an_interrupted_run(root: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_inline(Sometimes(), [Task("a"), Task("b", {"do": "stop"}), Task("c")], Ledger(root))
    status = read_status(Storage(root))
    assert status.state == "interrupted" and status.counts == {"done": 1} and status.eta_s is None


def test_a_killed_driver_and_what_its_workers_still_committed(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.ledger, "SEGMENT_RECORDS", 4)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "compact", _killed_after(Ledger.compact, 7))
        with pytest.raises(SystemExit):
            run_inline(Sometimes(), [Task(f"t{number}") for number in range(12)], Ledger(root))
    storage = Storage(root)
    (name,) = storage.names("_factory/progress")
    data = json.loads(storage.read(f"_factory/progress/{name}"))
    storage.write(
        f"_factory/progress/{name}", json.dumps({**data, "state": "running", "updated": 1e9}).encode()
    )
    Ledger(root).commit(Task("late"), Outcome("done"))
    status = read_status(storage)
    assert len(storage.names("_factory/segments")) == 1
    assert status.state == "lost" and status.counts == {"done": 8}, "counted in segments and markers"
    assert status.age_s > 1e6 and "the same command resumes" in "\n".join(status_lines(status))


@pytest.mark.parametrize("ahead_s", [300.0, -300.0])
def test_a_driver_whose_clock_differs(root: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> None:
    """A run whose last update is minutes away is watched: it is alive if it writes another one."""
    monkeypatch.setattr(cluster.status, "WATCH_S", 1.0)
    storage, name = Storage(root), "_factory/progress/20261129T090000Z-0.json"
    updates = iter(range(100))

    def write(counts: dict[str, int]) -> None:
        updated = time.time() + ahead_s + next(updates)
        run = progress(counts=counts, started=updated - 60, updated=updated)
        storage.write(name, json.dumps(run.to_json()).encode())

    write({"done": 5})
    assert read_status(storage).state == "lost"
    timer = threading.Timer(0.3, write, [{"done": 6}])
    timer.start()
    status = read_status(storage)
    timer.join()
    assert status.state == "running" and status.counts == {"done": 6} and status.age_s == 0.0


def test_a_run_after_a_killed_one(root: str) -> None:
    """The file of the killed driver still says that it is running."""
    now = time.time()
    killed = progress(started=now - 900, updated=now - 600)
    Storage(root).write("_factory/progress/killed.json", json.dumps(killed.to_json()).encode())
    run_inline(Sometimes(), TASKS, Ledger(root))
    assert read_status(Storage(root)).state == "finished"
    live = progress(started=now - 900, updated=now - 20)  # another command in the same folder
    Storage(root).write("_factory/progress/live.json", json.dumps(live.to_json()).encode())
    assert read_status(Storage(root)).state == "running"


def _killed_after(compact, count):
    calls = []

    def killing(self, record):
        calls.append(record)
        compact(self, record)
        if len(calls) == count:
            raise SystemExit

    return killing


def test_markers_that_a_kill_left_beside_their_segment_are_counted_once(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.ledger, "SEGMENT_RECORDS", 3)
    monkeypatch.setattr(cluster.ledger, "_REMOVED_TOGETHER", 100)  # never: as if killed before
    run_inline(Sometimes(), TASKS, Ledger(root))
    assert len(Storage(root).names("_factory/segments")) == 2
    assert len(Storage(root).names("_factory/done")) == 6
    assert Ledger(root).count() == {"done": 6, "filtered": 1, "quarantined": 2}


def test_a_ledger_of_version_0_1(root: str) -> None:
    run_inline(Sometimes(), TASKS, Ledger(root))
    Storage(root).remove_folder("_factory/progress")
    status = read_status(Storage(root))
    assert status.state == "unknown" and status.run is None and status.rate_hour is None
    assert status.counts == {"done": 6, "filtered": 1, "quarantined": 2}
    assert status.failing == {"ValueError: no faces in fox.glb": 2}
    assert "2  ValueError" in "\n".join(status_lines(status))


def test_without_a_ledger(root: str) -> None:
    assert read_status(Storage(root)) is None


def test_a_run_that_changes_nothing_writes_nothing(root: str) -> None:
    run_inline(Sometimes(), TASKS, Ledger(root))
    before = files(root)
    run_inline(Sometimes(), TASKS, Ledger(root))
    assert files(root) == before


def test_rates() -> None:
    steady = progress(
        started=0.0, updated=7200.0, counts={"done": 7200}, samples=((3600.0, 3600), (7190.0, 7190))
    )
    assert rate([steady], 60.0) == pytest.approx(1.0) and rate([steady], 3600.0) == pytest.approx(1.0)
    stalled = progress(started=0.0, updated=600.0, counts={"done": 90}, samples=((0.0, 0), (300.0, 90)))
    assert rate([stalled], 60.0) == 0.0 and rate([stalled], 3600.0) == pytest.approx(90 / 600)
    # Killed after 100 tasks in 100 s, resumed 400 s later: 50 more in 100 s.
    first = progress(started=0.0, updated=100.0, counts={"done": 100}, samples=((0.0, 0),))
    second = progress(started=500.0, updated=600.0, counts={"done": 150}, resumed=100, samples=((500.0, 0),))
    assert rate([first, second], 3600.0) == pytest.approx(150 / 600)
    assert rate([first, second], 60.0) == pytest.approx(0.5)
    assert rate([], 60.0) is None


@pytest.mark.parametrize(
    ("values", "left", "words"),
    [
        ({"exhausted": True, "running": 2, "queued": 8}, 10, "10 tasks left at the rate of the last 60 min"),
        # 40 of 100 taken gave 200 tasks, 5 each: 10 known and 300 to come.
        (
            {"planned": 100, "pulled": 40, "running": 2, "queued": 8, "counts": {"done": 190}},
            310,
            "40 of 100 tasks of the source",
        ),
        ({"pulled": 40, "running": 2, "queued": 8}, None, "no known size; 10 tasks are known"),
    ],
)
def test_the_eta(root: str, values: dict, left: int | None, words: str) -> None:
    now = time.time()
    counts = values.pop("counts", {"done": 190})
    running = progress(started=now - 3600, updated=now, samples=((now - 3600, 0),), counts=counts, **values)
    Storage(root).write("_factory/progress/x.json", json.dumps(running.to_json()).encode())
    status = read_status(Storage(root))
    assert status.left == left and words in status.eta_basis
    if left is not None:
        assert status.eta_s == pytest.approx(left * 3600 / 190)


def test_the_file_is_read_back_and_a_newer_one_too() -> None:
    run = progress(longest=(TaskTime("a", 1.0),), slowest=(TaskTime("b", 2.0, "w"),), samples=((1.0, 2),))
    data = json.loads(json.dumps(run.to_json()))
    assert RunProgress.from_json(data) == run
    assert RunProgress.from_json({**data, "format": 2, "new": 1}) == run


def test_a_damaged_file_is_left_out(root: str) -> None:
    run_inline(Sometimes(), TASKS, Ledger(root))
    Storage(root).write("_factory/progress/99990101T000000Z-x.json", b'{"stage":')
    assert read_status(Storage(root)).state == "finished"


def test_old_files_are_removed(root: str) -> None:
    storage = Storage(root)
    for number in range(25):
        storage.write(f"_factory/progress/20200101T0000{number:02}Z-x.json", b"{}")
    run_inline(Sometimes(), TASKS, Ledger(root))
    names = storage.names("_factory/progress")
    assert len(names) == cluster.progress.MOST_FILES and "20200101T000024Z-x.json" in names


def test_a_storage_that_fails_does_not_stop_the_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write = ledger.storage.write

    def failing(name: str, data: bytes) -> None:
        if "progress" in name:
            raise StorageError("503")
        write(name, data)

    ledger.storage.write = failing
    assert run_inline(Sometimes(), [Task("a")], ledger).counts == {"done": 1}
    assert Storage(tmp_path).names("_factory/progress") == []


def test_the_file_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of samples, and as many causes as tasks."""
    clock = [1000.0]
    monkeypatch.setattr(cluster.progress.time, "time", lambda: clock[0])
    written = []
    storage = Storage("memory://small")
    monkeypatch.setattr(storage, "write", lambda name, data: written.append(data))
    writer = ProgressWriter(storage, "_factory", "Stage", None)
    for number in range(800):
        clock[0] += 5.0
        writer.add_retry(f"no such file {number}")
        writer.write(Moment({"done": number}, 0, {}, number, False, 0, [(Task("a"), 0.0)] * 100))
    samples = json.loads(written[-1])["samples"]
    assert len(written[-1]) < 20_000 and 360 <= len(samples) <= 362
    assert samples[0][0] <= clock[0] - 3600 and len(json.loads(written[-1])["longest"]) == 10
