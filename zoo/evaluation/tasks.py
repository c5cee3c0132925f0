"""What a protocol's task returns, and which program runs it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np

from zoo.errors import UnsupportedError
from zoo.evaluation import controls, scores
from zoo.evaluation.errors import EvaluationError, TruthError
from zoo.evaluation.media import Media
from zoo.evaluation.protocol import Protocol

MODEL, BASELINE, CONTROL = "model", "baseline", "control"
# Task → the function that runs it, "module:function", imported when it is used.
TASKS = {
    "dimo-views": "zoo.evaluation.dimo:views",
    "dimo-unseen-motions": "zoo.evaluation.dimo:unseen_motions",
    "dimo-between": "zoo.evaluation.between:between",
    "mvvdm-creatures": "zoo.evaluation.mvvdm:creatures",
    "animate-truth": "zoo.evaluation.animate:truth",
}
# Task → families of the models that it evaluates. `FITTER` is no model with weights: zoo.animate, given true videos.
FITTER = "animate3d"
FAMILIES = {
    "dimo-views": ("dimo",),
    "dimo-unseen-motions": ("dimo",),
    "dimo-between": ("dimo",),
    "mvvdm-creatures": ("mvvdm",),
    "animate-truth": (FITTER, "mvvdm"),
}
Progress = Callable[[int, int, str], None]  # clips done, of how many, and the name of the next


@dataclass(frozen=True)
class Assignment:
    """What a task is given.

    Attributes:
        protocol: the protocol.
        models: label → loaded model; the first is the one that is evaluated, others are baselines.
        truth: folder of the truth; None if the user gave none.
        progress: called before each clip.
        home: folder of the local registry.
    """

    protocol: Protocol
    models: Mapping[str, Any]
    truth: Path | None
    progress: Progress = lambda done, total, clip: None
    home: Path | None = None

    @property
    def model(self) -> Any:
        return next(iter(self.models.values()))

    def role(self, label: str) -> str:
        return MODEL if label == next(iter(self.models)) else BASELINE


@dataclass
class Row:
    """The scores of one model or control.

    Attributes:
        name: of the model or control.
        role: "model", "baseline" or "control".
        clips: names of the clips, [N].
        values: metric → score of each clip, [N]; None where the metric is not computed.
    """

    name: str
    role: str
    clips: list[str] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, clip: str, measured: Mapping[str, float | None]) -> None:
        self.clips.append(clip)
        for name, value in measured.items():
            self.values.setdefault(name, []).append(value)


@dataclass
class Measurement:
    """What a task returns.

    Attributes:
        protocol: the one that the scores belong to; another than the assignment's if the truth is not in it.
        object: evaluated object; "" if the protocol has several.
        truth: clip → SHA-256 of the true clips used.
        rows: the model's rows first.
        pictures: returns frames uint8 [T, H, W, 3] of one view for a clip's index: those of the truth, or None, and
            those of the model.
    """

    protocol: Protocol
    object: str
    truth: dict[str, str]
    rows: list[Row]
    pictures: Callable[[int], tuple[np.ndarray | None, np.ndarray]]


class Paired(Interface):
    """A task whose clips each have a true video.

    Attributes:
        names: of the clips.
        shown: index of a clip → the evaluated model's frames from the first view; filled by `measure_pairs`.
    """

    names: Sequence[str]
    shown: dict[int, np.ndarray]

    def truth(self, index: int) -> Media:
        """The true clip."""

    def predict(self, label: str, index: int) -> Media:
        """The clip of a model."""

    def control(self, name: str, index: int) -> Media | None:
        """The clip of a control; None if it does not exist."""


def usable_metrics(protocol: Protocol) -> list[str]:
    """The metrics of a protocol that can be computed here."""
    return [
        name
        for name, settings in protocol.metrics.items()
        if scores.metric(name) and not scores.missing_backbone(name, settings)
    ]


def measure_pairs(task: Paired, assignment: Assignment, protocol: Protocol) -> list[Row]:
    """Score the models and controls of a task on all of its clips."""
    usable = usable_metrics(protocol)
    rows = [Row(label, assignment.role(label)) for label in assignment.models]
    rows += [Row(name, CONTROL) for name in protocol.content["controls"]]
    for index, clip in enumerate(task.names):
        assignment.progress(index, len(task.names), clip)
        truth = task.truth(index)
        for row in rows:
            media = (
                _control(task, row.name, index, truth)
                if row.role == CONTROL
                else task.predict(row.name, index)
            )
            if row is rows[0] and media is not None and media.frames is not None:
                task.shown[index] = media.frames[0].copy()
            row.add(clip, {name: _score(name, protocol, media, truth) for name in usable})
    assignment.progress(len(task.names), len(task.names), "")
    return rows


def _control(task: Paired, name: str, index: int, truth: Media) -> Media | None:
    match name:
        case controls.TRUTH:
            return truth
        case controls.STILL:
            return controls.still(truth)
        case controls.LATE:
            return controls.late(truth)
    return task.control(name, index)


def _score(name: str, protocol: Protocol, media: Media | None, truth: Media) -> float | None:
    if media is None:
        return None
    return scores.metric(name).function(media, truth, protocol.metrics[name])


def checked_truth(
    protocol: Protocol, object_name: str, clips: Mapping[str, str], folder: Path, own_truth: bool
) -> Protocol:
    """The protocol that a truth belongs to: the given one if it lists exactly these clips, else one of its own.

    Args:
        protocol: the protocol.
        object_name: of the truth.
        clips: clip → SHA-256 of the truth that was found.
        folder: of the truth, for messages.
        own_truth: accept other clips than the protocol's for an object that it lists.

    Raises:
        TruthError: the protocol lists this object with other clips.
    """
    expected = protocol.of_object(object_name)
    if expected == clips:
        return protocol
    if expected is not None and not own_truth:
        wrong = [name for name in expected if clips.get(name) != expected[name]]
        wrong += [name for name in clips if name not in expected]
        raise TruthError(
            f"{folder}: {len(wrong)} of {len(expected)} clips of {object_name} are not those of {protocol.title}, such "
            f"as {wrong[0]}; make the truth again with `{protocol.command(object_name)}`, or evaluate on this one with "
            f"--own-truth: the result then has a protocol hash and a table of its own"
        )
    return protocol.with_object(object_name, clips)


def missing_truth(protocol: Protocol, object_name: str, folder: Path | None) -> TruthError:
    """The error of a truth that is not given, or not found."""
    where = "no truth was given" if folder is None else f"{folder} has no truth of {object_name}"
    return TruthError(
        f"{protocol.title}: {where}; make it with `{protocol.command(object_name)}`, then give its folder: "
        "--truth truth"
    )


def measured_code(protocol: Protocol, family: str) -> dict[str, str]:
    """Code of this package that is measured, beside the weights, of a model of a family: name → version."""
    if protocol.content["task"] != "animate-truth":
        return {}
    from zoo.animate3d.limits import FIT_VERSIONS

    stiffness = "rendered" if family == FITTER else "generated"
    return {f"zoo.animate3d, {stiffness} videos": FIT_VERSIONS[stiffness]}


def check_family(protocol: Protocol, label: str, family: str) -> None:
    """Refuse a model of a family that a protocol does not evaluate, before it is loaded.

    Raises:
        UnsupportedError: one sentence.
    """
    expected = FAMILIES[protocol.content["task"]]
    if family not in expected:
        raise UnsupportedError(
            f"{label}: {protocol.title} evaluates models of the family {' or '.join(expected)}, got one of {family}"
        )


def task_of(protocol: Protocol) -> Callable[..., Measurement]:
    """The function that runs a protocol's task.

    Raises:
        EvaluationError: the task is unknown.
    """
    target = TASKS.get(protocol.content["task"])
    if target is None:
        raise EvaluationError(
            f"protocol {protocol.name}: task {protocol.content['task']!r} is not known here, only {', '.join(TASKS)}; "
            f"upgrade menagerie4d"
        )
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
