"""Plan an object's motions: their frames, cameras and framing, and which are held out (DIMO §3.1)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np

from factory.assets.record import AssetRecord
from factory.clips.plan import Rejection, frustum_sides, judge
from renderers import fixed, gltf
from renderers.cameras import Cameras, orbit_cameras
from renderers.fields import Count, NotNegative, Positive, Range, Whole, check_fields
from renderers.meshes.clip import moved
from renderers.meshes.opacity import INVISIBLE, triangle_opacity, visible_vertices

MOTIONS_VERSION = "1"  # increment when the same object would give other videos
# Elevations of the held-out views, as fractions of the way from `low_deg` to `high_deg`; some are beyond both.
BEYOND = (0.5, 1.25, -0.25, 0.75)
Elevation = Annotated[float, Range(low=-90, high=90)]
HELDOUT_EVERY = 5  # one in this many motions is held out, unless the source defines the split


@dataclass(frozen=True)
class MotionRecipe:
    """How an object's motions are rendered (DIMO §3.1). Every field is part of a video's key.

    Attributes:
        frames: T. The frames are at phases 0, 1/T … (T-1)/T of a motion, so that a looping motion repeats seamlessly.
        seconds: only the first part of an animation, of this length, is used.
        views: number of training cameras, at evenly spaced azimuths starting in front of the object, alternately at
            elevations `low_deg` and `high_deg`. DIMO's own cameras stay at 0°.
        heldout_views: number of cameras used only for evaluation, half-way between training views and at other
            elevations.
        resolution: side of the square image, pixels.
        low_deg, high_deg: elevations of the training cameras.
        fov_y_deg, distance: of every camera. The world is scaled so that all motions just fit at this distance.
        margin: fraction of the half image that is kept free around all motions.
        points: number of surface points that are tracked through every motion.
        min_motion: motions are poses if no vertex moves further than this, in bounding-box diagonals.
        poses: keep poses.
        heldout: number of motions that are not trained on, chosen by the SHA-256 of their names. -1 = as the source
            defines them (creatures do), otherwise one in five.
        points_seed: of the random choice of surface points. The seed of a training is independent of it.
    """

    frames: Annotated[int, Range(low=2)] = 21
    seconds: Positive = 2.0
    views: Count = 8
    heldout_views: Count = 4
    resolution: Annotated[int, Range(low=16, high=4096)] = 256
    low_deg: Elevation = 0.0
    high_deg: Elevation = 20.0
    fov_y_deg: Annotated[float, Range(above=0, below=170)] = 33.9
    distance: Positive = 2.0
    margin: Annotated[float, Range(low=0, below=0.5)] = 0.03
    points: Count = 1024
    min_motion: NotNegative = 0.0025
    poses: bool = False
    heldout: Annotated[int, Range(low=-1)] = -1
    points_seed: Whole = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.heldout_views > self.views:
            raise ValueError(
                f"MotionRecipe.heldout_views: expected at most {self.views}, one between each two training views, got "
                f"{self.heldout_views}"
            )

    def hash(self) -> str:
        """16 hexadecimal digits that identify the recipe and the planning algorithm."""
        values = asdict(self)
        values["seed"] = values.pop("points_seed")  # its name in the keys of existing ledgers
        text = json.dumps({"motions": MOTIONS_VERSION, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def phases(self) -> np.ndarray:
        """float64 [T], 0 ≤ phase < 1."""
        return np.arange(self.frames) / self.frames

    def cameras(self) -> Cameras:
        """The training cameras, followed by the held-out ones."""
        step = 360.0 / self.views
        gaps = (
            np.arange(self.heldout_views) * self.views // self.heldout_views
        )  # index of the training view before
        azimuths = np.concatenate([step * np.arange(self.views), step * (gaps + 0.5)])
        # Elevations as fractions of the way from low_deg to high_deg.
        fractions = np.concatenate([np.arange(self.views) % 2, np.resize(BEYOND, self.heldout_views)])
        return orbit_cameras(
            np.deg2rad(azimuths),
            np.deg2rad(self.low_deg + (self.high_deg - self.low_deg) * fractions),
            self.distance,
            fov_y=np.deg2rad(self.fov_y_deg),
            width=self.resolution,
            height=self.resolution,
        )

    @property
    def view_splits(self) -> tuple[list[int], list[int]]:
        """Indices of the training cameras and of the held-out ones."""
        return list(range(self.views)), list(range(self.views, self.views + self.heldout_views))


@dataclass(frozen=True)
class AnimationSource:
    """Where the frames of a motion come from when an asset is rendered.

    Attributes:
        animation: index in the asset.
        timestamps: seconds on the animation's time line [T].
        asset_to_world: 16 floats, row-major.
    """

    animation: int
    timestamps: list[float]
    asset_to_world: list[float]


@dataclass(frozen=True)
class ClipSource:
    """Where the frames of a motion come from when a dataset already contains them.

    Attributes:
        clip_id: clip of the dataset.
        views, frames: indices into the clip's views and frames.
    """

    clip_id: str
    views: list[int]
    frames: list[int]


@dataclass(frozen=True)
class MotionPlan:
    """One motion of an object: its name and split, the source of its frames, and its cameras.

    Attributes:
        name, sentence, split: as in `zoo.dimo.data.MotionVideos`.
        seconds: duration.
        source: animation to render, or clip to copy frames from.
        world_to_camera: [V, 4, 4], rigid. K: [V, 3, 3], pixels.
    """

    name: str
    sentence: str
    split: str
    seconds: float
    source: AnimationSource | ClipSource
    world_to_camera: list[list[list[float]]]
    K: list[list[list[float]]]

    def to_json(self) -> dict[str, Any]:
        """The plan as the ledger stores it, with the source under "what"; motion keys hash this JSON."""
        values = asdict(self)
        return {("what" if name == "source" else name): value for name, value in values.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MotionPlan:
        values = dict(data)
        source = values.pop("what")
        kind = ClipSource if "clip_id" in source else AnimationSource
        return cls(source=kind(**source), **values)


def plan_motions(
    asset: gltf.Asset, record: AssetRecord, recipe: MotionRecipe
) -> tuple[list[MotionPlan], list[Rejection]]:
    """Plan every motion of an asset, with one framing for all of them.

    With a point p in the space of the asset, its position in the world is s (p - c): c is the median, over motions, of
    the bounding-box centre of the first frame (most motions start in the rest pose), and

        s = distance / max over vertices p of all frames and motions, and frustum sides n, of n·(p - c)

    is the largest scale at which every p is inside every view (`factory.clips.plan.frustum_sides`). The loop below
    accumulates max n·p for each n, since c is known only after it: n·(p - c) = n·p - n·c.

    Returns:
        The motions, and the animations that give none.
    """
    visible = visible_vertices(asset)
    cameras = recipe.cameras()
    extent = float(fixed.tan(0.5 * np.deg2rad(recipe.fov_y_deg))) * (1.0 - recipe.margin)
    sides = frustum_sides(cameras.world_to_camera[:, :3, :3], extent)
    moving: list[tuple[int, np.ndarray]] = []
    centres, reach, rejected = [], np.full(len(sides), -np.inf), []
    origin = np.zeros(3)  # of the first motion; the points of the others are relative to it, too
    for index, animation in enumerate(asset.animations):
        timestamps = animation.start + min(recipe.seconds, animation.duration) * recipe.phases
        fault, points = _follow(asset, index, timestamps, visible, recipe)
        if fault:
            rejected.append(Rejection(index, animation.name or f"animation {index}", fault))
            continue
        origin = origin if moving else asset.origin(index)
        points = _shifted(points, asset.origin(index) - origin)
        moving.append((index, timestamps))
        centres.append(0.5 * (points[0].min(axis=0) + points[0].max(axis=0)))
        for frame in points:
            reach = _farther(reach, frame, sides.astype(np.float32))
    if not moving:
        return [], rejected
    centre = np.median(np.asarray(centres, np.float64), axis=0)
    scale = recipe.distance / (reach - fixed.transformed(centre, sides)).max()
    asset_to_world = np.diag([scale, scale, scale, 1.0])
    asset_to_world[:3, 3] = -scale * centre
    transform = moved(asset_to_world, -origin).reshape(-1).tolist()
    names = _unique(asset.animations[index].name or f"animation {index}" for index, _ in moving)
    splits = _splits(names, _species(record), recipe)
    plans = []
    for (index, timestamps), name, split in zip(moving, names, splits, strict=True):
        animation = asset.animations[index]
        source = AnimationSource(index, timestamps.tolist(), transform)
        plans.append(
            MotionPlan(
                name=name,
                sentence=animation.description or sentence(name),
                split=split,
                seconds=min(recipe.seconds, animation.duration),
                source=source,
                world_to_camera=cameras.world_to_camera.tolist(),
                K=cameras.K.tolist(),
            )
        )
    return plans, rejected


def _farther(reach: np.ndarray, points: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return the largest n·p of each n, or the entry of `reach` if that is larger.

    The products of BLAS, whose last bits depend on the processor, only select the points that may be the farthest.

    Args:
        reach: float64 [S].
        points: p, float32 [N, 3]. sides: n, float32 [S, 3].
    """
    nearly = points @ sides.T
    margin = 1e-5 * np.abs(points).max() * np.abs(sides).sum(axis=1)
    candidates = (nearly >= np.maximum(nearly.max(axis=0), reach) - margin).any(axis=1)
    if not candidates.any():
        return reach
    return np.maximum(reach, fixed.fused_product(sides, points[candidates].T).max(axis=1))


