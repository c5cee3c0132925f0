"""Recipe and task payloads of generated motion videos, as the driver writes them and the workers read them.

The JSON of a payload is part of the ledger, and the parts of a key are hashed: neither may change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cluster import task_key
from factory.assets.record import AssetRecord
from factory.generation.judging import Thresholds
from renderers.cameras import Cameras, orbit_cameras

STAGES = ("prompts", "videos", "matte", "measure", "judge", "views", "assemble")
GENERATION_VERSION = "1"  # increment when the same inputs would give other outputs
MEASURE_VERSION = "2"  # increment when the same video would have other scores
NO_MODEL = "none"


@dataclass(frozen=True)
class StillObject:
    """The object to set in motion.

    Attributes:
        name: of its folders and of its model.
        record: of its file; `record.source` is "image" for a picture and "videos" for a folder of videos, otherwise
            the file is a 3D model.
        category: what it is, in a word or two, for prompts.
        elevation_deg: of the camera that took a picture, as the user gives it; not used for a 3D model.
    """

    name: str
    record: AssetRecord
    category: str
    elevation_deg: float = 0.0

    @property
    def is_image(self) -> bool:
        return self.record.source == "image"

    @property
    def is_model(self) -> bool:
        return self.record.source not in ("image", "videos")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "record": self.record.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StillObject:
        return cls(**{**data, "record": AssetRecord.from_json(data["record"])})


@dataclass(frozen=True)
class ModelChoice:
    """A model by name, and options of its loader.

    Attributes:
        name: as given by the user.
        options: JSON values.
        revision: of a model in a registry; "" if it is not known before loading.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    revision: str = ""

    @property
    def identity(self) -> str:
        """Part of the keys of what the model makes."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelChoice:
        return cls(**data)


@dataclass(frozen=True)
class WriterChoice:
    """Where prompts come from.

    Attributes:
        kind: "vocabulary", "endpoint", "local", "file", "animations" (those of the object's own file), or
            "videos" (the motions of a folder of videos).
        name: body kind of the vocabulary ("" = chosen from the category), or name of the chat model.
        url: of a chat endpoint.
        sentences: of a file.
    """

    kind: str = "vocabulary"
    name: str = ""
    url: str = ""
    sentences: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sentences": list(self.sentences)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WriterChoice:
        return cls(**{**data, "sentences": tuple(data["sentences"])})


@dataclass(frozen=True)
class GenerationRecipe:
    """What is generated for an object, and how.

    Attributes:
        motions: number of prompts.
        heldout: how many of them are not trained on.
        seed: of prompts and videos.
        writer, video_model, views_model, matte: where prompts, videos, further views and masks come from. The name of
            a model that is not used is `NO_MODEL`.
        judge_model: a vision-language model that answers the questions of `rubric`.
        rubric: text file with questions, by default the packaged one.
        thresholds: of the judges.
        frames, resolution: at most these are kept when motions are assembled; generated frames are never multiplied
            or enlarged.
    """

    motions: int = 60
    heldout: int = 10
    seed: int = 0
    writer: WriterChoice = WriterChoice()
    video_model: ModelChoice = ModelChoice("mvvdm/tiny")
    views_model: ModelChoice = ModelChoice(NO_MODEL)
    matte: ModelChoice = ModelChoice("background")
    judge_model: ModelChoice = ModelChoice(NO_MODEL)
    rubric: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)
    frames: int = 21
    resolution: int = 256


@dataclass(frozen=True)
class ViewGeometry:
    """Cameras of a generated video: on a sphere around the object, looking at its centre.

    Attributes:
        azimuths_deg, elevations_deg: one per view. 0 is in front of the object, azimuth 90 on the side of +X.
        fov_y_deg, distance: vertical field of view, and distance to the centre; the unit is that of the model's world.
    """

    azimuths_deg: tuple[float, ...]
    elevations_deg: tuple[float, ...]
    fov_y_deg: float
    distance: float

    def __len__(self) -> int:
        return len(self.azimuths_deg)

    def cameras(self, height: int, width: int, distance: float | None = None) -> Cameras:
        """The cameras, at another distance if given."""
        return orbit_cameras(
            np.radians(np.asarray(self.azimuths_deg, np.float64)),
            np.radians(np.asarray(self.elevations_deg, np.float64)),
            self.distance if distance is None else distance,
            fov_y=float(np.radians(self.fov_y_deg)),
            width=width,
            height=height,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "azimuths_deg": list(self.azimuths_deg),
            "elevations_deg": list(self.elevations_deg),
            "fov_y_deg": self.fov_y_deg,
            "distance": self.distance,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ViewGeometry:
        return cls(
            tuple(data["azimuths_deg"]), tuple(data["elevations_deg"]), data["fov_y_deg"], data["distance"]
        )


@dataclass(frozen=True, eq=False)
class MultiViewVideo:
    """A generated video in V views.

    Attributes:
        frames: uint8 [V, T, H, W, 3].
        still: uint8 [V, H, W, 3], pictures that the video was to begin with.
        fps: frames per second.
        geometry: of the V cameras.
        background: colour behind the object; None = not one known colour.
        provenance: of the model: its name, revision and licence, as JSON values.
        alpha: uint8 [V, T, H, W], coverage of the object if it is known; None = to be found by the matte.
    """

    frames: np.ndarray
    still: np.ndarray
    fps: float
    geometry: ViewGeometry
    background: tuple[int, int, int] | None
    provenance: dict[str, Any]
    alpha: np.ndarray | None = None


@dataclass(frozen=True)
class VideoJob:
    """Generate the video of one prompt, in all views that the model has.

    Attributes:
        still: the object.
        sentence: what happens.
        seed: of the noise.
        folder: where its files are written, relative to the output.
    """

    still: StillObject
    sentence: str
    seed: int
    folder: str

    def to_json(self) -> dict[str, Any]:
        return {
            "still": self.still.to_json(),
            "sentence": self.sentence,
            "seed": self.seed,
            "folder": self.folder,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VideoJob:
        return cls(StillObject.from_json(data["still"]), data["sentence"], data["seed"], data["folder"])


@dataclass(frozen=True)
class TakeJob:
    """Process a video that was generated before: matte, judge, or add views.

    Attributes:
        folder: of the video, relative to the output.
        target: folder of the result; the same except for added views.
        sentence: what happens.
        seed: of the noise.
    """

    folder: str
    target: str
    sentence: str
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TakeJob:
        return cls(**data)


@dataclass(frozen=True)
class AssembleJob:
    """Write one motion in the layout of `zoo.dimo.data.MotionVideos`.

    Attributes:
        folder: of the video, relative to the output.
        file: path of the result without suffix, relative to the output.
        frames: indices of the frames to keep.
        resolution: side of the images.
    """

    folder: str
    file: str
    frames: tuple[int, ...]
    resolution: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "frames": list(self.frames)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AssembleJob:
        return cls(**{**data, "frames": tuple(data["frames"])})


def key_of(stage: str, *parts: str) -> str:
    """Key of a task: the stage, and everything that its result depends on."""
    return task_key("generation", GENERATION_VERSION, stage, *parts)
