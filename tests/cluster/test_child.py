"""Child processes that crash, hang, run out of memory or lose their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_stages import CannotStart, Reserves, Work, content, wait_until
from process_tree import command, descendants, is_running

from cluster import Failure, Stage, StageError, Task
from cluster.child import Child, ChildFailure, ChildSpec

StartSupervisor = Callable[..., tuple[subprocess.Popen, list[int]]]


@pytest.fixture
def child():
    child = Child(ChildSpec.of(Work()))
    yield child
    child.kill()


def fail(child: Child, action: str, **payload: object) -> Failure:
    with pytest.raises(ChildFailure) as caught:
        child.process(Task(action, {"do": action, **payload}, "Fox"))
    return caught.value.failure


def test_the_stage_runs_in_a_new_process_with_its_own_environment() -> None:
    class_env = {"MENAGERIE_TEST": "yes", "OMP_NUM_THREADS": "2"}
    stage = Work()
    stage.child_env = class_env
    child = Child(ChildSpec.of(stage))
    try:
        outcome = child.process(Task("tell", {"do": "tell"}))
        summary = outcome.summary
        assert summary["pid"] == child.pid != os.getpid()
        env = summary["env"]
        assert (env["MENAGERIE_TEST"], env["OMP_NUM_THREADS"]) == ("yes", "2")
        assert (env["OPENBLAS_NUM_THREADS"], env["LP_NUM_THREADS"]) == ("1", "0")
        assert outcome.files == {"data/tell.bin": content("tell")}
        assert child.process(Task("again", {"do": "tell"})).summary["done"] == 2
        assert child.rss > 2**20
    finally:
        child.kill()


def test_a_segfault_is_named_with_its_stack(child: Child) -> None:
    failure = fail(child, "segfault")
    assert failure.reason == "killed by signal 11 (SIGSEGV)"
    assert "about to read address zero" in failure.detail
    assert "do_segfault" in failure.detail  # from faulthandler


def test_a_hang_is_killed_in_time_and_located(child: Child) -> None:
    start = time.monotonic()
    failure = fail(child, "hang")
    assert failure.reason == "no answer within 2 s" and time.monotonic() - start < 4
    assert "do_hang" in failure.detail


def test_an_exception_keeps_type_message_and_place(child: Child) -> None:
    failure = fail(child, "raise")
    assert failure.reason == "ValueError: Fox: mesh 'body' has no faces" and "do_raise" in failure.detail


def test_an_exit_is_a_failure(child: Child) -> None:
    assert fail(child, "exit").reason == "its process exited with status 7"


def test_memory_is_limited(child: Child) -> None:
    assert fail(child, "allocate").reason == "MemoryError (Work.memory is 2 GiB)"


def test_memory_reserved_by_setup_does_not_count() -> None:
    """Numeric libraries reserve gigabytes of address space that they never use."""
    child = Child(ChildSpec.of(Reserves()))
    try:
        assert child.process(Task("a")).files
        assert "MemoryError" in fail(child, "allocate").reason  # the control
    finally:
        child.kill()


def test_a_print_storm_neither_blocks_nor_corrupts(child: Child) -> None:
    assert child.process(Task("storm", {"do": "storm"})).files == {"data/storm.bin": content("storm")}
    assert len(child._log) <= 8000


def test_large_files_pass(child: Child) -> None:
    outcome = child.process(Task("large", {"do": "large"}))
    assert len(outcome.files["data/large.bin"]) == 64 * 2**20


def test_grandchildren_end_with_the_child(child: Child, tmp_path: Path) -> None:
    fail(child, "spawn", pid_file=str(tmp_path / "pids"))
    child.kill()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and wait_until(lambda: not any(map(is_running, pids)), 2)


def test_a_setup_that_raises_is_reported() -> None:
    with pytest.raises(ChildFailure) as caught:
        Child(ChildSpec.of(CannotStart()))
    assert caught.value.failure.reason == "RuntimeError: no EGL device"
    assert "looking for the driver" in caught.value.failure.detail


def test_closing_a_child_leaves_no_process() -> None:
    before = set(descendants(os.getpid()))
    child = Child(ChildSpec.of(Work()))
    assert set(descendants(os.getpid())) - before  # the control: it was running
    child.close()
    assert not set(descendants(os.getpid())) - before


def test_a_child_wears_out() -> None:
    stage = Work()
    stage.tasks_per_child = 2
    child = Child(ChildSpec.of(stage))
    try:
        child.process(Task("a"))
        assert not child.is_worn
        child.process(Task("b"))
        assert child.is_worn
    finally:
        child.kill()


SUPERVISOR = """
import sys, threading
from cluster.child import Child, ChildSpec
from cluster import Task
from cluster_stages import Work
stage = Work()
stage.timeout_s = 3600
children = []
def serve():
    children.append(Child(ChildSpec.of(stage)))
    children[0].process(Task("spawn", {"do": "spawn", "pid_file": sys.argv[1], "then": THEN}))
    print("answered", flush=True)
thread = threading.Thread(target=serve)
thread.start()
thread.join()
threading.Event().wait()
"""


@pytest.fixture
def supervisor(tmp_path: Path):
    started = []

    def start(then: float) -> tuple[subprocess.Popen, list[int]]:
        code = f"import sys; sys.path[:] = {sys.path!r}\n" + SUPERVISOR.replace("THEN", str(then))
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "pids")], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert wait_until(
            lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2
        )
        processes = descendants(process.pid)
        assert {int(pid) for pid in (tmp_path / "pids").read_text().split()} < set(processes)
        return process, processes

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_no_process_survives_the_supervisor(supervisor: StartSupervisor) -> None:
    """During a task and with a grandchild, the case for which a parent-death signal is not sufficient."""
    process, processes = supervisor(then=3600)
    assert len(processes) == 3 and any("read _" in command(pid) for pid in processes)
    process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_running, processes)), 3)


def test_a_child_outlives_the_thread_that_started_it(supervisor: StartSupervisor) -> None:
    process, processes = supervisor(then=0)
    assert process.stdout.readline() == "answered\n"
    time.sleep(0.3)  # the thread has ended
    assert all(map(is_running, processes))


def test_a_stage_defined_in_the_main_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(Stage):
        pass

    monkeypatch.setattr(Local, "__module__", "__main__")
    with pytest.raises(StageError, match="move it into a module"):
        ChildSpec.of(Local())
