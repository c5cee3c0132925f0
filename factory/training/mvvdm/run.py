"""Train an MV-VDM on a dataset: `python -m factory.train mvvdm --data FOLDER --out OUT` (docs/training.md).

All workers train one model. Ray Train groups them (`cluster.training`); `factory.training.mvvdm.worker` is what each of
them runs. Below `--out`:

    _factory/training/<key>/    checkpoints, progress.json, validation/<step>.png, result.json
    models/mvvdm/<name>/        the model: `zoo.load("mvvdm/<name>", home=OUT)`

The same command resumes, whichever process was killed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from cluster import Ledger, Outcome, StageError, Task
from cluster.storage import Storage
from factory.training.mvvdm.job import MVVDMTrainingJob
from factory.training.mvvdm.recipe import PROGRESS, RESULT, work_folder

LINES_EVERY_S = 30.0
STAGES = ("", "autoencoder", "network", "measuring")  # of a training, in order; "" = not started


def train_model(
    job: MVVDMTrainingJob, workers: int | tuple[int, int], cpus: float, gpus: float
) -> dict[str, Any]:
    """Train, evaluate and publish a model, unless the ledger has a record of the same job.

    Args:
        job: from `job_of`.
        workers: their number, (least, most), or 0 to train in this process, without Ray.
        cpus, gpus: resources of each worker.
    Returns:
        "model": reference of the published model; then its mean metrics.
    Raises:
        StageError: it cannot be trained here, or its workers keep failing.
        StorageError: the output cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM. After each of these, the same call resumes.
    """
    ledger = Ledger(job.out)
    task = Task(job.key, {"name": job.name}, f"mvvdm/{job.name}")
    if (record := ledger.record(task.key)) is not None:
        return record.summary
    folder, started = work_folder(job.key), time.monotonic()
    progress = ProgressReporter(ledger.storage, f"{folder}/{PROGRESS}")
    from factory.training.mvvdm.worker import work  # imports torch and diffusers

    if workers == 0:
        work(job.to_json(), "cuda" if gpus else "cpu")
    else:
        from cluster.training import Group, train_together

        train_together(
            work,
            job.to_json(),
            ledger.storage,
            Group(workers, cpus, gpus),
            name=job.key,
            progress=progress.position,
            on_tick=progress.tick,
        )
    data = ledger.storage.read(f"{folder}/{RESULT}")
    if data is None:
        raise StageError(
            f"{job.out}/{folder}/{RESULT}: the workers ended without writing it; run the command again"
        )
    return ledger.commit(task, Outcome("done", json.loads(data)), time.monotonic() - started).summary


class ProgressReporter:
    """Report the progress that the first worker writes to the storage."""

    def __init__(self, storage: Storage, file: str) -> None:
        self._storage, self._file = storage, file
        self._next = 0.0

    def _read(self) -> dict[str, Any]:
        return json.loads(self._storage.read(self._file) or b"{}")

    def position(self) -> int:
        """A number that grows from step to step and from stage to stage."""
        progress = self._read()
        return STAGES.index(progress.get("stage", "")) * 10**9 + progress.get("step", 0)

    def tick(self) -> None:
        """Print a line, at most every 30 s."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINES_EVERY_S
            print(progress_line(self._read()), file=sys.stderr, flush=True)


def progress_line(progress: Mapping[str, Any]) -> str:
    """One line: stage, steps, loss, how the time of a step is divided, and minutes left."""
    if "step" not in progress:
        return progress.get("stage", "starting")
    per_step = progress["seconds"] / progress["step"]
    left = per_step * (progress["steps"] - progress["step"])
    shares = ", ".join(
        f"{part} {progress[part]:.0%}" for part in ("loader", "forward", "backward", "optimiser")
    )
    return (
        f"{progress['stage']}  {progress['step']}/{progress['steps']}  loss {progress['loss']:.4g}  "
        f"{progress['workers']} workers  {per_step:.2f} s a step: {shares}; {left / 60:.0f} min left"
    )
