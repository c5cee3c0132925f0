"""Train an MV-VDM on a dataset: `python -m factory.train mvvdm --data FOLDER --out OUT` (docs/training.md).

All workers train one model. Ray Train groups them (`cluster.training`); `factory.training.mvvdm.worker` is what each of
them runs. Below `--out`:

    _factory/training/<key>/    checkpoints, progress.json, validation/<step>.png, result.json
    models/mvvdm/<name>/        the model: `zoo.load("mvvdm/<name>", home=OUT)`

The same command resumes, whichever process was killed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cluster import Ledger, Outcome, StageError, Task
from cluster.storage import Storage
from factory.console import Show, Status
from factory.training.mvvdm.job import MVVDMTrainingJob
from factory.training.mvvdm.recipe import PROGRESS, RESULT, work_folder
from zoo.threads import worker_threads

STAGES = ("", "autoencoder", "network", "measuring")  # of a training, in order; "" = not started


def train_model(
    job: MVVDMTrainingJob,
    workers: int | tuple[int, int],
    cpus: float,
    gpus: float,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train, evaluate and publish a model, unless the ledger has a record of the same job.

    Args:
        job: from `job_of`.
        workers: their number, (least, most), or 0 to train in this process, without Ray.
        cpus, gpus: resources of each worker.
        show: receives the state of the training now and then.
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
    progress = _ProgressReader(ledger.storage, f"{folder}/{PROGRESS}")
    from factory.training.mvvdm.worker import work  # imports torch and diffusers

    def on_tick() -> None:
        if show:
            show(lambda: training_status(progress.read(), time.monotonic() - started))

    if workers == 0:
        with worker_threads(workers), _ticking(on_tick):
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
            on_tick=on_tick,
        )
    data = ledger.storage.read(f"{folder}/{RESULT}")
    if data is None:
        raise StageError(
            f"{job.out}/{folder}/{RESULT}: the workers ended without writing it; run the command again"
        )
    return ledger.commit(task, Outcome("done", json.loads(data)), time.monotonic() - started).summary


class _ProgressReader:
    """Reads the progress that the first worker writes to the storage."""

    def __init__(self, storage: Storage, file: str) -> None:
        self._storage, self._file = storage, file

    def read(self) -> dict[str, Any]:
        """The last progress written; empty if there is none yet."""
        return json.loads(self._storage.read(self._file) or b"{}")

    def position(self) -> int:
        """A number that grows from step to step and from stage to stage."""
        progress = self.read()
        return STAGES.index(progress.get("stage", "")) * 10**9 + progress.get("step", 0)


@contextmanager
def _ticking(on_tick: Callable[[], None]) -> Iterator[None]:
    """Call `on_tick` every second from a thread while this process trains, as the cluster's driver does."""
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(1.0):
            on_tick()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def training_status(progress: Mapping[str, Any], seconds: float) -> Status:
    """The training at this moment: stage, steps, loss, and how the time of a step is divided.

    Args:
        progress: as the first worker wrote it. seconds: since this command started.
    """
    if "step" not in progress:
        return Status("steps", 0, None, seconds, facts={"stage": progress.get("stage", "starting")})
    per_step = progress["seconds"] / progress["step"]
    return Status(
        unit="steps",
        done=progress["step"],
        total=progress["steps"],
        seconds=seconds,
        facts={
            "stage": progress["stage"],
            "loss": f"{progress['loss']:.4g}",
            "workers": progress["workers"],
            "s/step": f"{per_step:.2f}",
            **{part: f"{progress[part]:.0%}" for part in ("loader", "forward", "backward", "optimiser")},
            "minutes left": round(per_step * (progress["steps"] - progress["step"]) / 60),
        },
    )
