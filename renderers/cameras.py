"""Pinhole cameras: OpenCV axes, matrices named by direction, intrinsics K in pixels.

World: that of glTF (right-handed, +Y up, assets face +Z). Camera: x right, y down, z forward.
Azimuth 0 is a camera on +Z and increases towards +X; elevation > 0 is a camera above the object.
Conversions to other conventions (OpenGL, the z-up camera vectors of MV-VDM) are at the end of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renderers import fixed
from renderers.arguments import array, instance, integer, number, shown
from renderers.values import by_value

LARGEST_SIDE = 1 << 16  # of an image, in pixels
CONVENTION = "opencv: x right, y down, z forward; world_to_camera; world +Y up, right-handed"


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Cameras:
    """V pinhole cameras with one image size.

    Attributes:
        world_to_camera: float64 [V, 4, 4], rigid transforms.
        K: float64 [V, 3, 3], intrinsics in pixels; the centre of the top-left pixel is (0.5, 0.5).
        width, height: image size in pixels.
    """

    world_to_camera: np.ndarray
    K: np.ndarray
    width: int
    height: int

    def __post_init__(self) -> None:
        world_to_camera = array(self.world_to_camera, "Cameras.world_to_camera")
        intrinsics = array(self.K, "Cameras.K")
        views = len(world_to_camera) if world_to_camera.ndim else 0
        if world_to_camera.shape != (views, 4, 4) or intrinsics.shape != (views, 3, 3):
            raise ValueError(
                f"Cameras: expected world_to_camera [V, 4, 4] and K [V, 3, 3] with the same V, "
                f"got {world_to_camera.shape} and {intrinsics.shape}"
            )
        object.__setattr__(self, "world_to_camera", world_to_camera)
        object.__setattr__(self, "K", intrinsics)
        for name in ("width", "height"):
            side = integer(getattr(self, name), f"Cameras.{name}", 1, LARGEST_SIDE)
            object.__setattr__(self, name, side)

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def __getitem__(self, views: int | slice | Sequence[int] | np.ndarray) -> Cameras:
        """Select cameras by index, slice, list of indices or mask; always returns a batch."""
        try:
            indices = np.atleast_1d(np.arange(len(self))[views])
        except (IndexError, TypeError, ValueError):
            raise IndexError(
                f"Cameras[views]: expected indices below {len(self)}, a slice or a mask, got {shown(views)}"
            ) from None
        return Cameras(self.world_to_camera[indices], self.K[indices], self.width, self.height)

    def to_json(self) -> dict[str, Any]:
        """Return the cameras as JSON values, with a sentence on the convention; `from_json` restores them."""
        return {
            "convention": CONVENTION,
            "width": self.width,
            "height": self.height,
            "world_to_camera": self.world_to_camera.tolist(),
            "K": self.K.tolist(),
        }

    @classmethod
    def from_json(cls, content: Any) -> Cameras:
        """Create cameras from the value of `to_json`.

        Raises:
            ValueError: a field is absent, or is of another type, shape or range.
        """
        try:
            return cls(content["world_to_camera"], content["K"], content["width"], content["height"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(
                "cameras: expected an object with width, height, world_to_camera [V, 4, 4] and K [V, 3, 3]; "
                f"got one with {reason}"
            ) from None

    @property
    def camera_to_world(self) -> np.ndarray:
        """float64 [V, 4, 4]; the columns are right, down, forward, position."""
        return fixed.inverse(self.world_to_camera)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project world points.

        Args:
            points: [..., 3], metres, world.
        Returns:
            pixels float64 [V, ..., 2] (x right, y down) and depth float64 [V, ...] along the optical axis.
        """
        points = array(points, "Cameras.project: points", ("...", 3), finite=False)
        flat = points.reshape(-1, 3)
        camera = np.stack(
            [fixed.transformed(flat, pose[:3, :3], pose[:3, 3]) for pose in self.world_to_camera]
        )
        image = np.stack([fixed.transformed(*each) for each in zip(camera, self.K, strict=True)])
        depth = camera[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = image[..., :2] / depth[..., None]
        shape = (len(self), *points.shape[:-1])
        return pixels.reshape(*shape, 2), depth.reshape(shape)


def intrinsics(fov_y: float, width: int, height: int) -> np.ndarray:
    """Return K [3, 3] in pixels of a pinhole camera with centred principal point.

    Args:
        fov_y: vertical field of view, radians.
        width, height: image size in pixels.
    """
    fov_y = number(fov_y, "fov_y", above=0.0, high=np.nextafter(np.pi, 0.0))
    width, height = (
        integer(each, name, 1, LARGEST_SIDE) for each, name in ((width, "width"), (height, "height"))
    )
    focal = 0.5 * height / float(fixed.tan(0.5 * fov_y))
    return np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])


