"""Input and output of the mesh back ends: plain data, without any graphics library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from renderers import fixed
from renderers.arguments import array, flag, instance, integer, number, shown
from renderers.background import Background, background_bytes
from renderers.cameras import Cameras
from renderers.gltf import Asset, Pose
from renderers.values import by_value

# Version of the images of each back end. Increase it when pixels change, so that clips are rendered again.
PICTURE_VERSIONS = {"opengl": "2", "pyrender": "1", "blender": "2", "cpu": "1"}
GREY = (127, 127, 127)  # background of MV-VDM, 127/255 (Animate3D)
WHITE = (255, 255, 255)  # background of DIMO


class RenderError(RuntimeError):
    """A back end is not available on this machine, or failed to render. The message says what to do."""


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Shot:
    """The times of an animation to render, and the cameras.

    Attributes:
        animation: index into `asset.animations`; None for the rest pose.
        timestamps: float64 [T], seconds on the time line of the animation.
        asset_to_world: float64 [4, 4], similarity transform from the file's world that centres and scales the asset,
            constant over the clip.
        cameras: V cameras in world space.
        closed: `timestamps` repeat a cycle, which may lack the closing key (`Asset.pose`).
        turntable: seconds per revolution of the posed asset about the vertical axis (+Y, counter-clockwise seen from
            above) through the centre of its bounding box; 0 if it does not turn.
    """

    animation: int | None
    timestamps: np.ndarray
    asset_to_world: np.ndarray
    cameras: Cameras
    closed: bool = False
    turntable: float = 0.0

    def __post_init__(self) -> None:
        instance(self.cameras, Cameras, "Shot.cameras")
        timestamps = array(self.timestamps, "Shot.timestamps", ("T",))
        if not len(timestamps):
            raise ValueError("Shot.timestamps: expected at least one time, got none")
        array(self.asset_to_world, "Shot.asset_to_world", (4, 4))
        number(self.turntable, "Shot.turntable")
        flag(self.closed, "Shot.closed")
        if self.animation is not None:
            object.__setattr__(self, "animation", integer(self.animation, "Shot.animation", 0))

    def pose(self, asset: Asset, time: float) -> Pose:
        """Pose the asset as at a time of this shot."""
        pose = asset.pose(self.animation, float(time), closed=self.closed)
        if not self.turntable:
            return pose
        rotation = turntable_rotation(time, self.turntable)
        return Pose(
            turned(pose.positions, rotation, asset.visible),
            fixed.transformed(pose.normals, rotation).astype(np.float32),
            pose.mirrored,
        )

    def positions(self, asset: Asset, time: float) -> np.ndarray:
        """Return only the positions of `pose`, in about two thirds of the time."""
        positions = asset.positions(self.animation, float(time), closed=self.closed)
        if not self.turntable:
            return positions
        return turned(positions, turntable_rotation(time, self.turntable), asset.visible)

    def centred(self, asset: Asset) -> Shot:
        """Return the shot with a transform for `asset.pose`, whose positions are relative to `asset.origin`."""
        return replace(self, asset_to_world=moved(self.asset_to_world, asset.origin(self.animation)))


def turntable_rotation(time: float, period: float) -> np.ndarray:
    """Return the rotation [3, 3] about +Y by 2 pi time / period, counter-clockwise seen from above."""
    angle = 2.0 * np.pi * float(time) / period
    c, s = fixed.cos(angle), fixed.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def turned(positions: np.ndarray, rotation: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Rotate positions float32 [N, 3] about the centre of the bounding box of the `visible` ones."""
    used = positions[visible]
    centre = 0.5 * (used.min(axis=0).astype(np.float64) + used.max(axis=0))
    return fixed.transformed(positions - centre, rotation, centre).astype(np.float32)