def _shifted(points: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Add a shift [3] to points float32 [T, N, 3] in float64."""
    return (points + shift).astype(np.float32) if shift.any() else points


def _follow(
    asset: gltf.Asset, index: int, timestamps: np.ndarray, visible: np.ndarray, recipe: MotionRecipe
) -> tuple[str, np.ndarray]:
    """Why an animation gives no motion ("" if it does), and its visible vertices [T, N, 3]."""
    empty = np.empty((0, 0, 3), np.float32)
    if not len(visible):
        return "nothing to see", empty
    if asset.animations[index].fault:
        return asset.animations[index].fault, empty
    length = float(asset.animations[index].duration)
    if length <= 0.0 and not recipe.poses:
        return "zero length", empty
    try:
        points = np.stack([asset.positions(index, time)[visible] for time in timestamps])
    except gltf.GltfError:
        return "moves to infinity", empty
    fps = len(timestamps) / (min(recipe.seconds, length) or recipe.seconds)
    _, fault = judge(points, fps, 0.0 if recipe.poses else recipe.min_motion)
    return fault, points


def _species(record: AssetRecord) -> str:
    """The species of a generated creature; "" for other assets."""
    return record.tags[0] if record.source == "creatures" else ""


def _splits(names: Sequence[str], species: str, recipe: MotionRecipe) -> list[str]:
    """The split of each motion: a creature's own, otherwise from the names' hashes."""
    if species and recipe.heldout < 0:
        from factory.sources import creatures

        defined = {motion.name: motion.split for motion in creatures.motions(species)}
        return [defined[name] for name in names]
    count = len(names) // HELDOUT_EVERY if recipe.heldout < 0 else recipe.heldout
    heldout = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count]
    return ["heldout" if name in heldout else "train" for name in names]


def sentence(name: str) -> str:
    """An animation's name as words: "1H_Melee_Attack_Chop" → "1H melee attack chop"."""
    text = re.sub(r"[\W_]+", " ", name.rpartition("|")[2])
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).split()
    return " ".join(word if word.isupper() or word[:1].isdigit() else word.lower() for word in words) or name


