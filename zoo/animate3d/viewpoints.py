"""The views that videos of an object are taken from: cameras around its still model, and pictures of it.

Cameras are in the world of the object's file. By default they are the four of MV-VDM: azimuths 0, 90, 180 and 270°,
15° above the horizon, a field of view of 40°, at a distance that leaves room for motion around the still object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from renderers.arguments import array, instance, integer
from renderers.cameras import Cameras, orbit_cameras
from zoo.animate3d.splats.model import SplatModel
from zoo.mvvdm.views import DISTANCE, ELEVATION_DEG, FOV_DEG, framing_of, framing_transform

if TYPE_CHECKING:
    from renderers.gltf import Asset

AZIMUTHS_DEG = (0.0, 90.0, 180.0, 270.0)
# Camera of results' videos: from slightly above, between front and side.
_SHOWN_AZIMUTH_DEG, _SHOWN_ELEVATION_DEG, _SHOWN_FOV_DEG = 35.0, 12.0, 33.9
_MARGIN = 1.1  # of the picture around the moving model


def cameras_around(
    asset: Asset | SplatModel,
    azimuths_deg: Sequence[float] = AZIMUTHS_DEG,
    elevation_deg: float | Sequence[float] = ELEVATION_DEG,
    size: int = 256,
) -> Cameras:
    """Cameras that look at an object at rest from all sides.

    Args:
        asset: the object, a mesh or splats, +Y up, front +Z.
        azimuths_deg: V of them; 0 is in front of the object, 90 on the side of +X.
        elevation_deg: above the horizontal plane, of all cameras or one per camera, within ±90.
        size: width and height of the images, pixels.

    Returns:
        V cameras in the world of the object's file.
    """
    azimuths = array(azimuths_deg, "cameras_around: azimuths_deg", ("V",))
    elevations = array(elevation_deg, "cameras_around: elevation_deg")
    if not len(azimuths) or elevations.shape not in ((), azimuths.shape) or np.abs(elevations).max() > 90:
        raise ValueError(
            f"cameras_around: expected at least one azimuth, and one elevation in -90..90 for all of them or for each, "
            f"got azimuths_deg {azimuths.tolist()} and elevation_deg {elevations.tolist()}"
        )
    size = integer(size, "cameras_around: size", 2, 4096)
    cameras = orbit_cameras(
        np.radians(azimuths),
        np.radians(elevations),
        DISTANCE,
        fov_y=np.radians(FOV_DEG),
        width=size,
        height=size,
    )
    if isinstance(asset, SplatModel):
        return _in_file(cameras, framing_of(asset.points(), cameras))
    return _in_file(cameras, framing_transform(asset, cameras))


def _in_file(cameras: Cameras, transform: np.ndarray) -> Cameras:
    """Cameras in the world of a file, given the file's similarity transform x ↦ s·x + t to the cameras' world.

    The camera sees R(s·x + t) + τ. All lengths are divided by s, which changes no image: R·x + (R·t + τ) / s.
    """
    scale, translation = transform[0, 0], transform[:3, 3]
    matrices = cameras.world_to_camera.copy()
    matrices[:, :3, 3] = (matrices[:, :3, :3] @ translation + matrices[:, :3, 3]) / scale
    return replace(cameras, world_to_camera=matrices)


def relative_to_origin(cameras: Cameras, asset: Asset) -> Cameras:
    """Cameras of the file's world in the coordinates of `asset.pose`, whose positions are relative to its origin."""
    matrices = cameras.world_to_camera.copy()
    matrices[:, :3, 3] += matrices[:, :3, :3] @ asset.origin(None)
    return replace(cameras, world_to_camera=matrices)


def resized(cameras: Cameras, width: int, height: int) -> Cameras:
    """The same cameras with images of another size and the same aspect ratio."""
    if cameras.width * height != cameras.height * width:
        raise ValueError(
            f"the videos are {width}×{height} and the cameras {cameras.width}×{cameras.height}: expected the same "
            f"aspect ratio; crop the videos to it, or give the cameras of the videos"
        )
    K = cameras.K.copy()
    K[:, :2] *= height / cameras.height
    return Cameras(cameras.world_to_camera, K, width, height)


def read_cameras(path: Path) -> Cameras:
    """Read the cameras that `python -m zoo stills` or `python -m zoo render` wrote.

    Raises:
        ValueError: the file does not contain cameras.
    """
    try:
        stored = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the cameras as `zoo stills` writes them, got a file that is not JSON ({error})"
        ) from None
    try:
        return Cameras.from_json(stored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def three_quarter_view(points: np.ndarray, resolution: int, origin: np.ndarray | float = 0.0) -> Cameras:
    """A square view that frames points [n, 3], relative to `origin`, with a small margin."""
    centre = (points.min(0) + points.max(0)) / 2
    radius = max(float(np.linalg.norm(points - centre, axis=1).max()), 1e-9)
    fov = np.radians(_SHOWN_FOV_DEG)
    view = orbit_cameras(
        np.radians([_SHOWN_AZIMUTH_DEG]), np.radians(_SHOWN_ELEVATION_DEG), _MARGIN * radius / np.sin(fov / 2),
        fov_y=fov, width=resolution, height=resolution,
    )  # fmt: skip
    world_to_camera = view.world_to_camera.copy()
    world_to_camera[:, :3, 3] -= world_to_camera[:, :3, :3] @ (centre + origin)
    return Cameras(world_to_camera, view.K, resolution, resolution)


def render_stills(asset: Asset | SplatModel, cameras: Cameras, *, backend: str = "auto") -> np.ndarray:
    """Render an object at rest: uint8 [V, H, W, 4] with straight alpha.

    Args:
        asset: the object, a mesh or splats.
        cameras: V cameras in the world of its file.
        backend: of `renderers.meshes.render_clip`, for meshes.
    """
    from renderers.meshes import Shot, render_clip

    instance(cameras, Cameras, "render_stills: cameras")
    if isinstance(asset, SplatModel):
        from zoo.animate3d.splats.drawing import draw

        return draw(asset.gaussians, cameras, None)
    # In a world where the object has the size that renderers expect, whatever the units of its file.
    points = asset.positions(None, 0.0)[asset.visible]
    scale = 1.0 / float(np.ptp(points, axis=0).max())
    matrices = cameras.world_to_camera.copy()
    matrices[:, :3, 3] *= scale
    near = replace(cameras, world_to_camera=matrices)
    shot = Shot(None, np.zeros(1), np.diag([scale, scale, scale, 1.0]), near)
    return render_clip(asset, shot, backend=backend).frames[:, 0]