def orbit_rotations(azimuths: np.ndarray, elevations: np.ndarray | float) -> np.ndarray:
    """Return world-to-camera rotations float64 [V, 3, 3] of cameras that look at the origin.

    Args:
        azimuths: radians [V]; 0 is a camera on +Z, increasing towards +X.
        elevations: radians [V] or one value; > 0 is a camera above.
    """
    azimuths = array(np.atleast_1d(azimuths), "azimuths", ("V",))
    elevations = array(elevations, "elevations")
    if elevations.shape not in ((), (1,), azimuths.shape):
        raise ValueError(
            f"elevations: expected one or {len(azimuths)}, as azimuths, got {list(elevations.shape)}"
        )
    elevations = np.broadcast_to(elevations, azimuths.shape)
    zero = np.zeros_like(azimuths)
    # In closed form, without an up vector: "right" is also defined for a camera straight above.
    sine, cosine = fixed.sin(azimuths), fixed.cos(azimuths)
    up_sine, up_cosine = fixed.sin(elevations), fixed.cos(elevations)
    right = np.stack([cosine, zero, -sine], -1)
    backward = np.stack([up_cosine * sine, up_sine, up_cosine * cosine], -1)
    up = np.cross(backward, right)
    return np.stack([right, -up, -backward], axis=1)


def orbit_cameras(
    azimuths: np.ndarray,
    elevations: np.ndarray | float,
    distance: float,
    *,
    fov_y: float,
    width: int,
    height: int,
) -> Cameras:
    """Return cameras on a sphere around the origin that look at it.

    Args:
        azimuths: radians [V]; 0 is a camera on +Z, increasing towards +X.
        elevations: radians [V] or one value; > 0 is a camera above.
        distance: metres from the origin.
        fov_y: vertical field of view, radians.
        width, height: image size in pixels.
    """
    distance = number(distance, "distance", above=0.0)
    rotations = orbit_rotations(azimuths, elevations)
    world_to_camera = np.tile(np.eye(4), (len(rotations), 1, 1))
    world_to_camera[:, :3, :3] = rotations
    world_to_camera[:, 2, 3] = distance
    K = np.tile(intrinsics(fov_y, width, height), (len(rotations), 1, 1))
    return Cameras(world_to_camera, K, width, height)


# --- conversions to other conventions -----------------------------------------------------

_FLIP_YZ = np.array([[1.0], [-1.0], [-1.0], [1.0]])


def to_opengl(world_to_camera: np.ndarray) -> np.ndarray:
    """Convert world_to_camera [..., 4, 4] from OpenCV axes to OpenGL axes (y up, looking along -z). Self-inverse."""
    matrices = array(world_to_camera, "world_to_camera", ("...", 4, 4), finite=False)
    return _FLIP_YZ * matrices + 0.0  # turns -0 into 0


def opengl_projection(cameras: Cameras, near: float, far: float) -> np.ndarray:
    """Return projection matrices [V, 4, 4] from OpenGL camera coordinates to clip space, depth in -1..1.

    Args:
        near, far: distances of the clipping planes, metres.
    """
    instance(cameras, Cameras, "opengl_projection: cameras")
    near = number(near, "opengl_projection: near", above=0.0)
    far = number(far, "opengl_projection: far", above=near)
    K = cameras.K
    projection = np.zeros((len(cameras), 4, 4))
    projection[:, 0, 0] = 2.0 * K[:, 0, 0] / cameras.width
    projection[:, 0, 1] = -2.0 * K[:, 0, 1] / cameras.width
    projection[:, 0, 2] = 1.0 - 2.0 * K[:, 0, 2] / cameras.width
    projection[:, 1, 1] = 2.0 * K[:, 1, 1] / cameras.height
    projection[:, 1, 2] = 2.0 * K[:, 1, 2] / cameras.height - 1.0
    projection[:, 2, 2] = -(far + near) / (far - near)
    projection[:, 2, 3] = -2.0 * far * near / (far - near)
    projection[:, 3, 2] = -1.0
    return projection


# From glTF's world (y up, z front) to a z-up world in which azimuth 0 is on +x and increases towards +y (MV-VDM).
# Azimuths are preserved: +Z (front) maps to +x, and +X to +y.
_Y_UP_TO_Z_UP = [2, 0, 1]  # rows


def mvvdm_camera_vectors(cameras: Cameras) -> np.ndarray:
    """Return the camera conditioning of MV-VDM, float64 [V, 16], with the normalisation of MVDream (Shi et al. 2023).

    It is the row-major camera_to_world matrix with columns right, up, -forward in a z-up world, and the position
    scaled to the unit sphere. It therefore contains neither distance nor field of view.
    """
    instance(cameras, Cameras, "mvvdm_camera_vectors: cameras")
    camera_to_world = fixed.inverse(to_opengl(cameras.world_to_camera))
    camera_to_world[:, :3] = camera_to_world[:, _Y_UP_TO_Z_UP]
    position = camera_to_world[:, :3, 3]
    camera_to_world[:, :3, 3] = position / (fixed.norm(position)[:, None] + 1e-8)
    return camera_to_world.reshape(len(cameras), 16)


# Multiplying a camera vector by these factors gives the camera mirrored at the plane x = 0 (of the image:
# left-right), which sees the mirrored image of a mirrored world.
MVVDM_MIRROR = np.outer([1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 1.0]).reshape(16)
