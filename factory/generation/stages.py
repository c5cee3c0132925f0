"""The steps from a still object to motion videos, each a stage of the cluster with a ledger of its own.

Below the output, with one folder per video ("take"):

    generated/<object>/takes/<take>/video.mkv, still.mkv, video.json     the generated video and what made it
                                    alpha.npz                            its matte
                                    scores.json                          its scores and verdict
    motions/<object>/<motion>.npy, motions.json                          the kept ones, for DIMO

A step reads what the step before it wrote, and nothing else, so that each can be run again alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster import Outcome, Stage, StageError, Task
from factory.generation.frames import (
    decoded_frames,
    pack_alpha,
    pack_video,
    straight_color,
    unpack_alpha,
    unpack_video,
)
from factory.generation.jobs import (
    NO_MODEL,
    AssembleJob,
    ModelChoice,
    MultiViewVideo,
    StillObject,
    TakeJob,
    VideoJob,
    ViewGeometry,
    WriterChoice,
)
from factory.generation.judging import Thresholds, decide, measure_views
from factory.generation.masks import open_matte
from factory.generation.prompts import write_prompts
from factory.generation.video_sources import VideoSource, open_source_of_videos
from factory.sources import SourceError
from renderers import gltf
from renderers.files import atomic_path
from zoo.errors import ZooError

VIDEO, STILL, ABOUT, ALPHA, SCORES = "video.mkv", "still.mkv", "video.json", "alpha.npz", "scores.json"
GIVEN = "given_alpha.npz"  # coverage that came with the video
INSIDE = 127  # coverage above which a pixel belongs to the object


@dataclass(frozen=True, eq=False)
class Take:
    """A generated video as it is stored.

    Attributes:
        frames, still, fps, geometry, background, provenance: see `MultiViewVideo`.
        key: hash of everything that made it.
    """

    frames: np.ndarray
    still: np.ndarray
    fps: float
    geometry: ViewGeometry
    background: tuple[int, int, int] | None
    provenance: dict[str, Any]
    key: str


def read_take(folder: Path) -> Take:
    """Read the files of a take.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    about = _read_about(folder)
    geometry = ViewGeometry.from_json(about["geometry"])
    return Take(
        unpack_video((folder / VIDEO).read_bytes(), len(geometry)),
        unpack_video((folder / STILL).read_bytes(), len(geometry))[:, 0],
        about["fps"],
        geometry,
        about["background"],
        about["provenance"],
        about["key"],
    )


def _read_about(folder: Path) -> dict[str, Any]:
    """The facts of a take that are stored beside its video; its background as a tuple."""
    about = json.loads((folder / ABOUT).read_text())
    background = about["background"]
    return {**about, "background": None if background is None else tuple(background)}


def read_alpha(folder: Path) -> np.ndarray:
    """Read the matte of a take: uint8 [V, T, H, W]."""
    return unpack_alpha((folder / ALPHA).read_bytes())


def _video_outcome(video: MultiViewVideo, job: VideoJob | TakeJob, folder: str, key: str) -> Outcome:
    """The files of a generated video, and its measures as the summary."""
    _check_video(video)
    about = {
        "key": key,
        "sentence": job.sentence,
        "seed": job.seed,
        "fps": video.fps,
        "geometry": video.geometry.to_json(),
        "background": None if video.background is None else list(video.background),
        "provenance": video.provenance,
    }
    V, T, H, W, _ = video.frames.shape
    files = {
        f"{folder}/{VIDEO}": pack_video(video.frames, video.fps),
        f"{folder}/{STILL}": pack_video(video.still[:, None], video.fps),
        f"{folder}/{ABOUT}": json.dumps(about, indent=1).encode(),
    }
    if video.alpha is not None:
        files[f"{folder}/{GIVEN}"] = pack_alpha(np.ascontiguousarray(video.alpha))
    summary = {"views": V, "frames": T, "height": H, "width": W, **about}
    return Outcome("done", summary, files)


