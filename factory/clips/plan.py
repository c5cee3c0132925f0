"""Which clips an asset gives, and how each is framed (methods §1.1–1.2), decided from every frame before rendering."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from factory.clips.quality import measure_motion
from renderers.cameras import Cameras, orbit_cameras, orbit_rotations
from renderers.gltf import Animation, Asset, GltfError
from renderers.meshes import Shot
from renderers.meshes.opacity import INVISIBLE, triangle_opacity

PLANNING_VERSION = "1"  # raise it when the same asset would give other clips
_LOOP_TOLERANCE = 0.01  # of the diagonal: end pose to start pose of an animation that repeats


@dataclass(frozen=True)
class ClipRecipe:
    """The MV-Video recipe (methods §1.1–1.2); every field is part of a clip's key.

    Attributes:
        fps, num_frames: 24 frames a second, 48 frames: 2 seconds.
        views: cameras evenly spaced in azimuth.
        resolution: pixels, square.
        max_animations: more are drawn at random, by the seed.
        max_elevation_deg: one elevation a clip, uniform in 0..this.
        azimuth_jitter_deg: one offset a clip, uniform in ± this: half a view step.
        fov_y_deg, distance: of every camera; the asset is scaled so that this distance is the tightest.
        margin: part of the half image that stays free at the tightest point.
        min_motion: a clip whose fastest vertex stays within this part of the diagonal does not move.
        min_duration: seconds; shorter animations are poses, not motions.
        seed: of every random choice.
    """

    fps: int = 24
    num_frames: int = 48
    views: int = 16
    resolution: int = 256
    max_animations: int = 6
    max_elevation_deg: float = 30.0
    azimuth_jitter_deg: float = 11.25
    fov_y_deg: float = 40.0
    distance: float = 3.0
    margin: float = 0.03
    min_motion: float = 0.0025
    min_duration: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("fps", 1), ("num_frames", 2), ("views", 1), ("max_animations", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"ClipRecipe.{name}: expected at least {least}, got {getattr(self, name)}")
        if not 16 <= self.resolution <= 4096 or self.resolution % 2:
            raise ValueError(
                f"ClipRecipe.resolution: expected an even number of pixels from 16 to 4096 (video is coded in pairs), "
                f"got {self.resolution}"
            )
        if not 0.0 < self.fov_y_deg < 170.0 or self.distance <= 0.0 or not 0.0 <= self.margin < 0.5:
            raise ValueError(
                f"ClipRecipe: expected fov_y_deg in (0, 170), distance > 0 and margin in [0, 0.5), got "
                f"{self.fov_y_deg:g}, {self.distance:g}, {self.margin:g}"
            )

    def hash(self) -> str:
        text = json.dumps({"planning": PLANNING_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ClipPlan:
    """One clip, decided: all that rendering needs beside the asset.

    Attributes:
        animation: index in the asset. animation_name: as its author wrote it, or "animation 3".
        window: "first" or "last" 2 s; for shorter animations "loop" (repeats) or "hold" (last pose stays).
        start_time, end_time: seconds on the animation's time line of the first and last frame.
        timestamps: seconds [T].
        elevation_deg, azimuth_offset_deg: of the views.
        asset_to_world: 16 floats, row-major: centres the first frame's bounding box, scales to the distance.
        motion: named statistics, lengths in first-frame bounding-box diagonals.
        measures: more of them, that say nothing of what is rendered (factory/curation.py); no part of a clip's key.
    """

    animation: int
    animation_name: str
    window: str
    start_time: float
    end_time: float
    timestamps: tuple[float, ...]
    elevation_deg: float
    azimuth_offset_deg: float
    asset_to_world: tuple[float, ...]
    motion: dict[str, float]
    measures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClipPlan:
        sequences = {name: tuple(data[name]) for name in ("timestamps", "asset_to_world")}
        return cls(**{**data, **sequences})

    def shot(self, recipe: ClipRecipe) -> Shot:
        """The plan as a renderer takes it."""
        return Shot(
            animation=self.animation,
            timestamps=np.asarray(self.timestamps, np.float64),
            asset_to_world=np.asarray(self.asset_to_world, np.float64).reshape(4, 4),
            cameras=clip_cameras(recipe, self.elevation_deg, self.azimuth_offset_deg),
        )


@dataclass(frozen=True)
class Rejection:
    """An animation, or one window of it, that gives no clip, and why."""

    animation: int
    animation_name: str
    reason: str


def plan_asset(
    asset: Asset, identity: str, recipe: ClipRecipe, *, measure: bool = True
) -> tuple[list[ClipPlan], list[Rejection]]:
    """Decide the clips of an asset.

    Args:
        identity: the asset's fingerprint; with the recipe's seed it fixes every random choice.
        measure: also fill in each clip's `measures`.
    """
    opacities = zip(asset.primitives, triangle_opacity(asset), strict=True)
    seen = np.concatenate([part.triangles[opacity != INVISIBLE] for part, opacity in opacities])
    visible, faces = np.unique(seen, return_inverse=True)
    faces = faces.reshape(-1, 3) if measure else None
    if not len(visible):  # every triangle is fully transparent
        return [], [Rejection(i, _name(asset, i), "nothing to see") for i in range(len(asset.animations))]
    decided = [
        decision
        for index in _chosen(asset, identity, recipe)
        for decision in _plan_animation(asset, index, visible, faces, identity, recipe)
    ]
    return (
        [decision for decision in decided if isinstance(decision, ClipPlan)],
        [decision for decision in decided if isinstance(decision, Rejection)],
    )


def _plan_animation(
    asset: Asset,
    index: int,
    visible: np.ndarray,
    faces: np.ndarray | None,
    identity: str,
    recipe: ClipRecipe,
) -> Iterator[ClipPlan | Rejection]:
    animation, name = asset.animations[index], _name(asset, index)
    if animation.duration < recipe.min_duration:
        reason = "zero length" if animation.duration <= 0 else f"shorter than {recipe.min_duration:g} s"
        yield Rejection(index, name, reason)
        return
    rng = _rng(recipe.seed, identity, "view", str(index))
    elevation = rng.uniform(0.0, recipe.max_elevation_deg)
    offset = rng.uniform(-recipe.azimuth_jitter_deg, recipe.azimuth_jitter_deg)
    try:
        for window, timestamps in _windows(asset, index, recipe):
            # One coordinate after the other in memory: numpy reduces over vertices many times as fast.
            points = np.empty((len(timestamps), 3, len(visible)), np.float32).swapaxes(1, 2)
            for t, time in enumerate(timestamps):
                points[t] = asset.positions(index, time)[visible]
            motion, fault = judge(points, recipe.fps, recipe.min_motion)
            if fault:
                yield Rejection(index, name, f"{fault} ({window} window)")
                continue
            transform = _framing(points, elevation, offset, recipe)
            measures = {}
            if faces is not None:
                cameras = clip_cameras(recipe, elevation, offset)
                measures = measure_motion(points, faces, transform, cameras)
            yield ClipPlan(
                animation=index,
                animation_name=name,
                window=window,
                start_time=float(timestamps[0]),
                end_time=float(timestamps[-1]),
                timestamps=tuple(float(t) for t in timestamps),
                elevation_deg=float(elevation),
                azimuth_offset_deg=float(offset),
                asset_to_world=tuple(float(x) for x in transform.reshape(-1)),
                motion=motion,
                measures=measures,
            )
    except GltfError:  # a moment that cannot be posed; the asset's other animations may be fine
        yield Rejection(index, name, "moves to infinity")


def judge(points: np.ndarray, fps: float, min_motion: float) -> tuple[dict[str, float], str]:
    """How visible vertices [T, N, 3] move, and what is wrong with that ("" = nothing)."""
    if not np.ptp(points, axis=1).any():  # scaled to nothing all the time
        return {}, "nothing to see"
    with np.errstate(over="ignore", invalid="ignore"):
        motion = motion_statistics(points, fps)
    if not np.isfinite(list(motion.values())).all():
        return motion, "moves to infinity"
    return motion, "motionless" if motion["motion_reach"] < min_motion else ""


def _name(asset: Asset, index: int) -> str:
    return asset.animations[index].name or f"animation {index}"


def clip_cameras(recipe: ClipRecipe, elevation_deg: float, azimuth_offset_deg: float) -> Cameras:
    """The ring of views of one clip."""
    return orbit_cameras(
        _azimuths(recipe, azimuth_offset_deg),
        np.deg2rad(elevation_deg),
        recipe.distance,
        fov_y=np.deg2rad(recipe.fov_y_deg),
        width=recipe.resolution,
        height=recipe.resolution,
    )


def _azimuths(recipe: ClipRecipe, azimuth_offset_deg: float) -> np.ndarray:
    return np.deg2rad(azimuth_offset_deg + 360.0 / recipe.views * np.arange(recipe.views))


def _rng(*parts: object) -> np.random.Generator:
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def _chosen(asset: Asset, identity: str, recipe: ClipRecipe) -> list[int]:
    count = len(asset.animations)
    if count <= recipe.max_animations:
        return list(range(count))
    rng = _rng(recipe.seed, identity, "animations")
    return sorted(int(i) for i in rng.choice(count, recipe.max_animations, replace=False))


def _windows(asset: Asset, index: int, recipe: ClipRecipe) -> list[tuple[str, np.ndarray]]:
    """The moments of each clip of an animation.

    The recipe takes the first 2 s, and the last 2 s too of more than 4 s. It says nothing of animations shorter
    than 2 s, which games are full of: those that end where they began go round, others keep their last pose.
    """
    animation = asset.animations[index]
    steps = np.arange(recipe.num_frames) / recipe.fps
    length = recipe.num_frames / recipe.fps
    if animation.duration >= steps[-1]:
        windows = [("first", animation.start + steps)]
        if animation.duration > 2.0 * length:
            windows.append(("last", animation.end - length + steps + 1.0 / recipe.fps))
        return windows
    if _repeats(asset, index, animation):
        return [("loop", animation.start + np.mod(steps, animation.duration))]
    return [("hold", np.minimum(animation.start + steps, animation.end))]


def _repeats(asset: Asset, index: int, animation: Animation) -> bool:
    first = asset.positions(index, animation.start)[asset.visible]
    last = asset.positions(index, animation.end)[asset.visible]
    diagonal = np.linalg.norm(np.ptp(first, axis=0))
    return bool(np.linalg.norm(last - first, axis=-1).max() <= _LOOP_TOLERANCE * diagonal)


def motion_statistics(points: np.ndarray, fps: float) -> dict[str, float]:
    """Named measures of how vertices [T, N, 3] move; lengths in first-frame bounding-box diagonals.

    motion_reach: farthest any vertex gets from where it began. motion_travel: farthest the bounding-box
    centre gets. motion_speed, motion_speed_max: mean over vertices and frames, and the largest over frames of
    the mean over vertices, per second. motion_size_min, motion_size_max: smallest and largest diagonal.
    Of an object that grows from a point, lengths are in its largest diagonals.
    """
    low, high = points.min(axis=1), points.max(axis=1)
    diagonals = np.linalg.norm(high - low, axis=-1)
    diagonal = float(diagonals[0] or diagonals.max())
    centres = 0.5 * (low + high)
    reach = np.sqrt(max(float(np.square(frame - points[0]).sum(-1).max()) for frame in points))
    speeds = [float(np.linalg.norm(b - a, axis=-1).mean()) * fps for a, b in pairwise(points)]
    return {
        "motion_reach": float(reach) / diagonal,
        "motion_travel": float(np.linalg.norm(centres - centres[0], axis=-1).max()) / diagonal,
        "motion_speed": float(np.mean(speeds)) / diagonal,
        "motion_speed_max": float(np.max(speeds)) / diagonal,
        "motion_size_min": float(diagonals.min()) / diagonal,
        "motion_size_max": float(diagonals.max()) / diagonal,
    }


def _framing(
    points: np.ndarray, elevation_deg: float, azimuth_offset_deg: float, recipe: ClipRecipe
) -> np.ndarray:
    """asset_to_world [4, 4]: first-frame box centre to the origin, scaled so that the clip just fits."""
    first = points[0]
    centre = 0.5 * (first.min(axis=0).astype(np.float64) + first.max(axis=0))
    rotations = orbit_rotations(_azimuths(recipe, azimuth_offset_deg), np.deg2rad(elevation_deg))
    extent = np.tan(0.5 * np.deg2rad(recipe.fov_y_deg)) * (1.0 - recipe.margin)
    distance = 0.0
    for frame in points:
        distance = tightest_distance(frame - centre.astype(np.float32), rotations, extent, at_least=distance)
    scale = recipe.distance / distance
    transform = np.eye(4)
    transform[:3, :3] *= scale
    transform[:3, 3] = -scale * centre
    return transform


def frustum_sides(rotations: np.ndarray, extent: float) -> np.ndarray:
    """The four sides of V views as directions [4 V, 3], all equally long.

    Seen by cameras at a distance that look at the origin, a point p is inside where side · p <= distance.
    """
    x, y, z = rotations[:, 0], rotations[:, 1], rotations[:, 2]
    return np.concatenate([x / extent - z, -x / extent - z, y / extent - z, -y / extent - z])


def tightest_distance(
    points: np.ndarray, rotations: np.ndarray, extent: float, *, at_least: float = 0.0
) -> float:
    """Smallest distance of cameras looking at the origin from which all points are inside the image.

    A point at camera-plane offset (x, y) and depth z past the origin is inside when max(|x|, |y|) <= extent *
    (distance + z): each point, view and side of the image gives a lower bound, and the answer is the largest.

    Args:
        points: [N, 3] about the origin. rotations: world_to_camera [V, 3, 3]. extent: tangent of the usable half
            field of view. at_least: a bound that is known already; points that cannot raise it are skipped.
    """
    sides = frustum_sides(rotations, extent)
    reach = np.sqrt(np.square(points).sum(axis=-1)) * np.hypot(1.0 / extent, 1.0)
    outer = points[reach > at_least]
    if not len(outer):
        return at_least
    return max(at_least, *(float((outer @ side).max()) for side in sides))
