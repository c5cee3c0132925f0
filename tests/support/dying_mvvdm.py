"""`dying_mvvdm.py STEP DATA OUT [OPTION …]`: run the command and kill its last worker at a step, once."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train_mvvdm_driver

import factory.train
from factory.training.mvvdm import options, worker
from factory.training.mvvdm.job import MVVDMTrainingJob
from zoo.mvvdm import training

_work, _advance = worker.work, training.TrainingRun.advance


@dataclass(frozen=True)
class DyingJob(MVVDMTrainingJob):
    """A job whose last worker is killed at step `dies_at` of the network."""

    dies_at: int = 0


def work(job: dict[str, Any], device: str) -> None:
    job = dict(job)
    dies_at, marker = job.pop("dies_at"), Path(job["out"], "died")

    def advance(run: training.TrainingRun, source: Any) -> None:
        is_victim = run.rank == run.size - 1 and run.plan.steps > 2
        if run.step == dies_at and is_victim and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        _advance(run, source)

    training.TrainingRun.advance = advance
    _work(job, device)


def main(argv: list[str]) -> int:
    import dying_mvvdm  # under this name the workers can import it

    (step, data, out, *more), job_of = argv, options.job_of
    options.job_of = lambda *args: dying_mvvdm.DyingJob(**vars(job_of(*args)), dies_at=int(step))
    worker.work = dying_mvvdm.work
    try:
        return factory.train.main(train_mvvdm_driver.arguments(Path(data), Path(out), *more))
    finally:
        options.job_of, worker.work = job_of, _work


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
