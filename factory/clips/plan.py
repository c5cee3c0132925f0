"""Plan an asset's clips and framing from its posed vertices, before any rendering (Animate3D's dataset MV-Video)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from factory.clips.cycles import ends_in_first_pose, is_static, lacks_closing_key, still_notes
from factory.clips.quality import measure_motion
from factory.dataset.notes import cycle_note
from renderers import fixed
from renderers.cameras import Cameras, orbit_cameras, orbit_rotations
from renderers.fields import Count, NotNegative, Positive, Range, check_fields
from renderers.gltf import Asset, GltfError
from renderers.meshes import Shot
from renderers.meshes.clip import moved, turned, turntable_rotation
from renderers.meshes.opacity import INVISIBLE, triangle_opacity

PLANNING_VERSION = "1"  # increment when the same asset would give other clips
TURNTABLE = -1  # instead of the index of an animation


@dataclass(frozen=True)
class ClipRecipe:
    """The MV-Video recipe (Animate3D, training dataset). Every field is part of a clip's key.

    Attributes:
        fps, num_frames: frame rate and length of a clip; by default 48 frames at 24 fps, which is 2 s.
        views: number of cameras, evenly spaced in azimuth.
        resolution: side of the square image, pixels.
        max_animations: clips are made of at most this many animations per asset, drawn at random if it has more.
        max_elevation_deg: each clip's elevation is uniform in [0, max_elevation_deg].
        azimuth_jitter_deg: each clip's azimuth offset is uniform in ± this; the default is half a view step.
        fov_y_deg, distance: of every camera. The asset is scaled so that it just fits at this distance.
        margin: fraction of the half image that is kept free around the asset.
        min_motion: clips are motionless if no vertex moves further than this, in bounding-box diagonals.
        min_duration: seconds; shorter animations are treated as poses and left out.
        seed: of every random choice.
    """

    fps: Count = 24
    num_frames: Annotated[int, Range(low=2)] = 48
    views: Count = 16
    resolution: Annotated[int, Range(low=16, high=4096)] = 256
    max_animations: Count = 6
    max_elevation_deg: Annotated[float, Range(low=0, high=90)] = 30.0
    azimuth_jitter_deg: Annotated[float, Range(low=0, high=180)] = 11.25
    fov_y_deg: Annotated[float, Range(above=0, below=170)] = 40.0
    distance: Positive = 3.0
    margin: Annotated[float, Range(low=0, below=0.5)] = 0.03
    min_motion: NotNegative = 0.0025
    min_duration: NotNegative = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resolution % 2:
            raise ValueError(
                f"ClipRecipe.resolution: expected an even number of pixels (H.264 subsamples chroma by two), got "
                f"{self.resolution}"
            )

    def hash(self) -> str:
        """16 hexadecimal digits that identify the recipe and the planning algorithm."""
        text = json.dumps({"planning": PLANNING_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ClipPlan:
    """Everything that rendering one clip needs besides the asset.

    Attributes:
        animation: index in the asset; -1 for the rest pose on a turntable.
        animation_name: as in the asset, or "animation 3" if it has none.
        window: "first" or "last" 2 s of the animation; for shorter ones "loop" (repeated) or "hold" (last pose held);
            "turntable" if the asset is not animated and turns once about the vertical axis.
        start_time, end_time: of the first and last frame, seconds on the animation's time line.
        timestamps: of all frames, seconds [T].
        elevation_deg, azimuth_offset_deg: of the ring of views.
        asset_to_world: 16 floats, row-major; centres the first frame's bounding box and scales it to the cameras.
        motion: statistics of `motion_statistics`.
        measures: statistics of `factory.clips.quality.measure_motion`. They do not affect the rendered clip, so they
            are not part of its key.
        notes: how the clip differs from what the file specifies, besides the notes of the asset; not part of its key.
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
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "notes" or value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClipPlan:
        sequences = {name: tuple(data.get(name, ())) for name in ("timestamps", "asset_to_world", "notes")}
        return cls(**{**data, **sequences})

    def shot(self, recipe: ClipRecipe) -> Shot:
        """The input of a renderer."""
        turns = self.animation == TURNTABLE
        return Shot(
            animation=None if turns else self.animation,
            timestamps=np.asarray(self.timestamps, np.float64),
            asset_to_world=np.asarray(self.asset_to_world, np.float64).reshape(4, 4),
            cameras=clip_cameras(recipe, self.elevation_deg, self.azimuth_offset_deg),
            closed=self.window == "loop",
            turntable=recipe.num_frames / recipe.fps if turns else 0.0,
        )


