"""The command with a worker that dies: `dying_mvvdm.py STEP DATA OUT [OPTION …]` kills the last one there, once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import train_mvvdm_driver

import factory.train
from factory.training.mvvdm import options, worker
from zoo.mvvdm import training

_work, _advance = worker.work, training.TrainingRun.advance


def work(job: dict[str, Any], device: str) -> None:
    told = Path(job["out"], "died")

    def advance(run: training.TrainingRun, source: Any) -> None:
        if (
            run.step == job["dies_at"]
            and run.rank == run.size - 1
            and run.plan.steps > 2
            and not told.exists()
        ):
            told.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        _advance(run, source)

    training.TrainingRun.advance = advance
    _work(job, device)


def main(argv: list[str]) -> int:
    import dying_mvvdm  # by its name, by which workers find it

    (step, data, out, *more), told = argv, options.job_of
    options.job_of = lambda *what: {**told(*what), "dies_at": int(step)}
    worker.work = dying_mvvdm.work
    try:
        return factory.train.main(train_mvvdm_driver.arguments(Path(data), Path(out), *more))
    finally:
        options.job_of, worker.work = told, _work


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
