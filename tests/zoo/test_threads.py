"""The number of threads is that of the free CPUs, and never more than the user set; it is restored."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo import threads
from zoo.threads import fitting_threads, free_cpus, worker_threads


class Machine:
    """A machine with a load of our choice: /proc, cgroups, affinity, and this process's own use of CPUs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.now, self.busy, self.own = 100.0, {}, 0.0
        self.slept: list[float] = []
        (folder / "proc/self").mkdir(parents=True)
        monkeypatch.setattr(threads, "PROC", folder / "proc")
        monkeypatch.setattr(threads, "CGROUP", folder / "cgroup")
        # Of this module only: threads that other tests left behind sleep, too.
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(threads, "time", clock)
        monkeypatch.setattr(threads.os, "times", lambda: os.times_result((self.own, 0.0, 0.0, 0.0, self.now)))
        self.loads, self.own_load = {}, 0.0
        self.set(cpus=4)

    def set(self, cpus: int, others: dict[int, float] | None = None, own: float = 0.0) -> None:
        """From now on, other processes use these shares of the CPUs, and this process uses `own` CPUs of the first."""
        self.monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)
        self.loads, self.own_load = others or {}, own
        self.write()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for cpu, load in self.loads.items():
            self.busy[cpu] = self.busy.get(cpu, 0.0) + load * seconds
        self.busy[0] = self.busy.get(0, 0.0) + self.own_load * seconds
        self.own += self.own_load * seconds
        self.write()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        own, self.own_load = self.own_load, 0.0  # a sleeping process uses no CPU
        self.pass_time(seconds)
        self.own_load = own

    def write(self) -> None:
        tick = os.sysconf("SC_CLK_TCK")
        lines = ["cpu  9 9 9 9 9 9 9 9 0 0"]
        for cpu in range(64):
            busy = round(self.busy.get(cpu, 0.0) * tick)
            nice, irq = busy // 3, busy // 5  # niced processes and interrupts occupy a CPU too
            lines.append(f"cpu{cpu} {busy - nice - irq} {nice} 0 12345 67 {irq} 0 0 0 0")
        (self.folder / "proc/stat").write_text("\n".join([*lines, "intr 1 2 3", "procs_running 9"]))

    def limit(self, files: dict[str, str], groups: str) -> None:
        """Set files below /sys/fs/cgroup, and the content of /proc/self/cgroup."""
        for name, text in files.items():
            (self.folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "cgroup" / name).write_text(text)
        (self.folder / "proc/self/cgroup").write_text(groups)


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    machine = Machine(tmp_path, monkeypatch)
    monkeypatch.setattr(threads, "_others", None)
    monkeypatch.setattr(threads, "_last", threads._measure())
    return machine


