"""What every mesh back end takes and gives: plain data, importable anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from renderers.cameras import Cameras

# Version of the images of each back end. Increase it when pixels change, so that clips are rendered again.
PICTURE_VERSIONS = {"opengl": "1", "pyrender": "1", "blender": "1"}
GREY = (127, 127, 127)  # MV-VDM's background, 127/255 (methods §1.2)
WHITE = (255, 255, 255)  # DIMO's


class RenderError(RuntimeError):
    """A back end cannot render here, or could not render this asset. The message says what to do."""


@dataclass(frozen=True)
class Shot:
    """Which moments of which animation are seen from where.

    Attributes:
        animation: index into `asset.animations`; None = the asset at rest.
        timestamps: float64 [T], seconds on the animation's own time line.
        asset_to_world: float64 [4, 4], the similarity that centres and scales the asset for the whole clip.
        cameras: V cameras in that world.
    """

    animation: int | None
    timestamps: np.ndarray
    asset_to_world: np.ndarray
    cameras: Cameras


@dataclass(frozen=True)
class RenderSettings:
    """How a shot is rendered; part of every clip's key, so a change of it renders again.

    Attributes:
        samples: anti-aliasing samples per pixel: 1, 4 or 16.
        depth, normals, flow: also return these.
        tracks: follow this many points of the surface; 0 = none. track_seed: which points.
    """

    samples: int = 4
    depth: bool = False
    normals: bool = False
    flow: bool = False
    tracks: int = 0
    track_seed: int = 0

    def __post_init__(self) -> None:
        if self.samples not in (1, 4, 16):
            raise ValueError(f"RenderSettings.samples: expected 1, 4 or 16, got {self.samples}")
        if self.tracks < 0 or self.track_seed < 0:
            raise ValueError(
                f"RenderSettings: expected tracks and track_seed of at least 0, got {self.tracks} and "
                f"{self.track_seed}"
            )

    @property
    def geometry(self) -> bool:
        """Whether anything beside colour is asked for."""
        return self.depth or self.normals or self.flow or self.tracks > 0

    @property
    def bytes_per_pixel(self) -> int:
        """How much memory a rendered clip takes, tracks aside."""
        return 4 + 4 * self.depth + 12 * self.normals + 8 * self.flow

    def to_dict(self) -> dict[str, int | bool]:
        """The settings as they are stored; `RenderSettings(**d)` gives them back.

        Flow and tracks came after the first datasets: unasked for, they are left out, so that nobody's keys change.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if value or name not in ("flow", "tracks", "track_seed")
        }

    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tracks:
    """P points of the surface, followed through a clip.

    Attributes:
        points: float32 [T, P, 3], metres, world.
        pixels: float64 [V, T, P, 2], where the views have them (x right, y down), also when hidden or outside.
        depth: float64 [V, T, P], metres along the optical axis.
        visible: bool [V, T, P]: inside the picture and not hidden by the surface.
    """

    points: np.ndarray
    pixels: np.ndarray
    depth: np.ndarray
    visible: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, visible: np.ndarray, cameras: Cameras) -> Tracks:
        """Points [T, P, 3] and who sees them [V, T, P], with their places in the pictures of V cameras."""
        return cls(points, *cameras.project(points), visible)


@dataclass(frozen=True)
class RenderedClip:
    """V synchronised videos of one moving object.

    Attributes:
        frames: uint8 [V, T, H, W, 4], sRGB-encoded colour with straight (not premultiplied) alpha. Alpha
            composites in encoded values: `rgb * a + background * (1 - a)` is what a render on that background
            would have given.
        cameras: the V cameras. timestamps: float64 [T], seconds of the source animation.
        renderer: back end, its version and its device, e.g. "opengl 1 (llvmpipe, Mesa 22.3.6)".
        depth: float32 [V, T, H, W], metres along the optical axis, 0 where nothing is.
        normals: float32 [V, T, H, W, 3], unit, world space, 0 where nothing is.
        flow: float32 [V, T-1, H, W, 2], pixels (x right, y down): how far what is seen at a pixel of frame t has
            moved in frame t + 1, seen there or not; NaN where nothing is.
        tracks: points of the surface, followed.

    Depth, normals, flow and tracks are None unless asked for. They are of the first surface that is at least half
    opaque, at the pixel's centre, not anti-aliased; of MASK materials, of what passes the cutoff.
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
        """bool [V, T, H, W]: pixels at least half covered."""
        return self.frames[..., 3] >= 128

    def over(self, background: Sequence[int]) -> np.ndarray:
        """The clip on a background colour, uint8 [V, T, H, W, 3]. `background`: RGB 0-255, sRGB-encoded."""
        return composite(self.frames, background)


def composite(frames: np.ndarray, background: Sequence[int]) -> np.ndarray:
    """Straight-alpha frames uint8 [..., 4] on a background RGB 0-255; uint8 [..., 3], rounded to nearest."""
    frames = np.array(frames, np.uint8, order="C")
    composite_in_place(frames, background)
    return frames[..., :3]


def composite_in_place(frames: np.ndarray, background: Sequence[int]) -> None:
    """Put contiguous straight-alpha frames uint8 [..., 4] on a background; alpha stays as it is.

    Only silhouettes need arithmetic, and they are few: ten times as fast as treating every pixel.
    """
    pixels = frames.view("<u4")[..., 0]
    alpha = pixels >> 24
    pixels[alpha == 0] = np.array([*background, 0], np.uint8).view("<u4")[0]
    rim = np.flatnonzero((alpha > 0) & (alpha < 255))
    flat = frames.reshape(-1, 4)
    weight = flat[rim, 3:].astype(np.uint16)
    colour = flat[rim, :3] * weight + np.asarray(background, np.uint16) * (255 - weight)
    flat[rim, :3] = (colour + 127) // 255
