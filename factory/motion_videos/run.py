"""Render the motion videos of a list of objects on the cluster."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster import Ledger, Progress, Record, StorageError, Task, run, run_inline, task_key
from factory.console import Show, Status
from factory.motion_videos.plan import MotionPlan, MotionRecipe
from factory.motion_videos.stage import LEAST_MOTIONS, MotionStage, _too_few, folder_of
from factory.motion_videos.subjects import Subject, find_subjects
from renderers.meshes import RenderSettings


@dataclass
class SubjectVideos:
    """What became of one object.

    Attributes:
        folder: its motion videos; None if there are none. fault: why, in words.
        motions: filmed. heldout: of them, not to be trained on. rejected: reason → animations left out.
        quarantined: motion → cause, of those given up. key: names what its videos were made from.
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
    backend: str = "opengl",
    workers: int | None = None,
    limit: int | None = None,
    ledger: Ledger | None = None,
    show: Show | None = None,
) -> list[SubjectVideos]:
    """Film every motion of the objects into `<out>/motions/<object>/`.

    Args:
        out: a folder that every machine sees.
        workers: side by side; None for as many as the cluster has room for, 0 for this very process, without Ray.
        limit: take only the first so many objects.
        show: receives the state of the run now and then.
    Raises:
        SourceError, StageError, StorageError: nothing is lost; the same command resumes.
        Interrupted: by Ctrl-C or SIGTERM, likewise.
    """
    subjects = find_subjects(objects, limit)
    ledger = ledger or Ledger(out)
    if "://" in ledger.root:
        raise StorageError(
            f"motion videos are mapped into memory: expected a folder that every machine sees, got {ledger.root}"
        )
    films = any("asset" in subject.payload for subject in subjects)
    stage = MotionStage(recipe or MotionRecipe(), settings or RenderSettings(), backend, films)
    tasks = {subject.name: subject.task(stage) for subject in subjects if subject.folder is None}
    plans: dict[str, Record] = {}
    resolved: dict[str, Record] = {}

    def on_resolved(task: Task, record: Record) -> None:
        if "motion" in task.payload:
            resolved[task.key] = record
        else:
            plans[task.payload["object"]] = record

    started = time.monotonic()

    def on_inline(task: Task, record: Record) -> None:
        on_resolved(task, record)
        if show:
            show(lambda: _status(time.monotonic() - started, 1, plans, resolved))

    def on_tick(progress: Progress) -> None:
        if show:
            show(lambda: _status(progress.seconds, progress.workers, plans, resolved))

    if workers == 0:
        run_inline(stage, tasks.values(), ledger, on_inline)
    else:
        run(stage, tasks.values(), ledger, workers=workers, on_resolved=on_resolved, on_tick=on_tick)
    return [
        _made_before(subject)
        if subject.folder
        else _finish(subject.name, plans[subject.name], resolved, ledger)
        for subject in subjects
    ]


def _finish(name: str, plan: Record, resolved: dict[str, Record], ledger: Ledger) -> SubjectVideos:
    """Write the index of an object's videos, now that all of them are there."""
    made = SubjectVideos(name)
    made.rejected.update(rejection["reason"] for rejection in plan.summary.get("rejected", ()))
    if plan.status != "done":
        made.fault = plan.reason
        return made
    tasks = [task for task in plan.follow_up if resolved[task.key].status == "done"]
    made.quarantined = {
        task.label: resolved[task.key].reason
        for task in plan.follow_up
        if resolved[task.key].status != "done"
    }
    motions = [MotionPlan(**task.payload["motion"]) for task in tasks]
    if sum(motion.split == "train" for motion in motions) < LEAST_MOTIONS:
        cause = next(iter(made.quarantined.values()))
        made.fault = f"{len(made.quarantined)} of its motions could not be filmed: {cause}"
        return made
    from zoo.dimo.data import MotionVideos

    index, made.folder = plan.summary["index"], Path(ledger.storage.path(folder_of(name)))
    seconds = round(float(np.mean([motion.seconds for motion in motions])), 3)
    MotionVideos(
        folder=made.folder,
        object=name,
        names=[motion.name for motion in motions],
        sentences=[motion.sentence for motion in motions],
        splits=[motion.split for motion in motions],
        files=[task.payload["file"] for task in tasks],
        frames=len(index["phases"]),
        world_to_camera=[motion.world_to_camera for motion in motions],
        K=[motion.K for motion in motions],
        # Sorted, as the ledger's markers are: a resumed run writes the same bytes.
        provenance=dict(sorted({**plan.summary["provenance"], "seconds": seconds}.items())),
        **index,
    ).write()
    made.motions, made.heldout = len(motions), sum(motion.split == "heldout" for motion in motions)
    made.key = task_key(*(task.key for task in tasks))
    return made


def _made_before(subject: Subject) -> SubjectVideos:
    from zoo.dimo.data import MotionVideos

    videos = MotionVideos.open(subject.folder)
    index = (subject.folder / "motions.json").read_text()
    heldout = videos.splits.count("heldout")
    if len(videos) - heldout < LEAST_MOTIONS:
        return SubjectVideos(subject.name, fault=_too_few(len(videos) - heldout))
    return SubjectVideos(subject.name, subject.folder, "", len(videos), heldout, key=task_key("made", index))


def _status(seconds: float, workers: int, plans: dict[str, Record], resolved: dict[str, Record]) -> Status:
    """The run at this moment, for the progress display."""
    return Status(
        unit="motions",
        done=len(resolved),
        total=sum(record.summary.get("motions", 0) for record in plans.values()),
        growing=True,
        seconds=seconds,
        facts={"objects": len(plans), "workers": workers},
    )


def summary(made: Sequence[SubjectVideos]) -> str:
    """The closing table: an object a line, and what was left out and given up."""
    width = max(len(one.name) for one in made)
    lines = []
    for one in made:
        if one.fault:
            lines.append(f"{one.name:{width}}  no videos: {one.fault}")
        else:
            lines.append(
                f"{one.name:{width}}  {one.motions} motions ({one.motions - one.heldout} to train on, {one.heldout} "
                f"held out)  {one.folder}"
            )
        lines += [
            f"{'':{width}}  left out  {count:4d}  {reason}" for reason, count in one.rejected.most_common()
        ]
        lines += [f"{'':{width}}  given up  {label}: {cause}" for label, cause in one.quarantined.items()]
    return "\n".join(lines)


def subjects_to_json(subjects: Sequence[SubjectVideos]) -> list[dict[str, Any]]:
    """The results as plain JSON values."""
    return [{**vars(each), "folder": each.folder and str(each.folder)} for each in subjects]
