"""Render the motion videos of a list of objects on the cluster."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster import Ledger, Progress, Record, StorageError, Task, run, task_key
from factory.assets.backends import choose_backend
from factory.assets.record import AssetRecord
from factory.console import Show, Status
from factory.motion_videos.jobs import MotionJob, read_job
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.stage import LEAST_MOTIONS, MotionStage, folder_of, too_few
from factory.motion_videos.subjects import find_subjects
from renderers.meshes import AUTO, RenderSettings
from zoo.terminal import printable


@dataclass
class SubjectVideos:
    """The motion videos of one object, or why it has none.

    Attributes:
        name: of the object.
        folder: of its motion videos; None if it has none.
        fault: why it has none.
        motions: number of videos.
        heldout: number of them that are not for training.
        rejected: reason → number of animations left out.
        quarantined: label of a motion → cause, for those that could not be rendered.
        key: identifies everything the videos depend on.
    """

    name: str
    folder: Path | None = None
    fault: str = ""
    motions: int = 0
    heldout: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: dict[str, str] = field(default_factory=dict)
    key: str = ""


def make_motions(
    objects: Sequence[str],
    out: str | os.PathLike[str],
    recipe: MotionRecipe | None = None,
    *,
    settings: RenderSettings | None = None,
    backend: str = AUTO,
    workers: int | None = None,
    limit: int | None = None,
    ledger: Ledger | None = None,
    show: Show | None = None,
) -> list[SubjectVideos]:
    """Render every motion of the objects into `<out>/motions/<object>/`.

    Args:
        objects: URIs, see `factory.motion_videos.stage`.
        out: a folder that all machines share.
        recipe, settings, backend: which motions, how they are rendered, and with which renderer (`choose_backend`).
        workers: number of parallel workers; None = as many as fit on the cluster, 0 = this process, without Ray.
        limit: render only the first `limit` objects. ledger: of `out`; opened here if None. show: receives the state.
    Returns:
        Results in the order of `objects`.
    Raises:
        SourceError, StageError, StorageError: finished motions are kept; calling this again resumes.
        Interrupted: Ctrl-C or SIGTERM; likewise.
    """
    subjects = find_subjects(objects, limit)
    ledger = ledger or Ledger(out)
    if "://" in ledger.root:
        raise StorageError(
            f"motion videos are memory-mapped files: expected a folder that all machines share, got {ledger.root}"
        )
    renders = any(isinstance(subject.origin, AssetRecord) for subject in subjects)
    used = choose_backend(backend, ledger)
    stage = MotionStage(recipe or MotionRecipe(), settings or RenderSettings(), used, renders)
    tasks = [subject.task(stage) for subject in subjects if subject.folder is None]
    plans: dict[str, Record] = {}  # object → record of its planning task
    resolved: dict[str, Record] = {}  # key of a motion's task → record

    def on_resolved(task: Task, record: Record) -> None:
        job = read_job(task.payload)
        if isinstance(job, MotionJob):
            resolved[task.key] = record
        else:
            plans[job.object] = record

    run(
        stage,
        tasks,
        ledger,
        workers=workers,
        on_resolved=on_resolved,
        on_tick=show and (lambda progress: show(lambda: _status(progress, plans, resolved))),
    )
    return [
        _existing_videos(subject.name, subject.folder)
        if subject.folder
        else _finish(subject.name, plans[subject.name], resolved, ledger)
        for subject in subjects
    ]


def _finish(name: str, plan: Record, resolved: dict[str, Record], ledger: Ledger) -> SubjectVideos:
    """Write an object's `motions.json` once all of its motions are resolved."""
    videos = SubjectVideos(name)
    videos.rejected.update(rejection["reason"] for rejection in plan.summary.get("rejected", ()))
    if plan.status != "done":
        videos.fault = plan.reason
        return videos
    tasks = [task for task in plan.follow_up if resolved[task.key].status == "done"]
    videos.quarantined = {
        task.label: resolved[task.key].reason
        for task in plan.follow_up
        if resolved[task.key].status != "done"
    }
    jobs = [MotionJob.from_json(task.payload) for task in tasks]
    motions = [job.motion for job in jobs]
    if sum(motion.split == "train" for motion in motions) < LEAST_MOTIONS:
        cause = next(iter(videos.quarantined.values()))
        videos.fault = f"{len(videos.quarantined)} of its motions could not be rendered: {cause}"
        return videos
    from zoo.dimo.data import MotionVideos

    index, videos.folder = plan.summary["index"], Path(ledger.storage.path(folder_of(name)))
    seconds = round(float(np.mean([motion.seconds for motion in motions])), 3)
    MotionVideos(
        folder=videos.folder,
        object=name,
        names=tuple(motion.name for motion in motions),
        sentences=tuple(motion.sentence for motion in motions),
        splits=tuple(motion.split for motion in motions),
        files=tuple(job.file for job in jobs),
        frames=len(index["phases"]),
        world_to_camera=np.asarray([motion.world_to_camera for motion in motions], np.float64),
        K=np.asarray([motion.K for motion in motions], np.float64),
        # The ledger's records are sorted by key: sorting here too gives a resumed run the same bytes.
        provenance=dict(sorted({**plan.summary["provenance"], "seconds": seconds}.items())),
        **index,
    ).write()
    videos.motions, videos.heldout = len(motions), sum(motion.split == "heldout" for motion in motions)
    videos.key = task_key(*(task.key for task in tasks))
    return videos


def _existing_videos(name: str, folder: Path) -> SubjectVideos:
    from zoo.dimo.data import MotionVideos

    videos = MotionVideos.open(folder)
    index = (folder / "motions.json").read_text()
    heldout = videos.splits.count("heldout")
    if len(videos) - heldout < LEAST_MOTIONS:
        return SubjectVideos(name, fault=too_few(len(videos) - heldout))
    return SubjectVideos(name, folder, "", len(videos), heldout, key=task_key("made", index))


def _status(progress: Progress, plans: dict[str, Record], resolved: dict[str, Record]) -> Status:
    """The run at this moment, for the progress display."""
    return Status(
        unit="motions",
        done=len(resolved),
        total=sum(record.summary.get("motions", 0) for record in plans.values()),
        growing=True,
        seconds=progress.seconds,
        facts={"objects": len(plans), "workers": progress.workers},
    )


def summary(results: Sequence[SubjectVideos]) -> str:
    """The closing table: one line per object, then its animations left out and motions given up."""
    names = [printable(videos.name) for videos in results]
    width = max(map(len, names))
    lines = []
    for name, videos in zip(names, results, strict=True):
        if videos.fault:
            lines.append(f"{name:{width}}  no videos: {printable(videos.fault)}")
        else:
            lines.append(
                f"{name:{width}}  {videos.motions} motions ({videos.motions - videos.heldout} to train on, "
                f"{videos.heldout} held out)  {printable(videos.folder)}"
            )
        lines += [
            f"{'':{width}}  left out  {count:4d}  {printable(reason)}"
            for reason, count in videos.rejected.most_common()
        ]
        lines += [
            f"{'':{width}}  given up  {printable(label)}: {printable(cause)}"
            for label, cause in videos.quarantined.items()
        ]
    return "\n".join(lines)


def subjects_to_json(subjects: Sequence[SubjectVideos]) -> list[dict[str, Any]]:
    """The results as plain JSON values."""
    return [{**vars(each), "folder": each.folder and str(each.folder)} for each in subjects]
