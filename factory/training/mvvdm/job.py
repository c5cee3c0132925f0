"""A dataset in, an MV-VDM out: `python -m factory.train mvvdm --data FOLDER --out OUT` (docs/training.md).

One model, many workers: Ray Train keeps them together (cluster/training.py), what each of them does stands in
factory/mvvdm_work.py. Below `--out`:

    _factory/training/<key>/    checkpoints, progress.json, validation/<step>.png, result.json
    models/mvvdm/<name>/        the model: `zoo.load("mvvdm/<name>", home=OUT)` loads it

The same command resumes, whatever was killed.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import Ledger, Outcome, Task, task_key
from cluster.storage import Storage
from factory.console import Show, Status
from factory.dataset.reader import ClipDataset, load_clips
from factory.training.mvvdm.recipe import PARTS, PROGRESS, RESULT, TRAINING_VERSION, MVVDMRecipe, work_folder

if TYPE_CHECKING:
    from factory.dataset.reader import ClipDataset


def train_model(
    job: dict[str, Any],
    workers: int | tuple[int, int],
    cpus: float,
    gpus: float,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train and publish what a job says, once; where it is, and the figures of its metrics.

    Args:
        job: of `job_of`. workers: how many, (least, most), or 0 for this process, without Ray. cpus, gpus: of each.
    Raises:
        StageError: it cannot be trained here. StorageError: the output cannot be written. KeyboardInterrupt.
        The same call resumes.
    """
    ledger = Ledger(job["out"])
    task = Task(job["key"], {"name": job["name"]}, f"mvvdm/{job['name']}")
    if (record := ledger.record(task.key)) is not None:
        return record.summary
    folder, started = work_folder(job["key"]), time.monotonic()
    reader = _ProgressReader(ledger.storage, f"{folder}/{PROGRESS}")

    def on_tick() -> None:
        if show:
            show(lambda: training_status(reader.read(), time.monotonic() - started))

    if workers == 0:
        from factory.training.mvvdm.worker import work

        with _ticking(on_tick):
            work(job, "cuda" if gpus else "cpu")
    else:
        from cluster.training import Group, train_together
        from factory.training.mvvdm.worker import work

        train_together(
            work,
            job,
            ledger.storage,
            Group(workers, cpus, gpus),
            name=job["key"],
            progress=reader.progress,
            on_tick=on_tick,
        )
    result = json.loads(ledger.storage.read(f"{folder}/{RESULT}"))
    return ledger.commit(task, Outcome("done", result), time.monotonic() - started).summary


def job_of(args: argparse.Namespace, recipe: MVVDMRecipe) -> dict[str, Any]:
    """What workers are told, plain values; opens the dataset, so that what is wrong with it is said at once.

    Raises:
        ValueError: the clips do not fit the recipe. FileNotFoundError: there are none.
    """

    clips = load_clips(args.data, "train")
    unseen = load_clips(args.test_data) if args.test_data else None
    for dataset in filter(None, (clips, unseen)):
        _check_clips(dataset, recipe)
    job = {
        "recipe": asdict(recipe),
        "seed": args.seed,
        "parts": {name: getattr(args, name) for name in PARTS if getattr(args, name) is not None},
    }
    content = clips.table(["clip_id"])["clip_id"].to_pylist()
    key = task_key("mvvdm", TRAINING_VERSION, json.dumps(job, sort_keys=True), *content)
    name = args.name or args.preset
    return {
        **job,
        "key": key,
        "name": name,
        "out": Ledger(args.out).root,
        "data": _everywhere(clips),
        "test_data": _everywhere(unseen) if unseen else None,
        "publish": args.publish or f"local:mvvdm/{name}",
        "home": home_of(args.out),
        "sharded": args.sharded,
        "at_once": args.at_once,
        "compile": args.compile,
        "gradient_checkpointing": args.gradient_checkpointing,
        "loader_workers": args.loader_workers,
        "save_every": args.save_every,
        "validate_every": args.validate_every,
        "test_clips": args.test_clips,
    }


def _everywhere(clips: ClipDataset) -> str:
    """The dataset's address, as it is called from any folder."""
    return clips.url if "://" in clips.url else os.path.abspath(clips.url)


def _check_clips(clips: ClipDataset, recipe: MVVDMRecipe) -> None:
    known = clips[0].metadata
    if known["num_frames"] < recipe.frames or known["num_views"] % recipe.views:
        raise ValueError(
            f"{clips.url}: this recipe wants {recipe.views} even views and {recipe.frames} frames, the clips have "
            f"{known['num_views']} and {known['num_frames']}: take others with --set views=… --set frames=…"
        )
    if known["width"] < recipe.resolution or known["width"] != known["height"]:
        raise ValueError(
            f"{clips.url}: clips are {known['width']}x{known['height']} px, this recipe wants squares of at least "
            f"{recipe.resolution} px: render them with --resolution {recipe.resolution}"
        )


def check_workers(workers: int | tuple[int, int], recipe: MVVDMRecipe) -> None:
    most = workers if isinstance(workers, int) else workers[1]
    for stage, plan in (("plan", recipe.plan), ("autoencoder", recipe.autoencoder)):
        if plan is not None and plan.batch < most:
            raise ValueError(
                f"a batch of {plan.batch} cannot be shared by {most} workers: take fewer, or --set {stage}.batch={most}"
            )


class _ProgressReader:
    """Reads the progress that the first worker writes to the storage."""

    def __init__(self, storage: Storage, file: str) -> None:
        self._storage, self._file = storage, file

    def read(self) -> dict[str, Any]:
        """The last progress written; empty if there is none yet."""
        return json.loads(self._storage.read(self._file) or b"{}")

    def progress(self) -> int:
        """A number that grows with the work, by which a stalled training is detected."""
        progress = self.read()
        stages = ("", "autoencoder", "network", "measuring")
        return stages.index(progress.get("stage", "")) * 10**9 + progress.get("step", 0)


@contextmanager
def _ticking(on_tick: Callable[[], None]) -> Iterator[None]:
    """Call `on_tick` every second from a thread, as the cluster does, while this process trains."""
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
    """The training at this moment: stage, steps, loss, and how a step's time is divided.

    Args:
        progress: as the first worker wrote it. seconds: since this command started.
    """
    if "step" not in progress:
        return Status("steps", 0, None, seconds, facts={"stage": progress.get("stage", "starting")})
    pace = progress["seconds"] / progress["step"]
    return Status(
        unit="steps",
        done=progress["step"],
        total=progress["steps"],
        seconds=seconds,
        facts={
            "stage": progress["stage"],
            "loss": f"{progress['loss']:.4g}",
            "workers": progress["workers"],
            "s/step": f"{pace:.2f}",
            **{part: f"{progress[part]:.0%}" for part in ("loader", "forward", "backward", "optimiser")},
            "minutes left": round(pace * (progress["steps"] - progress["step"]) / 60),
        },
    )


def home_of(out: str) -> str | None:
    """The registry below a local output; the user's own where the output is elsewhere."""
    return None if "://" in out else str(Path(out).resolve())