@dataclass(frozen=True)
class Rejection:
    """An animation, or one window of it, that gives no clip, and the reason."""

    animation: int
    animation_name: str
    reason: str


def plan_asset(
    asset: Asset,
    identity: str,
    recipe: ClipRecipe,
    *,
    measure: bool = True,
    turntable: bool = False,
    only: Sequence[int] | None = None,
) -> tuple[list[ClipPlan], list[Rejection]]:
    """Plan the clips of an asset.

    Args:
        asset: with its animations.
        identity: the asset's fingerprint; together with the recipe's seed it determines every random choice.
        recipe: of the clips.
        measure: also compute each clip's `measures`.
        turntable: make a clip of an asset that is not animated, in which it turns once.
        only: indices of the animations to make clips of, instead of all.
    Returns:
        The clips, and the animations or windows that give none.
    """
    opacities = zip(asset.primitives, triangle_opacity(asset), strict=True)
    triangles = np.concatenate([part.triangles[opacity != INVISIBLE] for part, opacity in opacities])
    visible, corners = np.unique(triangles, return_inverse=True)
    faces = corners.reshape(-1, 3) if measure else None
    if not len(visible):  # every triangle is fully transparent
        return [], [Rejection(i, _name(asset, i), "nothing to see") for i in range(len(asset.animations))]
    indices = _select_animations(asset, identity, recipe) if only is None else list(only)
    if turntable and is_static(asset):
        indices.append(TURNTABLE)
    results = [
        result
        for index in indices
        for result in _plan_animation(asset, index, visible, faces, identity, recipe)
    ]
    return (
        [result for result in results if isinstance(result, ClipPlan)],
        [result for result in results if isinstance(result, Rejection)],
    )


def _plan_animation(
    asset: Asset,
    index: int,
    visible: np.ndarray,
    faces: np.ndarray | None,
    identity: str,
    recipe: ClipRecipe,
) -> Iterator[ClipPlan | Rejection]:
    """The clips of one animation. `visible`: indices of the N vertices that can be seen; `faces`: [F, 3] of those."""
    name = _name(asset, index)
    if reason := _fault(asset, index, recipe):
        yield Rejection(index, name, reason)
        return
    rng = _rng(recipe.seed, identity, "view", str(index))
    elevation = rng.uniform(0.0, recipe.max_elevation_deg)
    offset = rng.uniform(-recipe.azimuth_jitter_deg, recipe.azimuth_jitter_deg)
    try:
        for window, timestamps, notes in _windows(asset, index, recipe):
            points = _posed(asset, index, window, timestamps, visible)
            motion, fault = judge(points, recipe.fps, recipe.min_motion)
            if fault:
                yield Rejection(index, name, f"{fault} ({window} window)")
                continue
            transform = _framing(points, elevation, offset, recipe)
            measures = {}
            if faces is not None:
                cameras = clip_cameras(recipe, elevation, offset)
                measures = measure_motion(points, faces, transform, cameras)
            # The points are relative to the asset's origin; the clip's transform is from the file's world.
            transform = moved(transform, -asset.origin(None if index == TURNTABLE else index))
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
                notes=(*notes, *still_notes(points, recipe.fps)),
            )
    except GltfError:  # a pose is not finite; the asset's other animations may be fine
        yield Rejection(index, name, "moves to infinity")


def _fault(asset: Asset, index: int, recipe: ClipRecipe) -> str:
    """Why an animation gives no clips, "" if it may give some."""
    if index == TURNTABLE:
        return ""
    animation = asset.animations[index]
    if animation.fault or animation.duration >= recipe.min_duration:
        return animation.fault
    return "zero length" if animation.duration <= 0 else f"shorter than {recipe.min_duration:g} s"


