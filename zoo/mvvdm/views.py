"""The condition images of MV-VDM, renderings of the static object, and their cameras.

Azimuth, elevation, field of view and distance are those of Animate3D's official inference.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from renderers.arguments import instance, integer
from renderers.cameras import Cameras, orbit_cameras
from renderers.files import file_path

if TYPE_CHECKING:
    from renderers.gltf import Asset

ELEVATION_DEG, FOV_DEG, DISTANCE = 15.0, 40.0, 3.0
MARGIN = 0.15  # fraction of half the image left free around the static object, as room for its motion


def condition_cameras(views: int = 4, size: int = 256) -> Cameras:
    """Cameras at evenly spaced azimuths, beginning at the front: 0, 90, 180 and 270° for four views.

    `renderers.cameras.mvvdm_camera_vectors` converts them to the network's input.

    Args:
        views: V.
        size: side of the images in pixels.
    """
    size = integer(size, "condition_cameras: size", 1, 4096)
    return orbit_cameras(
        azimuths(integer(views, "condition_cameras: views", 1, 1000)),
        np.radians(ELEVATION_DEG),
        DISTANCE,
        fov_y=np.radians(FOV_DEG),
        width=size,
        height=size,
    )


def azimuths(views: int) -> np.ndarray:
    """V evenly spaced azimuths in radians, beginning at the front, [V]."""
    return 2 * np.pi / views * np.arange(views)


def condition_views(asset: Asset | str | os.PathLike[str], views: int = 4, size: int = 256) -> np.ndarray:
    """Render an object at rest on MV-VDM's grey, from `condition_cameras`.

    Args:
        asset: a glTF file, or an asset loaded by `renderers.gltf.load`, with its front towards +Z and +Y up. It is
            centred, and scaled to fill the images but for a margin.
        views: V.
        size: side S of the images in pixels.

    Returns:
        uint8 [V, S, S, 3].

    Raises:
        GltfError: the file is refused.
        RenderError: no renderer is available on this machine.
    """
    from renderers.gltf import Asset, load
    from renderers.meshes import GREY, Shot, render_clip

    if isinstance(asset, str | os.PathLike):
        asset = load(file_path(asset, "condition_views: asset"))
    instance(asset, Asset, "condition_views: asset: a glTF file or an")
    cameras = condition_cameras(views, size)
    shot = Shot(None, np.zeros(1), framing_transform(asset, cameras), cameras)
    return render_clip(asset, shot).over(GREY)[:, 0]


def framing_transform(asset: Asset, cameras: Cameras) -> np.ndarray:
    """Asset-to-world transform float64 [4, 4] that centres an asset at rest and scales it to fill the images.

    Args:
        asset: an asset at rest.
        cameras: as for `framing_of`.
    """
    return framing_of(asset.positions(None, 0.0)[asset.visible], cameras, asset.origin(None))


def framing_of(points: np.ndarray, cameras: Cameras, origin: np.ndarray | float = 0.0) -> np.ndarray:
    """Transform float64 [4, 4] that centres points [n, 3] and scales them to fill the images.

    A translation and a uniform scale; in the images, the fraction `MARGIN` stays free on all sides.

    From distance d, the camera looking along +z, a point (x, y, z) is inside the margin if |x|, |y| ≤ e·(d + z) with
    e = tan(FOV / 2)·(1 − margin). The smallest d for all points and views is max(max(|x|, |y|) / e − z); scaling the
    object by DISTANCE / d has the same effect as moving the camera there.

    Args:
        points: of an object at rest, relative to `origin`.
        cameras: square cameras with a field of view of `FOV_DEG` that look at the origin from the distance `DISTANCE`.
    """
    centre = (points.min(0) + points.max(0)) / 2
    extent = np.tan(np.radians(FOV_DEG) / 2) * (1 - MARGIN)
    x, y, z = np.moveaxis(cameras.world_to_camera[:, :3, :3] @ (points - centre).T, 1, 0)
    scale = DISTANCE / np.max(np.maximum(abs(x), abs(y)) / extent - z)
    transform = np.diag([scale, scale, scale, 1.0])
    transform[:3, 3] = -scale * (centre + origin)
    return transform
