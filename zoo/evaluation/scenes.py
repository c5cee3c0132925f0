"""True clips from animated glTF files: the truth of protocols for whole assets, rendered here.

The kernels of the renderer `cpu` compute the same bits on every processor, so that the SHA-256 of the files fixes the
videos up to the last bits of the poses (docs/rasteriser.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renderers.cameras import Cameras, orbit_cameras
from renderers.meshes import RenderSettings, Shot, render_clip
from zoo.evaluation import controls
from zoo.evaluation.canonical import file_digest
from zoo.evaluation.errors import EvaluationError, TruthError
from zoo.evaluation.media import Media
from zoo.evaluation.protocol import OWN, Protocol
from zoo.evaluation.tasks import Assignment, Measurement, measure_pairs, missing_truth

if TYPE_CHECKING:
    from renderers.gltf import Asset, Pose
    from renderers.meshes import RenderedClip

BACKEND = "cpu"
FOLDER = "assets"  # in the output folder of `python -m factory.evaluate --truth-only`
HALVINGS = 40  # of the interval in which the scale of a clip is sought


@dataclass(frozen=True, eq=False)
class Scene:
    """One animation of a file at T times.

    Attributes:
        name: "object/motion".
        asset: the file.
        animation: index of the motion.
        times: float64 [T], seconds on its time line.
    """

    name: str
    asset: Asset
    animation: int
    times: np.ndarray

    @property
    def object(self) -> str:
        return self.name.partition("/")[0]

    @property
    def caption(self) -> str:
        """What happens, as the file's author describes it."""
        animation = self.asset.animations[self.animation]
        return animation.description or animation.name.replace("-", " ")

    @cached_property
    def positions(self) -> np.ndarray:
        """Positions of all vertices, float64 [T, N, 3], relative to `asset.origin`."""
        return np.array([self.asset.positions(self.animation, time) for time in self.times], np.float64)

    @property
    def still(self) -> Pose:
        """The pose at the first time."""
        return self.asset.pose(self.animation, float(self.times[0]))

    def framed(self, cameras: Cameras, margin: float) -> np.ndarray:
        """Asset-to-world transform float64 [4, 4] that centres the first frame and fits all frames into all images.

        Args:
            cameras: square, looking at the origin.
            margin: fraction of half the image that stays free on all sides.
        """
        visible = self.positions[:, self.asset.visible]
        centre = (visible[0].min(0) + visible[0].max(0)) / 2
        points = (visible - centre).reshape(-1, 3)
        reach = np.linalg.norm(points, axis=1).max()
        distance = np.linalg.norm(cameras.world_to_camera[0, :3, 3])
        low, high = 0.0, float(distance / reach)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if _inside(points * middle, cameras, margin) else (low, middle)
        matrix = np.diag([low, low, low, 1.0])
        matrix[:3, 3] = -low * (centre + self.asset.origin(self.animation))
        return matrix

    def render(self, asset_to_world: np.ndarray, cameras: Cameras, *, depth: bool = False) -> RenderedClip:
        """Videos from V cameras."""
        shot = Shot(self.animation, self.times, asset_to_world, cameras)
        return render_clip(self.asset, shot, RenderSettings(samples=4, depth=depth), backend=BACKEND)


def _inside(points: np.ndarray, cameras: Cameras, margin: float) -> bool:
    pixels, depth = cameras.project(points)
    half = cameras.width / 2
    return bool((depth > 0).all() and (np.abs(pixels - half) <= half * (1 - margin)).all())


def orbit(settings: dict[str, Any], resolution: int, offset_deg: float = 0.0) -> Cameras:
    """The cameras of a protocol: azimuths, elevation, distance and field of view in its settings."""
    azimuths = np.radians(np.asarray(settings["azimuths_deg"], np.float64) + offset_deg)
    return orbit_cameras(
        azimuths,
        np.radians(settings["elevation_deg"]),
        settings["distance"],
        fov_y=np.radians(settings["fov_deg"]),
        width=resolution,
        height=resolution,
    )


