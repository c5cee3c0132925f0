"""Runs on an embedded Ray."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray
from cluster_stages import CannotStart, Work, content, wait_until
from process_tree import command, descendants, is_running

import cluster.progress
from cluster import (
    Interrupted,
    Ledger,
    Progress,
    Record,
    StageError,
    Storage,
    StorageError,
    Task,
    read_status,
    run,
)

pytestmark = pytest.mark.usefixtures("session")


def actors() -> list[int]:
    return [pid for pid in descendants(os.getpid()) if command(pid).startswith("ray::Worker")]


class _Mallinfo(ctypes.Structure):
    """Of the C library: `struct mallinfo2`."""

    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(7)] + [
        (name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")
    ]


def heap_in_use() -> int:
    """Bytes that this process has allocated from the C library's main heap."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Mallinfo
    return mallinfo().uordblks


def children() -> list[int]:
    commands = {pid: command(pid) for pid in descendants(os.getpid())}
    return [pid for pid, line in commands.items() if "cluster.child" in line or "read _" in line]


def test_every_task_ends_once_with_its_true_cause(tmp_path: Path) -> None:
    causes = {
        "segfault": "killed by signal 11 (SIGSEGV)",
        "hang": "no answer within 2 s",
        "raise": "ValueError: raise: mesh 'body' has no faces",
        "exit": "its process exited with status 7",
        "allocate": "MemoryError (Work.memory is 2 GiB)",
    }
    tasks = [Task(f"t{i}") for i in range(40)]
    for place, action in enumerate(causes):
        tasks.insert(7 * place, Task(action, {"do": action}))
    follow_up = [{"key": f"clip{i}", "payload": {}, "label": ""} for i in range(5)]
    tasks.append(Task("asset", {"follow_up": follow_up}))
    ledger, resolved, ticks = Ledger(tmp_path), [], []
    report = run(
        Work(),
        tasks + tasks,
        ledger,
        workers=2,
        on_resolved=lambda task, record: resolved.append(task.key),
        on_tick=ticks.append,
    )
    assert report.counts == {"done": 46, "quarantined": 5} and report.total == 51
    assert sorted(resolved) == sorted({task.key for task in tasks} | {f"clip{i}" for i in range(5)})
    for key, cause in causes.items():
        assert ledger.record(key).reason == cause and ledger.record(key).attempts == 3
    assert report.reasons == {"quarantined": dict.fromkeys(causes.values(), 1)}
    assert report.children_restarted >= 14 and report.actors_lost == 0
    assert len(report.busy_s) == 2 and 0.1 < report.utilisation <= 1
    assert ledger.storage.read("data/t0.bin") == content("t0")
    assert ticks[-1].workers <= 2 and any(tick.running for tick in ticks)

    again = []
    report = run(
        Work(), tasks, Ledger(tmp_path), workers=2, on_resolved=lambda task, record: again.append(task.key)
    )
    assert report.resumed == report.total == 51 and sorted(again) == sorted(resolved)

    assert Ledger(tmp_path).retry_quarantined() == 5
    report = run(Work(), [Task("raise", {"do": "well"})], Ledger(tmp_path), workers=1)
    assert report.counts == {"done": 1} and report.resumed == 0


def test_a_run_leaves_no_process(tmp_path: Path) -> None:
    run(Work(), [Task("a")], Ledger(tmp_path), workers=1)
    assert wait_until(lambda: not actors() and not children(), 5)