def judge(points: np.ndarray, fps: float, min_motion: float) -> tuple[dict[str, float], str]:
    """Motion statistics of visible vertices, and why they make no clip.

    Args:
        points: [T, N, 3].
        fps: frame rate.
        min_motion: the smallest reach of a clip that moves, in bounding-box diagonals.
    Returns:
        `motion_statistics`, and "nothing to see", "moves to infinity", "motionless" or "".
    """
    if not np.ptp(points, axis=1).any():  # scaled to a point in every frame
        return {}, "nothing to see"
    with np.errstate(over="ignore", invalid="ignore"):
        motion = motion_statistics(points, fps)
    if not np.isfinite(list(motion.values())).all():
        return motion, "moves to infinity"
    return motion, "motionless" if motion["motion_reach"] < min_motion else ""


def _name(asset: Asset, index: int) -> str:
    if index == TURNTABLE:
        return "turntable"
    return asset.animations[index].name or f"animation {index}"


def clip_cameras(recipe: ClipRecipe, elevation_deg: float, azimuth_offset_deg: float) -> Cameras:
    """The ring of cameras of one clip: one elevation, evenly spaced azimuths, all looking at the origin."""
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


def _select_animations(asset: Asset, identity: str, recipe: ClipRecipe) -> list[int]:
    """Indices of all animations, or of a random subset of `max_animations` and those that cannot give clips."""
    faulty = [index for index in range(len(asset.animations)) if _fault(asset, index, recipe)]
    valid = [index for index in range(len(asset.animations)) if not _fault(asset, index, recipe)]
    if len(valid) > recipe.max_animations:
        rng = _rng(recipe.seed, identity, "animations")
        valid = [valid[i] for i in rng.choice(len(valid), recipe.max_animations, replace=False)]
    return sorted(valid + faulty)


def _windows(asset: Asset, index: int, recipe: ClipRecipe) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
    """Name, timestamps [T] and notes of each clip of an animation.

    MV-Video takes the first 2 s, and of animations longer than 4 s also the last 2 s (dataset card). It does not
    specify what happens to animations shorter than 2 s, which are common in game assets: here, those that end in
    their first pose are looped, and others hold their last pose. Cycles without the closing key, which end one key
    interval before their first pose, are looped, too; their period includes this interval.
    """
    steps = np.arange(recipe.num_frames) / recipe.fps
    length = recipe.num_frames / recipe.fps
    if index == TURNTABLE:
        return [("turntable", steps, ())]
    animation = asset.animations[index]
    if animation.duration >= steps[-1]:
        windows: list[tuple[str, np.ndarray, tuple[str, ...]]] = [("first", animation.start + steps, ())]
        if animation.duration > 2.0 * length:
            windows.append(("last", animation.end - length + steps + 1.0 / recipe.fps, ()))
        return windows
    if ends_in_first_pose(asset, index):
        return [("loop", animation.start + np.mod(steps, animation.duration), ())]
    if lacks_closing_key(asset, index):
        period = animation.duration + animation.key_interval
        return [("loop", animation.start + np.mod(steps, period), (cycle_note(period),))]
    return [("hold", np.minimum(animation.start + steps, animation.end), ())]