def _unique(names: Iterable[str]) -> list[str]:
    """Names made unique: the second "walk" becomes "walk 2"."""
    unique: dict[str, None] = {}
    for name in names:
        number, candidate = 1, name
        while candidate in unique:
            number += 1
            candidate = f"{name} {number}"
        unique[candidate] = None
    return list(unique)


def surface_points(asset: gltf.Asset, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample points on the visible surface, with a density proportional to area in the rest pose.

    Point k is in the triangle where the cumulative area passes (k + ξ) / count of the total, with one random ξ in
    [0, 1) (systematic sampling: no part of the surface is missed by chance). In the triangle, with r, v uniform in
    [0, 1) and u = √r, its barycentric coordinates 1 - u, u (1 - v), u v are uniform in area.

    Args:
        asset: with its rest pose.
        count: number of points P.
        seed: of ξ, r and v.
    Returns:
        corners int64 [P, 3], the vertices of each point's triangle, and weights float32 [P, 3]. In any pose, the
        points are at `(positions[corners] * weights[..., None]).sum(1)`.
    """
    opacities = triangle_opacity(asset)
    triangles = np.concatenate(
        [p.triangles[o != INVISIBLE] for p, o in zip(asset.primitives, opacities, strict=True)]
    ).astype(np.int64)
    corners = asset.positions(None, 0.0)[triangles].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    if not areas.any():  # scaled to a point in the rest pose: choose among triangles uniformly
        areas[:] = 1.0
    rng = np.random.default_rng(seed)
    steps = (np.arange(count) + rng.random()) / count
    chosen = triangles[np.searchsorted(np.cumsum(areas) / areas.sum(), steps).clip(max=len(triangles) - 1)]
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    return chosen, np.stack([1 - u, u * (1 - v), u * v], -1).astype(np.float32)


def plan_clips(rows: Sequence[dict[str, Any]], recipe: MotionRecipe) -> tuple[list[MotionPlan], str]:
    """Plan the motions of one asset from its clips in a dataset.

    Even views are for training; every other odd view is held out. Every clip has a world of its own, in which it just
    fits its cameras. The common world is that of the clip with the smallest scale, shrunk from the field of view and
    distance of the dataset's cameras to those of the recipe.

    Args:
        rows: `Clip.metadata` of each clip.
        recipe: of the motions; its cameras are not used.
    Returns:
        The motions, and why there are none ("" if there are).
    """
    for column in ("num_frames", "num_views", "height", "width"):
        if len({row[column] for row in rows}) != 1:
            return [], f"its clips differ in {column}"
    if rows[0]["height"] != rows[0]["width"]:
        return [], "its clips are not square"
    train, heldout = clip_views(rows[0]["num_views"])
    views = [*train, *heldout]
    frames = clip_frames(rows[0]["num_frames"], recipe)
    transforms = [np.asarray(row["asset_to_world"], np.float64).reshape(4, 4) for row in rows]
    smallest = int(np.argmin([transform[0, 0] for transform in transforms]))
    clip = rows[smallest]
    # A camera's half image covers tan(fov / 2) · distance at the origin.
    extent = float(fixed.tan(0.5 * np.deg2rad(clip["fov_y_deg"]))) * clip["distance"]
    shrink = float(fixed.tan(0.5 * np.deg2rad(recipe.fov_y_deg))) * recipe.distance / extent
    asset_to_world = np.array([[shrink], [shrink], [shrink], [1.0]]) * transforms[smallest]
    animations = [row["animation_index"] for row in rows]
    names = _unique(
        row["animation_name"]
        + (f" ({row['window']})" if animations.count(row["animation_index"]) > 1 else "")
        for row in rows
    )
    species = rows[0]["asset_uid"].split("-")[1] if rows[0]["source"] == "creatures" else ""
    plans = []
    for row, transform, name, split in zip(
        rows, transforms, names, _splits(names, species, recipe), strict=True
    ):
        world_to_camera = np.asarray(row["world_to_camera"], np.float64).reshape(-1, 4, 4)[views]
        plans.append(
            MotionPlan(
                name=name,
                sentence=row["caption"] or sentence(row["animation_name"]),
                split=split,
                seconds=row["num_frames"] / row["fps"],
                source=ClipSource(row["clip_id"], views, frames.tolist()),
                world_to_camera=_in_world(
                    world_to_camera, fixed.product(transform, fixed.inverse(asset_to_world))
                ).tolist(),
                K=np.asarray(row["K"], np.float64).reshape(-1, 3, 3)[views].tolist(),
            )
        )
    return plans, ""


def clip_views(count: int) -> tuple[list[int], list[int]]:
    """Indices of a clip's training views and of its held-out views. `count`: number of its views."""
    return list(range(0, count, 2)), list(range(1, count, 4))


def clip_frames(count: int, recipe: MotionRecipe) -> np.ndarray:
    """Indices of the frames nearest to the recipe's phases, in a clip of `count` frames."""
    return np.rint(recipe.phases * count).astype(int)


def _in_world(world_to_camera: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Rigid cameras [V, 4, 4] of another world.

    With M a camera and S = `similarity`, from the new world to the camera's, the new camera is M S without its scale
    s = det(S)^(1/3): a pinhole projection does not change when camera coordinates are scaled, so dividing the first
    three rows by s makes it rigid and keeps the image.
    """
    moved = fixed.product(world_to_camera, similarity)
    moved[:, :3] /= fixed.power(fixed.determinant(similarity[:3, :3]), 1 / 3)
    return moved