@pytest.fixture
def four():
    """The user's setting; the tests run with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cpus", "others", "own", "free"),
    [
        (4, {}, 0.0, 4),
        (4, {1: 1.0}, 0.0, 3),  # a busy loop beside us
        (4, {1: 1.0, 2: 1.0, 3: 1.0}, 0.0, 1),
        (4, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, 0.0, 1),  # never none
        (2, {1: 1.0}, 0.0, 1),
        (2, {}, 2.0, 2),  # our own threads are not other processes
        (2, {1: 1.0}, 1.0, 1),
        (4, {1: 0.1, 2: 0.1}, 0.0, 4),  # a desktop's background
        (4, {1: 0.6}, 0.0, 3),
        (4, {9: 1.0, 10: 1.0, 11: 1.0}, 0.0, 4),  # CPUs that this process may not use anyway
        (1, {}, 0.0, 1),
        (64, dict.fromkeys(range(64), 0.5), 0.0, 32),
    ],
)
def test_cpus_that_others_use_are_not_free(machine, cpus, others, own, free):
    machine.set(cpus, others, own)
    machine.pass_time(5.0)
    assert free_cpus() == free and not machine.slept


def test_the_measurement_is_recent(machine):
    """What happened an hour ago does not count, nor does the load that this process made itself."""
    machine.set(4, {1: 1.0, 2: 1.0})
    machine.pass_time(3600.0)
    machine.set(4, {})
    assert free_cpus() == 4 and machine.slept == [threads.WINDOW_S]
    machine.set(4, {1: 1.0})
    assert free_cpus() == 4 and len(machine.slept) == 1  # within a second, it is not measured again
    machine.pass_time(2.0)
    assert free_cpus() == 3 and len(machine.slept) == 1  # since the last measurement
    machine.set(4, {}, own=4.0)
    machine.pass_time(10.0)
    assert free_cpus() == 4 and len(machine.slept) == 1


@pytest.mark.parametrize(
    ("files", "groups", "free"),
    [
        ({"cpu.max": "max 100000"}, "0::/", 4),
        ({"cpu.max": "200000 100000"}, "0::/", 2),
        ({"cpu.max": "150000 100000"}, "0::/", 1),
        ({"cpu.max": "50000 100000"}, "0::/", 1),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, "0::/a/b", 3),  # of a parent
        ({"cpu.max": "200000 100000"}, "0::/docker/of/the/host", 2),  # inside a container
        (
            {"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"},
            "3:cpuset:/x\n1:cpu:/x",
            2,
        ),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/",
            3,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", 4),
        ({"cpu.max": "nonsense"}, "0::/", 4),
        ({}, "0::/", 4),
    ],
)
def test_quotas_of_groups(machine, files, groups, free):
    machine.limit(files, groups)
    machine.pass_time(1.5)
    assert free_cpus() == free


def test_without_proc_the_load_average_tells(machine, monkeypatch):
    (machine.folder / "proc/stat").unlink()
    monkeypatch.setattr(threads, "_last", None)
    for load, free in ((0.1, 4), (1.0, 3), (2.9, 1), (50.0, 1)):
        monkeypatch.setattr(threads.os, "getloadavg", lambda load=load: (load, 9.0, 9.0))
        assert free_cpus() == free
    monkeypatch.delattr(threads.os, "getloadavg")
    assert free_cpus() == 4


@pytest.mark.parametrize(("free", "used"), [(1, 1), (2, 2), (3, 3), (4, 4), (16, 4)])
def test_threads_are_never_more_than_the_user_set(four, monkeypatch, free, used):
    monkeypatch.setattr(threads, "free_cpus", lambda: free)
    from renderers.gaussians import get_threads

    with fitting_threads() as count:
        assert count == torch.get_num_threads() == get_threads() == used
        with fitting_threads() as inner:  # a library call within a command
            assert inner == used
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == 4
    with pytest.raises(KeyError), fitting_threads():
        raise KeyError
    assert torch.get_num_threads() == 4


def test_a_single_thread_needs_no_measurement(four, monkeypatch):
    monkeypatch.setattr(threads, "free_cpus", None)  # a call would raise
    torch.set_num_threads(1)
    with fitting_threads() as count:
        assert count == 1


def test_other_threads_of_the_process_keep_theirs(four, monkeypatch):
    monkeypatch.setattr(threads, "free_cpus", lambda: 1)
    counts = []

    def other() -> None:
        torch.get_num_threads()  # torch initialises each thread at its first use
        torch.set_num_threads(3)
        started.set()
        inside.wait(10)
        counts.append(torch.get_num_threads())

    started, inside = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    started.wait(10)
    with fitting_threads():
        inside.set()
        thread.join()
    assert counts == [3] and torch.get_num_threads() == 4


def test_workers(four, monkeypatch):
    monkeypatch.setattr(threads, "free_cpus", lambda: 2)
    for workers, expected in ((0, 2), (None, 4), (1, 4), ((1, 2), 4)):
        with worker_threads(workers):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 4


# --- who uses it -------------------------------------------------------------------------------------


@pytest.fixture
def seen(four, monkeypatch) -> list[int]:
    """Number of threads at each of the measured places; one CPU is free."""
    monkeypatch.setattr(threads, "free_cpus", lambda: 1)
    return []


def test_sampling_videos(seen):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    from tiny_mvvdm import tiny_videos_pipeline

    pipeline = tiny_videos_pipeline()
    predict = pipeline.predict
    pipeline.predict = lambda *args: [seen.append(torch.get_num_threads()), predict(*args)][1]
    pipeline.sample(3)
    pipeline(np.zeros((2, 8, 8, 3), np.uint8), "hops", num_inference_steps=1)
    assert seen == [1, 1, 1] and torch.get_num_threads() == 4


@pytest.mark.parametrize("command", [["sample", "dimo/egg"], ["render", "dimo/egg", "--resolution", "16"]])
def test_commands_of_the_zoo(seen, monkeypatch, tmp_path, command):
    from tiny_dimo import tiny_pipeline

    import zoo
    import zoo.commands
    from zoo.__main__ import main
    from zoo.dimo import Motion

    zoo.publish(tiny_pipeline(), "local:dimo/egg", home=tmp_path)
    gaussians = Motion.gaussians
    monkeypatch.setattr(
        Motion, "gaussians", lambda *args: [seen.append(torch.get_num_threads()), gaussians(*args)][1]
    )
    out = ["--frames", "2", "--out", str(tmp_path / "x.mp4"), "--home", str(tmp_path)]
    assert main([*command, *out]) == 0
    assert set(seen) == {1} and torch.get_num_threads() == 4


class Stopped(Exception):
    """Raised instead of the work."""


@pytest.fixture
def work(seen):
    def record(*args: object, **options: object) -> None:
        seen.append(torch.get_num_threads())
        raise Stopped

    return record


@pytest.mark.parametrize(("workers", "count"), [(0, 1), (2, 4), (None, 4)])
def test_training_and_captioning_in_this_process(seen, work, monkeypatch, tmp_path, workers, count):
    from cluster import Ledger
    from factory.dataset import captioning
    from factory.training import dimo

    for module in (dimo, captioning):
        monkeypatch.setattr(module, "run", work)
    monkeypatch.setattr(captioning, "caption_tasks", lambda *args: [])
    with pytest.raises(Stopped):
        dimo.train_objects([], dimo.DimoStage(str(tmp_path)), None, Ledger(tmp_path), workers=workers)
    with pytest.raises(Stopped):
        captioning.caption_dataset(tmp_path, None, workers=workers)
    assert seen == [count, count]


def test_training_videos_in_this_process(seen, work, monkeypatch, tmp_path):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    import factory.training.mvvdm.worker
    from factory.training.mvvdm.run import train_model

    monkeypatch.setattr(factory.training.mvvdm.worker, "work", work)
    job = SimpleNamespace(out=str(tmp_path), key="abc", name="x", to_json=dict)
    with pytest.raises(Stopped):
        train_model(job, 0, 1.0, 0.0)
    assert seen == [1]


def test_a_quiet_machine_is_found_quiet():
    """Without any fake: the numbers of the machine that runs this are possible ones."""
    assert 1 <= free_cpus() <= threads._cpus()
    assert 0 < threads._quota() <= math.inf