def _check_video(video: MultiViewVideo) -> None:
    shape = np.shape(video.frames)
    if len(shape) != 5 or shape[-1] != 3 or video.frames.dtype != np.uint8 or shape[1] < 2:
        raise ValueError(
            f"the video model returned {video.frames.dtype} {list(shape)}, expected uint8 [V, T, H, W, 3] with at "
            f"least two frames"
        )
    if shape[0] != len(video.geometry) or np.shape(video.still) != (shape[0], *shape[2:]):
        raise ValueError(
            f"the video model returned {shape[0]} views of {shape[3]}×{shape[2]}, {len(video.geometry)} cameras and "
            f"still pictures {list(np.shape(video.still))}: expected one camera and one picture per view"
        )


@dataclass
class PromptStage(Stage):
    """Write the sentences of an object. The payload is {"still", "motions", "heldout", "seed"}.

    Attributes:
        writer: where they come from.
        root: the output; answers of a chat endpoint are kept there, so that none is asked for twice.
    """

    writer: WriterChoice = field(default_factory=WriterChoice)
    root: str = "."
    num_gpus: float = 0.0
    timeout_s: float = 3600.0

    def process(self, task: Task) -> Outcome:
        still = StillObject.from_json(task.payload["still"])
        counts = {name: task.payload[name] for name in ("motions", "heldout", "seed")}
        try:
            plan = write_prompts(self.writer, still, Path(self.root), **counts)
        except ZooError as error:
            return Outcome("filtered", reason=" ".join(str(error).split()))
        prompts = [
            {"text": prompt.text, "heldout": prompt.heldout, "origin": prompt.origin}
            for prompt in plan.prompts
        ]
        return Outcome("done", {"key": task.key, "prompts": prompts, "counts": plan.counts})


@dataclass
class VideoStage(Stage):
    """Generate the video of a prompt.

    Attributes:
        model: which model.
        num_cpus, num_gpus: of one worker.
    """

    model: ModelChoice = field(default_factory=lambda: ModelChoice("mvvdm/tiny"))
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 16 * 2**30
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        self.child_env = {"OMP_NUM_THREADS": str(max(1, int(self.num_cpus)))}

    def setup(self) -> None:
        self._source: VideoSource = open_source_of_videos(self.model, "cuda" if self.num_gpus else "cpu")

    def process(self, task: Task) -> Outcome:
        job = VideoJob.from_json(task.payload)
        try:
            video = self._source.generate(job.still, job.sentence, job.seed)
        except (gltf.GltfError, ZooError, SourceError) as error:  # another attempt would not help
            return Outcome("quarantined", reason=" ".join(str(error).split()))
        return _video_outcome(video, job, job.folder, task.key)


@dataclass
class MatteStage(Stage):
    """Separate the object of a video from its background.

    Attributes:
        root: the output.
        model: see `factory.generation.masks`.
    """

    root: str = "."
    model: ModelChoice = field(default_factory=lambda: ModelChoice("background"))
    num_gpus: float = 0.0
    memory: int = 8 * 2**30

    def setup(self) -> None:
        self._matte = open_matte(self.model, "cuda" if self.num_gpus else "cpu")

    def process(self, task: Task) -> Outcome:
        job = TakeJob.from_json(task.payload)
        folder = Path(self.root, job.folder)
        take = read_take(folder)
        try:
            if (folder / GIVEN).is_file():
                alpha = unpack_alpha((folder / GIVEN).read_bytes())
            else:
                alpha = np.stack([self._matte(frames, take.background) for frames in take.frames])
        except ValueError as error:
            return Outcome("filtered", reason=f"no matte: {' '.join(str(error).split())}")
        summary = {"key": task.key, "empty_frames": int((alpha.max((2, 3)) <= INSIDE).sum())}
        return Outcome("done", summary, {f"{job.folder}/{ALPHA}": pack_alpha(alpha)})