def test_a_stage_that_cannot_start_fails_the_job(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(
        StageError, match="CannotStart cannot start, tried 3 times: RuntimeError: no EGL device"
    ):
        run(CannotStart(), [Task(f"t{i}") for i in range(9)], ledger, workers=2)
    assert not list(ledger) and ledger.attempts("t0") == []


def test_a_task_that_kills_its_workers_is_quarantined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What Ray has to say about the lost workers is logged, and not printed."""
    ledger = Ledger(tmp_path)
    with caplog.at_level("INFO", logger="cluster"):
        report = run(Work(), [Task("a"), Task("kills", {"do": "kill_worker"}), Task("b")], ledger, workers=2)
    assert report.counts == {"done": 2, "quarantined": 1} and report.actors_lost == 5
    assert ledger.record("kills").reason == "worker lost 5 times"
    assert wait_until(lambda: "A worker died or was killed" in caplog.text) and capsys.readouterr().out == ""


def test_a_full_disk_stops_the_run_and_it_resumes(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        tasks = [Task(f"t{i}") for i in range(100)]
        with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/.*No space left"):
            run(Work(), tasks, Ledger(tmp_path), workers=2)
        committed = len(list(Ledger(tmp_path)))
        assert 5 < committed < 100
        subprocess.run(["mount", "-o", "remount,size=8m", tmp_path], check=True)
        report = run(Work(), tasks, Ledger(tmp_path), workers=2)
        assert report.counts == {"done": 100} and report.resumed == committed
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_an_interrupt_stops_cleanly_and_names_how_to_resume(tmp_path: Path, number: signal.Signals) -> None:
    tasks = [Task(f"t{i}", {"seconds": 0.02}) for i in range(80)]

    def interrupt(task: Task, record: Record):
        if task.key == "t20":
            threading.Timer(0.01, os.kill, [os.getpid(), number]).start()

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="run the same command again to resume") as caught:
        run(Work(), tasks, Ledger(tmp_path), workers=2, on_resolved=interrupt)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert 20 <= caught.value.report.total < 80
    assert wait_until(lambda: not actors() and not children(), 5)
    report = run(Work(), tasks, Ledger(tmp_path), workers=2)
    assert report.counts == {"done": 80} and report.resumed >= caught.value.report.total


def test_a_long_source_is_pulled_lazily(tmp_path: Path) -> None:
    pulled = []

    def source():
        for number in range(100_000):
            pulled.append(number)
            yield Task(f"t{number}", {"seconds": 0.01})

    def stop(task: Task, record: Record):
        if len(pulled) > 10 and task.key == "t20":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run(Work(), source(), Ledger(tmp_path), workers=2, on_resolved=stop, max_in_backlog=30)
    assert len(pulled) < 80


RAYLET = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
time.sleep(3600)
"""

WORKER = """
from cluster import Ledger, Task
from cluster.child import ChildSpec
from cluster.worker import Worker
from cluster_stages import Work
stage = Work()
stage.timeout_s = 3600
task = Task("spawn", {"do": "spawn", "pid_file": sys.argv[2]})
Worker(ChildSpec.of(stage), Ledger(sys.argv[1])).process(task)
"""


def test_a_worker_without_its_raylet_ends_itself_and_its_child(tmp_path: Path) -> None:
    """It must not keep committing after Ray has declared its machine dead."""
    worker = f"import sys; sys.path[:] = {sys.path!r}" + WORKER
    pid_file = tmp_path / "pids"
    raylet = subprocess.Popen([sys.executable, "-c", RAYLET, worker, tmp_path, pid_file])
    try:
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text(), 20)
        processes = descendants(raylet.pid)
        assert len(processes) == 4  # the worker, its child, the guard, the grandchild
    finally:
        raylet.kill()
        raylet.wait()
    assert wait_until(lambda: not any(map(is_running, processes)), 3)


def test_memory_urls_are_refused() -> None:
    with pytest.raises(ValueError, match="run_inline"):
        run(Work(), [Task("a")], Ledger("memory://nowhere"))


def test_missing_resources_are_reported_at_once(tmp_path: Path) -> None:
    stage = Work()
    stage.num_gpus = 3.0
    with pytest.raises(StageError, match=r"needs 1 CPUs and 3 GPUs"):
        run(stage, [Task("a")], Ledger(tmp_path))


