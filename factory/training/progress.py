"""Progress of trainings: written by each worker, displayed by the driver."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import Progress, Record, Task, atomic_path

TABLE_EVERY_S, LINES_EVERY_S = 2.0, 30.0


class _Teller:
    """What `train` calls: tells the driver how far it is, and asks for checkpoints."""

    def __init__(self, file: Path, checkpoint_s: float) -> None:
        self._file, self._checkpoint_s = file, checkpoint_s
        self._saved = time.monotonic()
        self._last = read_progress(file)  # of an attempt that was killed
        self._pace = 0.0  # seconds a step, of late

    @property
    def seconds(self) -> float:
        """Of training, those before a resumption included."""
        return round(self._last.get("seconds", 0.0), 2)

    def __call__(self, progress: dict[str, Any]) -> bool:
        if progress["step"] > self._last.get("step", progress["step"]):
            pace = (progress["seconds"] - self._last["seconds"]) / (progress["step"] - self._last["step"])
            self._pace = 0.8 * self._pace + 0.2 * pace if self._pace else pace
        self._last = progress
        self._tell({**progress, "left": self._pace * (progress["steps"] - progress["step"])})
        if time.monotonic() - self._saved < self._checkpoint_s:
            return False
        self._saved = time.monotonic()
        return True

    def stage(self, name: str) -> None:
        """Something else than training has begun."""
        self._tell({**self._last, "stage": name, "left": 0.0})

    def _tell(self, what: dict[str, Any]) -> None:
        with atomic_path(self._file) as part:
            part.write_text(json.dumps(what))


def read_progress(file: Path) -> dict[str, Any]:
    """What a training told last; empty if it has not told anything yet."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}


class _Table:
    """What is being trained: redrawn in place on a terminal, printed now and then elsewhere."""

    def __init__(self, work: Path, tasks: Sequence[Task], results: dict[str, tuple[Task, Record]]) -> None:
        self._work, self._results = work, results
        self._keys = {task.label: task.key for task in tasks}
        self._live = sys.stderr.isatty()
        self._drawn = 0
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + (TABLE_EVERY_S if self._live else LINES_EVERY_S)
        running = {
            label: read_progress(self._work / self._keys[label] / "progress.json")
            for label in progress.running
        }
        given_up = sum(record.status != "done" for _, record in self._results.values())
        head = (
            f"[{progress.seconds:5.0f} s] trained {len(self._results) - given_up}/{len(self._keys)}, "
            f"given up {given_up}, {progress.workers} workers"
        )
        self.clear()
        lines = [head, *progress_table(running)]
        print("\n".join(lines), file=sys.stderr, flush=True)
        self._drawn = len(lines)

    def clear(self) -> None:
        """Take the table off the terminal, so that what comes next stands in its place."""
        if self._live and self._drawn:
            print(f"\x1b[{self._drawn}A\x1b[J", end="", file=sys.stderr, flush=True)
        self._drawn = 0


def progress_table(running: dict[str, dict[str, Any]]) -> list[str]:
    """Lines, a training each. `running`: label → what it told last, empty before it does."""
    if not running:
        return []
    width = max(6, *(len(label) for label in running))
    lines = [f"  {'object':{width}}  {'stage':9}  {'step':>13}  {'loss':>9}  {'PSNR':>6}  {'left':>8}"]
    for label, told in sorted(running.items()):
        if not told:
            lines.append(f"  {label:{width}}  starting")
            continue
        steps = f"{told['step']}/{told['steps']}"
        lines.append(
            f"  {label:{width}}  {told['stage']:9}  {steps:>13}  {told['loss']:9.4g}  {told['psnr']:6.2f}  "
            f"{_duration(told['left']):>8}"
        )
    return lines


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
