"""Tasks of DIMO models: held-out views of trained motions, and motions that were not trained on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.dimo.data import INDEX, MotionVideos, over, shrink
from zoo.dimo.evaluation import tracked_points
from zoo.dimo.tracks import UNUSED
from zoo.errors import UnsupportedError
from zoo.evaluation import controls
from zoo.evaluation.canonical import digest, file_digest
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.media import Flows, Media
from zoo.evaluation.protocol import Protocol
from zoo.evaluation.tasks import Assignment, Measurement, checked_truth, measure_pairs, missing_truth

if TYPE_CHECKING:
    from zoo.dimo.model import DIMO
    from zoo.dimo.pipeline import DIMOPipeline

THUMBNAIL = 32  # side of the images that the nearest motion is found with, in pixels
FRAMES_AT_ONCE = 8


def views(assignment: Assignment, own_truth: bool = False) -> Measurement:
    """Held-out views of the motions that the model was trained on."""
    videos, protocol, hashes = open_truth(assignment, own_truth)
    task = _Views(assignment, videos, protocol.settings)
    for label, pipeline in assignment.models.items():
        task.latents[label] = _trained_latents(label, pipeline, task.videos)
    return _measurement(task, assignment, protocol, videos.object, hashes)


def unseen_motions(assignment: Assignment, own_truth: bool = False) -> Measurement:
    """Held-out views of motions that were not trained on; a latent is fitted to the training views of each."""
    videos, protocol, hashes = open_truth(assignment, own_truth)
    task = _Views(assignment, videos, protocol.settings)
    for label, pipeline in assignment.models.items():
        task.latents[label] = _fitted_latents(assignment, label, pipeline, task.videos)
    return _measurement(task, assignment, protocol, videos.object, hashes)


def _measurement(
    task: _Views, assignment: Assignment, protocol: Protocol, object_name: str, hashes: dict[str, str]
) -> Measurement:
    rows = measure_pairs(task, assignment, protocol)
    return Measurement(protocol, object_name, hashes, rows, task.pictures)


# --- truth ---------------------------------------------------------------------------------------------


def open_truth(assignment: Assignment, own_truth: bool) -> tuple[MotionVideos, Protocol, dict[str, str]]:
    """The motion videos of the model's object, the protocol they belong to, and clip → SHA-256.

    The folder may be that of the videos, or the output folder of `factory.motions`, which has them in motions/OBJECT.

    Raises:
        TruthError: there are none, or they are not the protocol's.
    """
    pipelines = [dimo(label, model) for label, model in assignment.models.items()]
    name, protocol = pipelines[0].object, assignment.protocol
    folder = assignment.truth
    candidates = [] if folder is None else [folder / "motions" / name, folder / name, folder]
    found = next((each for each in candidates if (each / INDEX).is_file()), None)
    if found is None:
        raise missing_truth(protocol, name, folder)
    videos = MotionVideos.open(found)
    if videos.object != name:
        raise EvaluationError(f"{found} has motion videos of {videos.object}, expected those of {name}")
    if others := [each.object for each in pipelines if each.object != name]:
        raise EvaluationError(f"expected models of one object, got models of {name} and {others[0]}")
    hashes = clip_hashes(videos)
    return videos, checked_truth(protocol, name, hashes, found, own_truth), hashes


def clip_hashes(videos: MotionVideos) -> dict[str, str]:
    """Motion → SHA-256 of its frames, its surface points, its cameras, times, split and sentence."""
    shared = {
        "object": videos.object, "phases": list(videos.phases), "resolution": videos.resolution,
        "train_views": list(videos.train_views), "heldout_views": list(videos.heldout_views),
    }  # fmt: skip
    hashes = {}
    for index, (name, stem) in enumerate(zip(videos.names, videos.files, strict=True)):
        points = videos.folder / f"{stem}.points.npy"
        content = shared | {
            "frames": file_digest(videos.folder / f"{stem}.npy"),
            "points": file_digest(points) if points.exists() else None,
            "world_to_camera": videos.world_to_camera[index].tolist(), "K": videos.K[index].tolist(),
            "split": videos.splits[index], "sentence": videos.sentences[index],
        }  # fmt: skip
        hashes[name] = digest(content)
    return hashes


def dimo(label: str, model: Any) -> DIMOPipeline:
    """A model as a DIMO pipeline.

    Raises:
        UnsupportedError: it is of another family.
    """
    from zoo.dimo.pipeline import DIMOPipeline

    if not isinstance(model, DIMOPipeline):
        raise UnsupportedError(f"{label}: this protocol evaluates models of the family 'dimo', got {model!r}")
    return model


# --- models --------------------------------------------------------------------------------------------


def _trained_latents(label: str, pipeline: DIMOPipeline, videos: MotionVideos) -> Tensor:
    """The latents of the motions of `videos`, [M, Z]."""
    if missing := [name for name in videos.names if name not in pipeline.motions]:
        raise EvaluationError(
            f"{label} was not trained on {len(missing)} of the {len(videos)} training motions of the truth, such as "
            f"{missing[0]!r}: expected a model of all of them"
        )
    return pipeline.model.mu[[pipeline.motions.index(name) for name in videos.names]]


def _fitted_latents(
    assignment: Assignment, label: str, pipeline: DIMOPipeline, videos: MotionVideos
) -> Tensor:
    """Latents fitted to the training views of the motions of `videos`, [M, Z]."""
    from zoo.dimo.fitting import fit_latent, starting_latents

    settings = assignment.protocol.settings
    if seen := [name for name in videos.names if name in pipeline.motions]:
        raise EvaluationError(f"{label} was trained on {seen[0]!r}, which the protocol holds out")
    model = copy.copy(single(pipeline))
    plan = model.config.fit
    # A model may have been trained on larger videos than the truth's.
    sizes = tuple((step, min(size, videos.resolution)) for step, size in plan.resolutions)
    model.config = replace(model.config, fit=replace(plan, resolutions=sizes))
    steps, seed, starts = settings["fit_steps"], settings["seed"], starting_latents(model)
    latents = []
    for index, name in enumerate(videos.names):
        assignment.progress(index, len(videos), f"fitting a latent to {name}")
        latents.append(fit_latent(model, videos.select([index]), steps=steps, seed=seed, starts=starts))
    return torch.cat(latents)


def single(pipeline: DIMOPipeline) -> DIMO:
    """The model in single precision on the CPU, on which results are the same everywhere."""
    model = pipeline.model
    if pipeline.dtype != torch.float32 or pipeline.device.type != "cpu":
        model = copy.deepcopy(model).to("cpu")
        from zoo.dimo.precision import convert

        convert(model, torch.float32)
    return model


class _Views:
    """The clips of one split of an object's motion videos, seen from the protocol's views."""

    def __init__(self, assignment: Assignment, videos: MotionVideos, settings: dict[str, Any]) -> None:
        self.all, self.videos = videos, videos.select(settings["clips"])
        if not len(self.videos):
            raise EvaluationError(
                f"{videos.folder}: expected motions of the split {settings['clips']!r}, got none"
            )
        self.names: Sequence[str] = self.videos.names
        self.views = list(videos.heldout_views if settings["views"] == "heldout" else settings["views"])
        if not self.views:
            raise EvaluationError(f"{videos.folder} has no held-out views, which the protocol compares")
        self.frames = list(range(0, videos.frames, settings["every"]))
        self.resolution = min(settings["resolution"], videos.resolution)
        self.background = tuple(settings["background"])
        self.models = {label: single(model) for label, model in assignment.models.items()}
        self.latents: dict[str, Tensor] = {}
        self.shown: dict[int, np.ndarray] = {}
        self._flows: dict[int, Flows] = {}  # a motion is the truth, another clip and the nearest one
        self._read = lru_cache(maxsize=4)(self._read_truth)

    def truth(self, index: int) -> Media:
        return self._read(self._place(self.videos.names[index]))

    def control(self, name: str, index: int) -> Media | None:
        if name == controls.OTHER and len(self.names) > 1:
            return self.truth(controls.another(index, len(self.names)))
        if name == controls.NEAREST:
            nearest = self._nearest(self._place(self.names[index]))
            return None if nearest is None else self._read(nearest)
        return None

    def predict(self, label: str, index: int) -> Media:
        model, z = self.models[label], self.latents[label][index : index + 1].float().cpu()
        phases = torch.tensor([self.videos.phases[t] for t in self.frames], dtype=torch.float32)
        frames, alpha = render_views(model, z, phases, self._cameras(index), self.background)
        points = self.truth(index).points
        if points is not None:
            points = tracked_points(model, z[0], torch.from_numpy(points.copy()), phases).numpy()
        return Media(frames, alpha, points)

    def pictures(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        truth = self.truth(index).frames
        assert truth is not None
        return truth[0], self.shown[index]

    def _place(self, name: str) -> int:
        """Index of a motion among all of the object's."""
        return self.all.names.index(name)

    def _cameras(self, index: int) -> Any:
        return self.videos.cameras([index], self.views, 1, self.resolution)

    def _read_truth(self, place: int) -> Media:
        straight = self.all.read([place], self.views, self.frames, self.resolution)[0]
        points = self.all.points(place)
        if points is not None:
            # Half of the points may have been used for training.
            points = points[self.frames][:, UNUSED] if points.shape[1] > 1 else points[self.frames]
        media = Media(composite(straight, self.background), straight[..., 3].numpy(), points)
        return media.share_flows(self._flows.setdefault(place, {}))

    @cached_property
    def _thumbnails(self) -> Tensor:
        """All motions of the object, small: float32 [M, …]."""
        small = []
        for place in range(len(self.all)):
            straight = self.all.read([place], self.views, self.frames, self.resolution)[0]
            side = min(THUMBNAIL, self.resolution)
            small.append(over(shrink(straight, side, side))[0].flatten())
        return torch.stack(small)

    def _nearest(self, place: int) -> int | None:
        """The training motion, other than `place`, with the least mean squared colour difference."""
        candidates = [
            other for other, split in enumerate(self.all.splits) if split == "train" and other != place
        ]
        if not candidates:
            return None
        thumbnails = self._thumbnails
        errors = [
            float((thumbnails[other] - thumbnails[place]).double().square().mean()) for other in candidates
        ]
        return candidates[int(np.argmin(errors))]


def composite(straight: Tensor, background: Sequence[int]) -> np.ndarray:
    """Straight-alpha uint8 [..., 4] over a colour in 0..255: uint8 [..., 3]."""
    colour, _ = over(straight, [value / 255 for value in background])
    return (255 * colour).round().byte().numpy()


@torch.no_grad()
def render_views(
    model: DIMO, z: Tensor, phases: Tensor, cameras: Any, background: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [V, T, H, W, 3] and alpha uint8 [V, T, H, W] of one motion with latent z [1, Z]."""
    behind = torch.tensor([value / 255 for value in background], dtype=torch.float32)
    frames, alphas = [], []
    for part in phases.split(FRAMES_AT_ONCE):
        picture = model.draw(model.skin(model.trajectories(z, part)), cameras, background=behind)
        frames.append(picture.output("rgb").clamp(0, 1).mul(255).round().byte())
        alphas.append(picture.output("alpha")[..., 0].clamp(0, 1).mul(255).round().byte())
    rgb, alpha = (torch.cat(each).transpose(0, 1).contiguous().numpy() for each in (frames, alphas))
    return rgb, alpha