def test_memory_stays_steady(tmp_path: Path) -> None:
    """500 tasks through one worker: neither its child nor the actor may grow by more than a tenth."""
    sizes = {"child": [], "actor": []}

    def watch(task: Task, record: Record):
        for process, size in record.summary.items():
            sizes[process].append(size)

    tasks = [Task(f"t{i}", {"do": "measure"}) for i in range(500)]
    report = run(Work(), tasks, Ledger(tmp_path), workers=1, on_resolved=watch)
    assert report.children_restarted == 0
    for pages in sizes.values():
        assert len(pages) == 500 and max(pages) <= 1.1 * pages[10]


def test_ray_lists_the_tasks_by_names_that_a_person_understands(tmp_path: Path) -> None:
    labels = {"a": "Fox, clip 3", "b": "fox\0\x1b[2J\udcff.glb"}
    tasks = [Task(key, {"do": "title"}, label) for key, label in labels.items()]
    titles = {}
    run(
        Work(),
        tasks,
        Ledger(tmp_path),
        workers=1,
        on_resolved=lambda task, record: titles.update({task.key: record.summary["title"]}),
    )
    assert titles["a"].startswith("ray::Worker, Work: Fox, clip 3"), titles
    assert titles["b"].startswith("ray::Worker, Work: fox??[2J?.glb"), titles


def test_all_calls_of_a_stage_have_one_name(tmp_path: Path) -> None:
    """Ray keeps a metric series for each name for as long as it runs, in the driver and elsewhere."""
    tasks = [Task(f"t{i}", {"seconds": 1.5}, f"label {i}") for i in range(2)]  # workers report every second
    run(Work(), tasks, Ledger(tmp_path), workers=1)
    name = "task::Worker, Work"  # the same Ray has also run stages of other tests

    def names() -> set[str]:
        return {event["cat"] for event in ray.timeline() if event["cat"].startswith(name)}

    assert wait_until(names, 20) and names() == {name}


@pytest.mark.slow
def test_the_driver_does_not_grow_with_the_number_of_tasks(tmp_path: Path) -> None:
    """What it keeps of a task is 48 bytes; with a name for each call, Ray would keep 1.5 KB in the same heap."""
    used: dict[int, int] = {}

    def measure(progress: Progress) -> None:
        gc.collect()
        used[sum(progress.counts.values())] = heap_in_use()

    tasks = (Task(f"t{i}", {}, f"label {i}") for i in range(10_000))
    run(Work(), tasks, Ledger(tmp_path), workers=2, on_tick=measure)
    first, last = min(count for count in used if count >= 3000), max(used)
    growth = (used[last] - used[first]) / (last - first)
    print(f"{growth:.0f} bytes a task from {first} to {last}")
    assert last - first >= 5000 and growth < 300


def test_the_progress_file_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as another process would, while the run goes on."""
    monkeypatch.setattr(cluster.progress, "WRITE_S", 0.1)
    seen = []
    tasks = [
        Task("slow", {"seconds": 1.5}, "Slow"),
        Task("bad", {"do": "raise"}),
        Task("x", {"do": "kill_worker"}),
    ]

    def on_tick(progress: Progress) -> None:
        if (status := read_status(Storage(tmp_path))) is not None:
            seen.append(status)

    run(Work(), tasks[:2], Ledger(tmp_path), workers=2, on_tick=on_tick)
    assert {each.state for each in seen} == {"running"}
    assert any(task.label == "Slow" for each in seen for task in each.run.longest)
    last = read_status(Storage(tmp_path))
    assert last.state == "finished" and last.counts == {"done": 1, "quarantined": 1}
    assert last.run.retries == {"ValueError: bad: mesh 'body' has no faces": 2}
    assert last.run.slowest[0].label == "Slow" and ":" in last.run.slowest[0].worker
    run(Work(), tasks[2:], Ledger(tmp_path), workers=1)
    last = read_status(Storage(tmp_path))
    assert last.run.workers_lost == 5 and last.failing["worker lost 5 times"] == 1
