"""The compact ledger: nothing is lost or done twice wherever a run is killed, and old ledgers are read."""

from __future__ import annotations

import contextlib
import json
import pickle
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_stages import content

import cluster.ledger
from cluster import Failure, Ledger, Outcome, Record, Stage, StorageError, Task, run_inline
from cluster.backlog import Backlog
from cluster.segments import Segments


class Killed(BaseException):
    """The process ends here."""


class Mixed(Stage):
    """Tasks that end in every way; `processed` lists the attempts."""

    def __init__(self) -> None:
        self.processed: list[str] = []

    def process(self, task: Task) -> Outcome:
        self.processed.append(task.key)
        if task.payload.get("do") == "raise":
            raise ValueError("no faces")
        if task.payload.get("do") == "filter":
            return Outcome("filtered", reason="no motion")
        children = [
            Task(f"{task.key}-{number}", {"of": task.key})
            for number in range(task.payload.get("children", 0))
        ]
        return Outcome("done", {"of": task.key}, {f"data/{task.key}.bin": content(task.key)}, children)


TASKS = [
    Task("plan", {"children": 3}),
    *(Task(f"t{number}") for number in range(5)),
    Task("bad", {"do": "raise"}),
    Task("still", {"do": "filter"}),
    Task("other", {"children": 2}),
    Task("t9"),
]
KEYS = {
    *("plan", "plan-0", "plan-1", "plan-2", "other", "other-0", "other-1", "bad", "still"),
    *(f"t{number}" for number in (0, 1, 2, 3, 4, 9)),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.ledger, "SEGMENT_RECORDS", 4)
    monkeypatch.setattr(cluster.ledger, "_REMOVED_TOGETHER", 1)


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


def done(root: str, tasks: list[Task] = TASKS) -> tuple[list[Record], list[str]]:
    """Run the job to its end. Returns the records in the order of `on_resolved`, and the keys that were processed."""
    stage, records = Mixed(), []
    run_inline(stage, tasks, Ledger(root), on_resolved=lambda task, record: records.append(record))
    return records, stage.processed


def comparable(record: Record) -> Record:
    # A kill between the third failed attempt and the quarantine marker costs a fourth attempt.
    return replace(record, seconds=0.0, worker="", attempts=min(record.attempts, 3), resumed=False)


def by_key(records: Iterable[Record]) -> dict[str, Record]:
    return {record.key: comparable(record) for record in records}


def loose(root: str) -> list[str]:
    names = Ledger(root).storage.names("_factory")
    return sorted(Path(name).stem for name in names if name.startswith(("done/", "filtered/", "quarantine/")))


def packed(root: str) -> list[str]:
    segments = Segments(Ledger(root).storage, "_factory/segments")
    segments.refresh()
    return list(segments)


def killed_at(number: int, ledger: Ledger, after: bool) -> Counter[str]:
    """Let the process end before or after the given request to the storage; returns the counts of requests so far."""
    storage, count = ledger.storage, Counter()

    def killing(name: str, function: Callable) -> Callable:
        def request(*arguments):
            count["all"] += 1
            count[name] += 1
            if count["all"] == number and not after:
                raise Killed
            result = function(*arguments)
            if count["all"] == number:
                raise Killed
            return result

        return request

    for name in ("write", "read_many", "read_ranges", "names", "remove", "sweep"):
        setattr(storage, name, killing(name, getattr(storage, name)))
    # One file at a time, so that the process can end between two.
    storage.remove_many = lambda names: [storage.remove(name) for name in names]
    return count


@pytest.fixture
def fresh() -> Iterator[Callable[[], str]]:
    """Gives roots in memory; the last one is removed with the next, since listings visit every file in memory."""
    roots: list[str] = []

    def root() -> str:
        if roots:
            Ledger(roots[-1]).storage.remove_folder("")
        roots.append(f"memory://{uuid.uuid4().hex}/out")
        return roots[-1]

    yield root
    root()


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_request_loses_nothing_and_repeats_nothing(
    small: None, fresh: Callable[[], str], after: bool
) -> None:
    expected = by_key(done(fresh())[0])
    assert expected.keys() == KEYS
    number, seen = 0, Counter()
    while True:
        number += 1
        root = fresh()
        ledger = Ledger(root)
        count = killed_at(number, ledger, after)
        try:
            run_inline(Mixed(), TASKS, ledger)
        except Killed:
            pass
        else:
            break
        seen |= count
        before = {record.key: record for record in Ledger(root)}
        records, processed = done(root)
        assert before.keys().isdisjoint(processed), f"request {number}: repeated"
        assert Counter(record.key for record in records) == Counter(list(expected)), (
            f"request {number}: lost or twice"
        )
        assert by_key(records) == expected
        assert by_key(Ledger(root)) == expected
        for key in before:  # an earlier record stays as it is, with its worker and time
            assert Ledger(root).record(key) == replace(before[key], resumed=False)
        for record in expected.values():
            for path in record.files:
                assert Ledger(root).storage.read(path) == content(record.key)
        again, processed = done(root)
        assert processed == [] and Counter(r.key for r in again) == Counter(list(expected))
    assert number > 60 and seen["write"] > 20 and seen["remove"] >= 8, (
        seen
    )  # segments were written and markers removed