@dataclass
class MeasureStage(Stage):
    """Measure the scores of a video.

    Attributes:
        root: the output.
        model: a vision-language model that answers questions about the first view, or `NO_MODEL`.
        rubric: file with the questions; "" for the packaged one.
        subject: what the object is.
    """

    root: str = "."
    model: ModelChoice = field(default_factory=lambda: ModelChoice(NO_MODEL))
    rubric: str = ""
    subject: str = "object"
    num_gpus: float = 0.0
    memory: int = 8 * 2**30
    timeout_s: float = 3600.0

    def setup(self) -> None:
        from factory.generation.judging.flow import opencv

        self._questions = None
        try:
            opencv()
            if self.model.name != NO_MODEL:
                from factory.generation.judging.questions import PACKAGED, QuestionJudge, Rubric

                rubric = Rubric.load(self.rubric or PACKAGED)
                self._questions = QuestionJudge(self.model.name, rubric, gpu=self.num_gpus > 0)
        except (ImportError, ZooError) as error:
            raise StageError(str(error)) from error

    def process(self, task: Task) -> Outcome:
        job = TakeJob.from_json(task.payload)
        folder = Path(self.root, job.folder)
        take, masks = read_take(folder), read_alpha(folder) > INSIDE
        cameras = take.geometry.cameras(*take.frames.shape[2:4]) if len(take.geometry) > 1 else None
        scores = measure_views(take.frames, masks, take.still, cameras)
        if self._questions is not None:
            scores |= self._questions(take.frames[0], take.fps, self.subject, job.sentence)
        return Outcome("done", {"key": task.key, "scores": scores})


@dataclass
class JudgeStage(Stage):
    """Compare the scores of a video with thresholds. Videos that fail are filtered. The payload is {"scores"}.

    Attributes:
        thresholds: of the scores.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)

    def process(self, task: Task) -> Outcome:
        verdict = decide(task.payload["scores"], self.thresholds)
        summary = {"key": task.key, **verdict.to_json()}
        if verdict.failed:
            return Outcome("filtered", summary, reason=", ".join(verdict.failed))
        return Outcome("done", summary)


@dataclass
class ViewsStage(Stage):
    """Add views to a video from one view.

    Attributes:
        root: the output.
        model: of the views, `module:function`. The function returns an object with
            `add_views(frames: uint8 [T, H, W, 3], image: uint8 [H, W, 3], geometry, seed) -> MultiViewVideo`.
    """

    root: str = "."
    model: ModelChoice = field(default_factory=lambda: ModelChoice("none"))
    num_gpus: float = 0.0
    memory: int = 16 * 2**30
    timeout_s: float = 3600.0

    def setup(self) -> None:
        from factory.generation.video_sources import load_custom

        try:
            self._model = load_custom(self.model)
        except (ImportError, AttributeError, TypeError, ValueError, OSError, ZooError) as error:
            raise StageError(f"--views-model {self.model.name}: {error}") from error

    def process(self, task: Task) -> Outcome:
        job = TakeJob.from_json(task.payload)
        take = read_take(Path(self.root, job.folder))
        video = self._model.add_views(take.frames[0], take.still[0], take.geometry, job.seed)
        return _video_outcome(video, job, job.target, task.key)


@dataclass
class AssembleStage(Stage):
    """Write a motion in DIMO's layout: square frames with straight alpha, fewer and smaller where necessary.

    At full size these can be larger than the video, so that they are written one by one, and no `Outcome.files`.

    Attributes:
        root: the output.
    """

    root: str = "."
    memory: int = 8 * 2**30

    def process(self, task: Task) -> Outcome:
        import torch

        from zoo.dimo.data import shrink

        job = AssembleJob.from_json(task.payload)
        folder = Path(self.root, job.folder)
        background, alpha = _read_about(folder)["background"], read_alpha(folder)
        V, T = alpha.shape[:2]
        shape = (V, len(job.frames), job.resolution, job.resolution, 4)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with atomic_path(Path(self.root, f"{job.file}.npy")) as part, part.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for index, color in enumerate(decoded_frames((folder / VIDEO).read_bytes())):
                view, t = divmod(index, T)
                if t not in job.frames:
                    continue
                frame = square(straight_color(color[None], alpha[view, [t]], background))
                if frame.shape[1] != job.resolution:
                    frame = shrink(torch.from_numpy(frame), job.resolution, job.resolution).numpy()
                stream.write(np.ascontiguousarray(frame).data)
            stream.flush()
            os.fsync(stream.fileno())  # before the task is marked as done
        return Outcome("done", {"key": task.key})


def square(frames: np.ndarray) -> np.ndarray:
    """Pad [..., H, W, 4] with transparency to a square around the same centre."""
    H, W = frames.shape[-3:-1]
    side = max(H, W)
    top, left = (side - H) // 2, (side - W) // 2
    widths = [(0, 0)] * (frames.ndim - 3) + [(top, side - H - top), (left, side - W - left), (0, 0)]
    return np.pad(frames, widths)