def _posed(asset: Asset, index: int, window: str, timestamps: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Positions float32 [T, N, 3] of the `visible` vertices in a window."""
    # Stored as [T, 3, N], so that reductions over vertices read contiguous memory: many times faster.
    points = np.empty((len(timestamps), 3, len(visible)), np.float32).swapaxes(1, 2)
    if index == TURNTABLE:
        rest, period = asset.positions(None, 0.0), len(timestamps) * (timestamps[1] - timestamps[0])
        for t, time in enumerate(timestamps):
            points[t] = turned(rest, turntable_rotation(time, period), asset.visible)[visible]
        return points
    for t, time in enumerate(timestamps):
        points[t] = asset.positions(index, time, closed=window == "loop")[visible]
    return points


def motion_statistics(points: np.ndarray, fps: float) -> dict[str, float]:
    """Statistics of the motion of vertices, by column name.

    With p_i(t) the position of vertex i, c(t) the centre and d(t) the diagonal of the bounding box in frame t, and
    D = d(0), or max_t d(t) if the object starts as a point:

        motion_reach        max over i, t of |p_i(t) - p_i(0)| / D
        motion_travel       max over t of |c(t) - c(0)| / D
        motion_speed        mean over i, t of |p_i(t+1) - p_i(t)| · fps / D, in diagonals per second
        motion_speed_max    max over t of its mean over i
        motion_size_min     min over t of d(t) / D
        motion_size_max     max over t of d(t) / D

    Args:
        points: [T, N, 3].
        fps: frame rate.
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
    """asset_to_world [4, 4]: moves the first frame's bounding-box centre c to the origin and scales by s.

    x_world = s (x - c) with s = distance / d*, where d* is the tightest distance of the unscaled asset
    (`tightest_distance`) over all frames: scaling the asset by s instead of moving the cameras to d* gives the same
    image, and the same camera distance for every clip.
    """
    first = points[0]
    centre = 0.5 * (first.min(axis=0).astype(np.float64) + first.max(axis=0))
    rotations = orbit_rotations(_azimuths(recipe, azimuth_offset_deg), np.deg2rad(elevation_deg))
    extent = float(fixed.tan(0.5 * np.deg2rad(recipe.fov_y_deg))) * (1.0 - recipe.margin)
    distance = 0.0
    for frame in points:
        distance = tightest_distance(frame - centre.astype(np.float32), rotations, extent, at_least=distance)
    scale = recipe.distance / distance
    transform = np.eye(4)
    transform[:3, :3] *= scale
    transform[:3, 3] = -scale * centre
    return transform


def frustum_sides(rotations: np.ndarray, extent: float) -> np.ndarray:
    """The four sides of each view's frustum, as vectors n [4 V, 3] of equal length.

    With the rows x, y, z of a camera's rotation (right, down, forward), a point p is at depth d + z·p in front of a
    camera that looks at the origin from distance d. It is left of the right border of the image if
    x·p <= extent (d + z·p), that is if (x / extent - z)·p <= d; the other three borders give -x, y and -y instead
    of x. So p is inside the image if n·p <= d for all four n.

    Args:
        rotations: world_to_camera [V, 3, 3].
        extent: tangent of the usable half field of view.
    """
    x, y, z = rotations[:, 0], rotations[:, 1], rotations[:, 2]
    return np.concatenate([x / extent - z, -x / extent - z, y / extent - z, -y / extent - z])


def tightest_distance(
    points: np.ndarray, rotations: np.ndarray, extent: float, *, at_least: float = 0.0
) -> float:
    """Smallest distance of cameras looking at the origin from which all points are inside the image.

    Every frustum side n and point p gives a lower bound n·p <= d (`frustum_sides`); the result is their maximum.

    Args:
        points: [N, 3], relative to the point that the cameras look at.
        rotations: world_to_camera [V, 3, 3].
        extent: tangent of the usable half field of view.
        at_least: a lower bound that is known already; points that cannot exceed it are skipped.
    """
    sides = frustum_sides(rotations, extent)
    # n·p <= |n| |p| with |n|² = 1 / extent² + 1, as x, y and z are orthonormal: points within this reach are inside.
    reach = np.sqrt(np.square(points).sum(axis=-1)) * fixed.hypot(1.0 / extent, 1.0)
    outer = points[reach > at_least]
    if not len(outer):
        return at_least
    x, y, z = outer.T.astype(np.float64)
    for a, b, c in sides:
        nearly = x * a + y * b + z * c
        largest = max(at_least, float(nearly.max())) * (1.0 - 1e-12)
        at_least = max([at_least, *(_fused_dot(p, (a, b, c)) for p in outer[nearly >= largest])])
    return at_least


def _fused_dot(p: np.ndarray, n: tuple[float, float, float]) -> float:
    """Return n·p with fused multiply-adds: n_z p_z + (n_x p_x + n_y p_y), rounded once after each addition.

    BLAS computes it so on x86-64 with AVX-512. Other processors get the same framing, to the last bit, and clips that
    were planned before keep their keys.
    """
    x, y, z = (Fraction(float(each)) for each in p)
    a, b, c = (Fraction(float(each)) for each in n)
    last = Fraction(float(y * b))
    last = Fraction(float(x * a + last))
    return float(z * c + last)