@pytest.mark.parametrize("second", [1, 5, 9, 14, 20, 27])
def test_a_second_kill_during_the_resume(small: None, fresh: Callable[[], str], second: int) -> None:
    expected = by_key(done(fresh())[0])
    for first in range(30, 75, 7):
        root = fresh()
        for number in (first, second):
            ledger = Ledger(root)
            killed_at(number, ledger, after=True)
            with pytest.raises(Killed) if number == first else contextlib.suppress(Killed):
                run_inline(Mixed(), TASKS, ledger)
        before = {record.key for record in Ledger(root)}
        records, processed = done(root)
        assert before.isdisjoint(processed)
        assert Counter(record.key for record in records) == Counter(list(expected))
        assert by_key(Ledger(root)) == expected


def test_markers_become_segments_and_the_rest_stays(small: None, root: str) -> None:
    records, _ = done(root)
    keys = {record.key for record in records}
    assert len(packed(root)) == 12 and set(packed(root)) | set(loose(root)) == keys
    assert set(packed(root)).isdisjoint(loose(root)) and "bad" in loose(root)
    again, processed = done(root)
    assert processed == [] and by_key(again) == by_key(records) and len(again) == len(records)
    assert by_key(Ledger(root)) == by_key(records)


def test_an_old_ledger_is_resumed_and_compacted(
    small: None, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One marker per task, as written by 0.1."""
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "compact", lambda self, record: None)
        records, _ = done(root)
    assert packed(root) == [] and len(loose(root)) == len(records)
    again, processed = done(root)
    assert processed == [] and by_key(again) == by_key(records) and len(again) == len(records)
    assert len(packed(root)) == 12 and set(packed(root)).isdisjoint(loose(root))
    assert by_key(Ledger(root)) == by_key(records)


def test_the_first_commit_stays_after_its_marker_is_gone(small: None, root: str) -> None:
    done(root)
    assert "t0" in packed(root) and "t0" not in loose(root)
    first = Ledger(root).record("t0")
    assert (
        Ledger(root).commit(Task("t0"), Outcome("done", files={"data/t0.bin": b"second"}), worker="late")
        == first
    )
    assert Ledger(root).quarantine(Task("t0"), Failure("lost")) == first
    # A worker of an earlier driver, which does not read the segments, wakes up: its record does not count.
    zombie = pickle.loads(pickle.dumps(Ledger(root))) if Ledger(root).storage.is_shared else None
    if zombie is not None:
        zombie.commit(Task("t0"), Outcome("done", files={"data/t0.bin": content("t0")}), worker="zombie")
        assert "t0" in loose(root)
    again, processed = done(root)
    assert processed == [] and {r.key: r for r in again}["t0"] == replace(first, resumed=True)
    assert "t0" not in loose(root) and packed(root).count("t0") == 1


def test_a_task_that_lost_a_worker_keeps_its_marker(small: None, root: str) -> None:
    """Its first worker may commit it late, and looks for the marker."""
    ledger = Ledger(root)
    backlog = Backlog(TASKS[1:6], ledger, None, 8, "Mixed")
    while (task := backlog.next()) is not None:
        if task.key == "t2":
            backlog.keep_marker(task)
        backlog.resolve(
            task, ledger.commit(task, Outcome("done", files={f"data/{task.key}.bin": content(task.key)}))
        )
    assert loose(root) == ["t2"] and sorted(packed(root)) == ["t0", "t1", "t3", "t4"]
    done(root, [*TASKS[1:6], *(Task(f"more-{number}") for number in range(4))])
    assert "t2" in packed(root), "by the next run"


def test_a_done_marker_replaces_a_filtered_record_in_a_segment(small: None, root: str) -> None:
    done(root)
    assert "still" in packed(root)
    Ledger(root)._write(Record("still", "still", "done", {"new": 1}))
    for _ in range(2):  # read from the marker, then from a segment
        assert Ledger(root).record("still").status == "done"
        tasks = [Task("still"), *(Task(f"more-{number}") for number in range(4))]
        again, _ = done(root, tasks)
        assert {r.key: r for r in again}["still"].summary == {"new": 1}
    assert "still" not in loose(root) and [r.status for r in Ledger(root) if r.key == "still"] == ["done"]


def test_forgetting(small: None, root: str) -> None:
    done(root)
    stale = Ledger(root)
    stale.refresh()
    rest = {
        record.key: comparable(record) for record in Ledger(root) if record.key not in ("t1", "bad", "still")
    }
    Ledger(root).forget("t1", "bad", "still")
    assert b'"t1"' not in b"".join(
        stale.storage.read_many(f"_factory/{name}" for name in stale.storage.names("_factory")).values()
    )
    assert by_key(Ledger(root)) == rest
    stale._segments._cache.clear()
    # An index from before does not bring a record back, and finds the others at their new places.
    assert {key: comparable(record) for key, record in stale.records([*rest, "t1", "still"]).items()} == rest
    assert stale.record("t1") is None
    again, processed = done(root)
    assert Counter(processed) == Counter({"t1": 1, "bad": 3, "still": 1}) and len(again) == len(rest) + 3


def test_the_only_record_survives_a_stale_index(small: None, root: str) -> None:
    """A ledger object outlives a takedown and another run, which renders the task again."""
    stale = Ledger(root)
    run_inline(Mixed(), TASKS, stale)
    Ledger(root).forget("t1")
    Ledger(root).commit(Task("t1"), Outcome("done", {"new": 1}, {"data/t1.bin": content("t1")}))
    for _ in range(2):
        run_inline(Mixed(), TASKS, stale)
        assert Ledger(root).record("t1").summary == {"new": 1}


@pytest.mark.parametrize("damage", ["half", "zeros", "other key", "no header", "emptied"])
def test_a_damaged_segment_costs_only_its_tasks(small: None, root: str, damage: str) -> None:
    records, _ = done(root)
    storage = Ledger(root).storage
    name = f"_factory/segments/{storage.names('_factory/segments')[0]}"
    data = storage.read(name)
    lines = data.split(b"\n")
    damaged = {
        "half": data[: len(data) // 2],
        "zeros": b"\n".join([lines[0], bytes(len(lines[1])), *lines[2:]]),
        "other key": data.replace(b'"key": "', b'"key": "x'),
        "no header": b"\n".join([b"?", *lines[1:]]),
        "emptied": b"",
    }[damage]
    storage.write(name, damaged)
    again, processed = done(root)
    assert len(processed) == {"zeros": 1, "no header": 0}.get(damage, len(processed)) and len(processed) <= 4
    assert damage == "no header" or processed
    assert by_key(again) == by_key(records)
    assert by_key(Ledger(root)) == by_key(records)


def test_a_segment_of_a_newer_version_is_refused(root: str) -> None:
    Ledger(root).storage.write("_factory/segments/00000000-0.jsonl", b'{"format": 2}\n')
    with pytest.raises(StorageError, match="format 2, expected at most 1: it was written by a newer version"):
        Ledger(root).refresh()


def test_the_format_of_a_segment(small: None, tmp_path: Path) -> None:
    done(str(tmp_path))
    files = sorted((tmp_path / "_factory/segments").iterdir())
    assert [file.name[:9] for file in files] == ["00000000-", "00000001-", "00000002-"]
    header, *lines = [json.loads(line) for line in files[1].read_text().splitlines()]
    assert header["format"] == 1 and header["done"] + header["filtered"] == len(lines) == 4
    assert all(len(line) == 3 and Record.from_json(line[2]).key == line[0] for line in lines)
    assert all(Record.from_json(line[2]).status == line[1] for line in lines)


def test_long_records_keep_their_markers(small: None, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.ledger, "MAX_LINE", 250)
    tasks = [Task("long" * 40), *(Task(f"t{number}") for number in range(4))]
    records, _ = done(root, tasks)
    assert loose(root) == ["long" * 40] and len(packed(root)) == 4
    assert [r.key for r in done(root, tasks)[0]] == [r.key for r in records]


def test_single_records_are_read_without_their_segment(small: None, root: str) -> None:
    done(root)
    ledger = Ledger(root)
    ledger.refresh()
    ledger._segments._cache.clear()
    ledger.storage.read_many = None  # reads whole files
    assert ledger._segments.read(["t0"]).keys() == {"t0"}
