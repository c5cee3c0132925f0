"""Two commands on one output folder: one writes, the other is told who does, and nobody dead blocks anybody."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from cluster import OutputInUseError, OutputLock, Storage
from cluster import lock as locks
from cluster.lock import Claim, live_claims


@pytest.fixture(autouse=True)
def signals_as_on_a_terminal():
    """A shell starts background jobs with SIGINT ignored, and nohup with SIGHUP; child processes inherit that."""
    previous = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


HOLD = """
import sys, time
from cluster import OutputLock, Storage
with OutputLock(Storage(sys.argv[1]), "factory.render"):
    print("held", flush=True)
    time.sleep(60)
"""
COMPETE = """
import sys, time
from cluster import OutputInUseError, OutputLock, Storage
print("ready", flush=True)
sys.stdin.readline()
try:
    with OutputLock(Storage(sys.argv[1]), "factory.render"):
        start = time.time()
        time.sleep(0.5)
        print("held", start, time.time(), flush=True)
except OutputInUseError:
    print("refused", flush=True)
"""


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path) -> Storage:
    return Storage(tmp_path / "out" if request.param == "local" else f"memory://{uuid.uuid4().hex}/out")


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def put(storage: Storage, **changes: object) -> Claim:
    """Write the claim of another process."""
    own = Claim.of_this_process("factory.train dimo", "")
    claim = dataclasses.replace(own, **{"held": True, **changes})
    storage.write(f"_factory/locks/{claim.token}.json", json.dumps(claim.to_json()).encode())
    return claim


def elsewhere(storage: Storage, age: float, **changes: object) -> Claim:
    """Write the claim of a process on another machine."""
    beat = time.time() - age
    return put(storage, host="node-7", machine="node-7 boot", pid=41, since=beat, beat=beat, **changes)


def test_the_second_is_told_who_is_at_work(storage):
    with OutputLock(storage, "factory.render"), pytest.raises(OutputInUseError) as refused:
        OutputLock(storage, "factory.motions").__enter__()
    message = str(refused.value)
    assert f"is in use: factory.render, process {os.getpid()} on " in message and storage.url in message
    assert "last heartbeat 0 s ago" in message and "choose another folder" in message
    with OutputLock(storage, "factory.motions"):
        pass
    assert storage.names("") == []


def test_scopes(storage):
    with OutputLock(storage, "a", "mvvdm/a"), OutputLock(storage, "b", "mvvdm/b"):
        for scope in ("mvvdm/a", "mvvdm/b", ""):
            with pytest.raises(OutputInUseError):
                OutputLock(storage, "c", scope).__enter__()
        assert len(live_claims(storage)) == 2
    with OutputLock(storage, "whole"), pytest.raises(OutputInUseError):
        OutputLock(storage, "a", "mvvdm/a").__enter__()


def test_a_folder_that_only_the_lock_made_is_gone_afterwards(tmp_path):
    with OutputLock(Storage(tmp_path / "new"), "factory.render"):
        assert (tmp_path / "new").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old").mkdir()
    with OutputLock(Storage(tmp_path / "old"), "factory.render"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_leaving_with_an_error_releases(storage, error):
    with pytest.raises(error), OutputLock(storage, "factory.render"):
        raise error
    assert live_claims(storage) == [] and storage.names("") == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_blocks_nobody(tmp_path, end, reaped):
    """A process that is not reaped, a zombie, keeps its number."""
    process = holder(tmp_path)
    storage = Storage(tmp_path)
    with pytest.raises(OutputInUseError, match=f"process {process.pid} "):
        OutputLock(storage, "second").__enter__()
    process.send_signal(end)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is still a zombie
    if reaped:
        process.wait()
    assert len(storage.names("_factory/locks")) == 1
    with OutputLock(storage, "second"):
        assert [claim.command for claim in live_claims(storage)] == ["second"]
    assert storage.names("") == []
    process.communicate()


def test_ctrl_c_releases(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_owner_on_this_machine_keeps_the_folder(tmp_path, monkeypatch):
    """A laptop that slept: the heartbeat is old, the process is there."""
    process = holder(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(locks, "STALE_S", 0.0)
        with pytest.raises(OutputInUseError):
            OutputLock(Storage(tmp_path), "second").__enter__()
    finally:
        process.kill()
        process.communicate()


def test_the_number_of_a_dead_process_may_be_that_of_another_now(storage):
    put(storage, started="1")
    with OutputLock(storage, "factory.render"):
        pass
    assert storage.names("") == []


def test_a_recent_heartbeat_on_another_machine_counts(storage):
    elsewhere(storage, age=5)
    with pytest.raises(OutputInUseError, match=r"factory\.train dimo, process 41 on node-7 since "):
        OutputLock(storage, "factory.render").__enter__()


@pytest.mark.parametrize("age", [3600, -3600])  # the other machine's clock is late or early, or it died
def test_a_stale_claim_of_another_machine_is_watched_and_taken_over(storage, monkeypatch, age):
    monkeypatch.setattr(locks, "WATCH_S", 0.2)
    elsewhere(storage, age)
    heard: list[str] = []
    with OutputLock(storage, "factory.render", on_wait=heard.append):
        assert [claim.command for claim in live_claims(storage)] == ["factory.render"]
    assert len(heard) == 1 and "node-7" in heard[0] and "Watching" in heard[0]


@pytest.mark.parametrize("age", [3600, -3600])
def test_a_living_owner_with_a_wrong_clock_is_not_taken_over(storage, monkeypatch, age):
    monkeypatch.setattr(locks, "WATCH_S", 5.0)
    claim = elsewhere(storage, age)
    beating = dataclasses.replace(claim, beat=claim.beat + 10)
    beat = threading.Timer(
        0.3, storage.write, [f"_factory/locks/{claim.token}.json", json.dumps(beating.to_json()).encode()]
    )
    beat.start()
    with pytest.raises(OutputInUseError, match="node-7"):
        OutputLock(storage, "factory.render").__enter__()
    beat.join()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff"])
def test_a_damaged_claim_is_removed(storage, data):
    storage.write("_factory/locks/x.json", data)
    with OutputLock(storage, "factory.render"):
        pass
    assert storage.names("") == []


def test_the_heartbeat_beats(storage, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.05)
    with OutputLock(storage, "factory.render"):
        (first,) = live_claims(storage)
        deadline = time.monotonic() + 10
        while live_claims(storage)[0].beat == first.beat:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert live_claims(storage)[0].held


def test_an_owner_that_was_taken_over_stops(storage, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_S", 0.05)
    heard: list[str] = []
    with pytest.raises(KeyboardInterrupt), OutputLock(storage, "factory.render", on_wait=heard.append):
        elsewhere(storage, age=0)
        (own,) = (claim for claim in live_claims(storage) if claim.command == "factory.render")
        storage.remove(f"_factory/locks/{own.token}.json")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.05)
    assert "taken over" in heard[0]


def test_a_waiting_claim_gives_way_to_an_older_one_and_outlasts_a_younger_one(storage):
    older = put(storage, held=False, since=1.0)
    with pytest.raises(OutputInUseError):
        OutputLock(storage, "factory.render").__enter__()
    storage.remove(f"_factory/locks/{older.token}.json")
    younger = put(storage, held=False, since=time.time() + 1000)
    withdraw = threading.Timer(0.3, storage.remove, [f"_factory/locks/{younger.token}.json"])
    withdraw.start()
    start = time.monotonic()
    with OutputLock(storage, "factory.render"):
        assert time.monotonic() - start >= 0.25
    withdraw.join()


def test_of_many_that_start_at_once_no_two_hold(tmp_path):
    """Processes, on a local folder."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", COMPETE, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(5)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60)[0].split() for process in processes]
    held = sorted((float(result[1]), float(result[2])) for result in results if result[0] == "held")
    assert held and len(held) + sum(result == ["refused"] for result in results) == 5
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(held))


def test_of_many_threads_on_an_object_store_no_two_hold():
    storage = Storage(f"memory://{uuid.uuid4().hex}/out")
    start, inside, most, held = threading.Barrier(6), [], [], []

    def compete() -> None:
        start.wait()
        for _ in range(5):
            try:
                with OutputLock(storage, "factory.render"):
                    inside.append(1)
                    most.append(len(inside))
                    held.append(1)
                    time.sleep(0.01)
                    inside.pop()
            except OutputInUseError:
                pass

    threads = [threading.Thread(target=compete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held and max(most) == 1 and storage.names("") == []


def test_a_holder_whose_clock_is_ahead_keeps_the_folder(storage):
    """It seems to have come later, but it has the folder."""
    claim = put(storage, since=time.time() + 1000)
    leave = threading.Timer(0.5, storage.remove, [f"_factory/locks/{claim.token}.json"])
    leave.start()
    with pytest.raises(OutputInUseError):
        OutputLock(storage, "factory.render").__enter__()
    leave.join()