def open_scenes(
    assignment: Assignment, own_truth: bool
) -> tuple[list[Scene], list[Scene], Protocol, dict[str, str]]:
    """The clips of a protocol's files, the other clips of the same files, the protocol, and file → SHA-256.

    The settings "clips_per_object" says how many of a file's clips are evaluated; the others serve as controls.

    Raises:
        TruthError: a file is missing, or is another one than the protocol's.
    """
    from renderers.gltf import load

    protocol = assignment.protocol
    scenes: list[Scene] = []
    others: list[Scene] = []
    hashes: dict[str, str] = {}
    settings = protocol.settings
    times = np.arange(settings["frames"]) * (settings["seconds"] / settings["frames"])
    for name, entry in protocol.content["objects"].items():
        file = _file(assignment, name)
        hashes[name] = file_digest(file)
        asset = load(file, name=name)
        names = [animation.name for animation in asset.animations]
        for number, clip in enumerate(entry["clips"]):
            if clip not in names:
                raise TruthError(f"{file} has no motion {clip!r}; it has {', '.join(names)}")
            scene = Scene(f"{name}/{clip}", asset, names.index(clip), times)
            (scenes if number < settings["clips_per_object"] else others).append(scene)
    return scenes, others, _checked(assignment, hashes, own_truth), hashes


def _file(assignment: Assignment, name: str) -> Path:
    folder = assignment.truth
    candidates = [] if folder is None else [folder / FOLDER / f"{name}.glb", folder / f"{name}.glb"]
    for file in candidates:
        if file.is_file():
            return file
    raise missing_truth(assignment.protocol, name, folder)


def _checked(assignment: Assignment, hashes: dict[str, str], own_truth: bool) -> Protocol:
    protocol = assignment.protocol
    objects = protocol.content["objects"]
    wrong = [name for name, sha256 in hashes.items() if set(objects[name]["clips"].values()) != {sha256}]
    if not wrong:
        return protocol
    if not own_truth:
        raise TruthError(
            f"{wrong[0]}.glb is not the file of {protocol.title}: its sha256 is {hashes[wrong[0]]}; make the truth "
            f"again with `{protocol.command(wrong[0])}`, or evaluate on this one with --own-truth: the result then has "
            f"a protocol hash and a table of its own"
        )
    own = {
        name: {**entry, "clips": dict.fromkeys(entry["clips"], hashes[name])}
        for name, entry in objects.items()
    }
    return Protocol({**protocol.content, "name": f"{protocol.name}{OWN}own", "objects": own})


def sibling(scenes: list[Scene], others: list[Scene], index: int) -> Scene | None:
    """Another clip of the same object; None if there is none."""
    scene = scenes[index]
    candidates = [each for each in (*others, *scenes) if each.object == scene.object and each is not scene]
    if not candidates:
        return None
    return candidates[0]


def check_objects(protocol: Protocol) -> None:
    """Refuse a protocol without clips."""
    if not protocol.content["objects"]:
        raise EvaluationError(f"{protocol.title}: lists no objects")


class SceneTask:
    """Clips that are scenes, as `measure_pairs` takes them. A subclass renders a true clip, and predicts one."""

    def __init__(
        self, assignment: Assignment, scenes: list[Scene], others: list[Scene], settings: dict[str, Any]
    ) -> None:
        self.scenes, self.others, self.settings = scenes, others, settings
        self.models = dict(assignment.models)
        self.names: Sequence[str] = [scene.name for scene in scenes]
        self.shown: dict[int, np.ndarray] = {}
        self._rendered = lru_cache(maxsize=3)(self.render)

    @classmethod
    def measure(cls, assignment: Assignment, own_truth: bool = False) -> Measurement:
        """Open the scenes of a protocol and score the models and controls on them."""
        check_objects(assignment.protocol)
        scenes, others, protocol, hashes = open_scenes(assignment, own_truth)
        task = cls(assignment, scenes, others, protocol.settings)
        rows = measure_pairs(task, assignment, protocol)
        return Measurement(protocol, "", hashes, rows, task.pictures)

    def render(self, scene: Scene) -> Media:
        """The true clip of a scene."""
        raise NotImplementedError(f"{type(self).__name__}.render")

    def predict(self, label: str, index: int) -> Media:
        """The clip of a model."""
        raise NotImplementedError(f"{type(self).__name__}.predict")

    def truth(self, index: int) -> Media:
        """The true clip."""
        return self._rendered(self.scenes[index])

    def control(self, name: str, index: int) -> Media | None:
        """Another clip's truth; None for other controls, which need no rendering, or without another clip."""
        other = sibling(self.scenes, self.others, index)
        return None if name != controls.OTHER or other is None else self._rendered(other)

    def pictures(self, index: int) -> tuple[np.ndarray | None, np.ndarray]:
        """Frames of the truth and of the model from the first view."""
        truth = self.truth(index).frames
        assert truth is not None
        return truth[0], self.shown[index]
