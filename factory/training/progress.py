"""Progress of DIMO trainings: written to a file by each worker, read and displayed by the driver."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import Progress, Record, Task, atomic_path
from factory.console import Status


class ProgressWriter:
    """The `on_step` callback of a training: writes its progress to a file and says when a checkpoint is due."""

    def __init__(self, file: Path, checkpoint_s: float) -> None:
        self._file, self._checkpoint_s = file, checkpoint_s
        self._saved = time.monotonic()
        self._last = read_progress(file)  # of an attempt that was killed
        self._pace = 0.0  # seconds per step, exponential moving average

    @property
    def seconds(self) -> float:
        """Seconds of training so far, including those before a resumption."""
        return round(self._last.get("seconds", 0.0), 2)

    def __call__(self, progress: dict[str, Any]) -> bool:
        """Write the progress; True if the training should save a checkpoint now."""
        if progress["step"] > self._last.get("step", progress["step"]):
            pace = (progress["seconds"] - self._last["seconds"]) / (progress["step"] - self._last["step"])
            self._pace = 0.8 * self._pace + 0.2 * pace if self._pace else pace
        self._last = progress
        self._write({**progress, "left": self._pace * (progress["steps"] - progress["step"])})
        if time.monotonic() - self._saved < self._checkpoint_s:
            return False
        self._saved = time.monotonic()
        return True

    def stage(self, name: str) -> None:
        """Report a stage other than training, such as "measuring"."""
        self._write({**self._last, "stage": name, "left": 0.0})

    def _write(self, progress: dict[str, Any]) -> None:
        with atomic_path(self._file) as part:
            part.write_text(json.dumps(progress))


def read_progress(file: Path) -> dict[str, Any]:
    """The last progress that a training wrote; empty if there is none yet."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}


def training_status(
    progress: Progress, work: Path, tasks: Sequence[Task], results: Mapping[str, tuple[Task, Record]]
) -> Status:
    """All trainings of a run at this moment.

    Args:
        work: the folder with one folder per task key, each with its progress.json.
        results: label → task and its record, of the trainings that ended.
    """
    keys = {task.label: task.key for task in tasks}
    failed = sum(record.status != "done" for _, record in results.values())
    return Status(
        unit="trainings",
        done=len(results) - failed,
        total=len(tasks),
        seconds=progress.seconds,
        facts={"failed": failed, "workers": progress.workers},
        details={
            label: training_line(read_progress(work / keys[label] / "progress.json"))
            for label in progress.running
        },
    )


def training_line(progress: Mapping[str, Any]) -> str:
    """One training in one line: "joint  120/1000  loss 0.0123  PSNR 24.31  9 min left"."""
    if not progress:
        return "starting"
    rendered = "" if progress["psnr"] is None else f"PSNR {progress['psnr']:.2f}  "
    return (
        f"{progress['stage']}  {progress['step']}/{progress['steps']}  loss {progress['loss']:.4g}  "
        f"{rendered}{_duration(progress['left'])} left"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