def moved(transform: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return transform @ T(origin), float64 [4, 4]: `transform` for points that are given relative to `origin` [3]."""
    if not origin.any():
        return transform
    transform = np.array(transform, np.float64)
    transform[:3, 3] += fixed.transformed(origin, transform[:3, :3])
    return transform


@dataclass(frozen=True)
class RenderSettings:
    """Rendering options. They are part of the key of a clip, so a change renders it again.

    Attributes:
        samples: anti-aliasing samples per pixel: 1, 4 or 16.
        depth, normals, flow: whether to render these, too.
        tracks: number of surface points to track; 0 for none.
        track_seed: seed for the selection of the points.
    """

    samples: int = 4
    depth: bool = False
    normals: bool = False
    flow: bool = False
    tracks: int = 0
    track_seed: int = 0

    def __post_init__(self) -> None:
        # Numpy integers and booleans become Python's, which can be written as JSON (`hash`).
        for name, low in (("samples", 1), ("tracks", 0), ("track_seed", 0)):
            value = integer(getattr(self, name), f"RenderSettings.{name}", low)
            object.__setattr__(self, name, value)
        for name in ("depth", "normals", "flow"):
            object.__setattr__(self, name, flag(getattr(self, name), f"RenderSettings.{name}"))
        if self.samples not in (1, 4, 16):
            raise ValueError(f"RenderSettings.samples: expected 1, 4 or 16, got {self.samples}")

    @property
    def geometry(self) -> bool:
        """Whether any output other than colour is requested."""
        return self.depth or self.normals or self.flow or self.tracks > 0

    @property
    def bytes_per_pixel(self) -> int:
        """Memory of a rendered clip in bytes per pixel, without tracks."""
        return 4 + 4 * self.depth + 12 * self.normals + 8 * self.flow

    def to_dict(self) -> dict[str, int | bool]:
        """Return the settings as stored in datasets; `RenderSettings(**d)` restores them.

        `flow`, `tracks` and `track_seed` are omitted at their defaults: they were added later, and the keys of existing
        clips must not change.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if value or name not in ("flow", "tracks", "track_seed")
        }

    def hash(self) -> str:
        """Return 16 hexadecimal digits that identify the settings in keys of clips."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Tracks:
    """P surface points, tracked through a clip.

    Attributes:
        points: float32 [T, P, 3], metres, world.
        pixels: float64 [V, T, P, 2], projected positions (x right, y down), also for hidden points and outside the
            image.
        depth: float64 [V, T, P], metres along the optical axis.
        visible: bool [V, T, P], inside the image and not occluded.
    """

    points: np.ndarray
    pixels: np.ndarray
    depth: np.ndarray
    visible: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, visible: np.ndarray, cameras: Cameras) -> Tracks:
        """Create tracks from points [T, P, 3] and visibility [V, T, P]; the points are projected into the cameras."""
        return cls(points, *cameras.project(points), visible)


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class RenderedClip:
    """V synchronised videos of one animated object.

    Attributes:
        frames: uint8 [V, T, H, W, 4], sRGB-encoded colour with straight (not premultiplied) alpha. Composite
            in encoded values: `rgb * a + background * (1 - a)` equals a render over that background.
        cameras: the V cameras.
        timestamps: float64 [T], seconds of the source animation.
        renderer: back end, version of its images, and device, e.g. "opengl 1 (llvmpipe, Mesa 22.3.6)".
        depth: float32 [V, T, H, W], metres along the optical axis, 0 for background.
        normals: float32 [V, T, H, W, 3], unit vectors in world space, 0 for background.
        flow: float32 [V, T-1, H, W, 2], pixels (x right, y down): motion of the surface point at a pixel of frame t
            to frame t + 1, whether or not it is visible there; NaN for background.
        tracks: surface points, tracked.

    Depth, normals, flow and tracks are None unless requested. They describe the first surface at the pixel centre
    that is at least half opaque (for MASK materials: that passes the cutoff), without anti-aliasing.
    """

    frames: np.ndarray
    cameras: Cameras
    timestamps: np.ndarray
    renderer: str
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None
    flow: np.ndarray | None = None
    tracks: Tracks | None = None

    @property
    def mask(self) -> np.ndarray:
        """bool [V, T, H, W]: whether a pixel is at least half covered."""
        return self.frames[..., 3] >= 128

    def over(self, background: Background) -> np.ndarray:
        """Composite the clip over a colour (see `renderers.background`): uint8 [V, T, H, W, 3]."""
        return composite(self.frames, background)


def composite(frames: np.ndarray, background: Background) -> np.ndarray:
    """Composite straight-alpha frames over a colour, rounded to nearest.

    Args:
        frames: uint8 [..., 4].
        background: RGB, floats in 0..1 or integers in 0..255 (`renderers.background`).
    Returns:
        uint8 [..., 3].
    Raises:
        TypeError, ValueError: the frames or the background have another type, shape or values.
    """
    _check_rgba(frames, "composite")
    frames = np.array(frames, np.uint8, order="C")
    composite_in_place(frames, background)
    return frames[..., :3]


def composite_in_place(frames: np.ndarray, background: Background) -> None:
    """Composite contiguous straight-alpha frames uint8 [..., 4] over a background in place; alpha is unchanged.

    Only partially covered pixels need arithmetic, and they are few: ten times as fast as processing every pixel.
    Arguments and errors as of `composite`.
    """
    _check_rgba(frames, "composite_in_place")
    if not frames.flags.c_contiguous or not frames.flags.writeable:
        raise ValueError("composite_in_place: frames: expected a contiguous, writeable array; use composite")
    color = background_bytes(background)
    pixels = frames.view("<u4")[..., 0]
    alpha = pixels >> 24
    pixels[alpha == 0] = np.array([*color, 0], np.uint8).view("<u4")[0]
    partial = np.flatnonzero((alpha > 0) & (alpha < 255))
    flat = frames.reshape(-1, 4)
    weight = flat[partial, 3:].astype(np.uint16)
    colour = flat[partial, :3] * weight + np.asarray(color, np.uint16) * (255 - weight)
    flat[partial, :3] = (colour + 127) // 255


def _check_rgba(frames: np.ndarray, function: str) -> None:
    if not isinstance(frames, np.ndarray):
        raise TypeError(f"{function}: frames: expected a uint8 array [..., 4], got {shown(frames)}")
    if frames.dtype != np.uint8 or frames.shape[-1:] != (4,):
        raise ValueError(
            f"{function}: frames: expected uint8 [..., 4] with straight alpha, got {shown(frames)}"
        )
