"""Time to start, in fresh processes, against the promised bars: `python -m benchmarks.start [runs]`.

Prints wall and CPU time (user and system) of the fastest of several runs. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time

DIMO = "import zoo; zoo.load('dimo/kangaroo').sample(7).save('hop.mp4')"
MVVDM = "import zoo; zoo.load('mvvdm/tiny').sample(0).save('views.mp4')"
# What is measured, the most seconds, whether kernels are compiled, arguments of Python.
ROWS = [
    ("import zoo", 0.1, False, ["-c", "import zoo"]),
    ("zoo list", 0.7, False, ["-m", "zoo", "list"]),
    *((f"zoo {name} --help", 0.7, False, ["-m", "zoo", name, "--help"]) for name in ("sample", "view", "evaluate")),
    *(
        (f"{name} --help", 0.7, False, ["-m", *name.split(), "--help"])
        for name in (
            "factory.render", "factory.motions", "factory.train dimo", "factory.train mvvdm",
            "factory.curate", "factory.publish", "factory.evaluate", "factory.status",
        )
    ),
    ("DIMO's first video", 3.0, False, ["-c", DIMO]),
    ("zoo sample dimo/kangaroo", 3.0, False, ["-m", "zoo", "sample", "dimo/kangaroo", "--out", "hop.mp4"]),
    ("DIMO's first video, cold kernels", 6.0, True, ["-c", DIMO]),
    ("MV-VDM's first video", 12.0, False, ["-c", MVVDM]),
]  # fmt: skip


def measure(arguments: list[str], folder: str, cold: bool) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process."""
    environment = dict(os.environ)
    if cold:
        environment["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=folder)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-P", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(runs: int = 3) -> int:
    """Print the table."""
    missed = 0
    print(f"{'':34}{'bar':>6}{'wall':>8}{'CPU':>8}")
    with tempfile.TemporaryDirectory() as folder:
        measure(["-c", DIMO], folder, cold=False)  # caches the kernels
        for name, bar, cold, arguments in ROWS:
            wall, cpu = (
                min(times)
                for times in zip(*(measure(arguments, folder, cold) for _ in range(runs)), strict=True)
            )
            missed += wall > bar
            print(f"{name:34}{bar:6.1f}{wall:8.2f}{cpu:8.2f}{'  missed' if wall > bar else ''}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
