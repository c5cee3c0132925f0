"""The four pictures of a still object that MV-VDM sets in motion, and the cameras that see them (methods §2.8)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from renderers.cameras import Cameras, orbit_cameras, orbit_rotations

if TYPE_CHECKING:
    from renderers.gltf import Asset

ELEVATION_DEG, FOV_DEG, DISTANCE = 15.0, 40.0, 3.0
MARGIN = 0.15  # of half the picture stays free around the still object, for its motion


def condition_cameras(views: int = 4, size: int = 256) -> Cameras:
    """Cameras around the object, from its front on: azimuth 0, 90, 180 and 270° for four.

    `renderers.cameras.mvvdm_camera_vectors` makes of them what the network is given.
    """
    return orbit_cameras(
        azimuths(views),
        np.radians(ELEVATION_DEG),
        DISTANCE,
        fov_y=np.radians(FOV_DEG),
        width=size,
        height=size,
    )


def azimuths(views: int) -> np.ndarray:
    """Radians [V], evenly spaced from the front on."""
    return 2 * np.pi / views * np.arange(views)


def condition_views(asset: Asset | str | os.PathLike[str], views: int = 4, size: int = 256) -> np.ndarray:
    """The object at rest on MV-VDM's grey: uint8 [V, S, S, 3], as `condition_cameras` see it.

    Args:
        asset: a glTF file, or what `renderers.gltf.load` returned; its front towards +Z, up +Y. It is centred and
            scaled to fill the pictures but for a margin.

    Raises:
        GltfError: the file is refused. RenderError: nothing can be rendered here; what to install.
    """
    from renderers.gltf import load
    from renderers.meshes import GREY, Shot, render_clip

    if isinstance(asset, str | os.PathLike):
        asset = load(asset)
    points = asset.positions(None, 0.0)
    centre = (points.min(0) + points.max(0)) / 2
    # Seen from distance d a point is inside while |x|, |y| <= extent * (d + z): the tightest d of all.
    extent = np.tan(np.radians(FOV_DEG) / 2) * (1 - MARGIN)
    x, y, z = np.moveaxis(
        orbit_rotations(azimuths(views), np.radians(ELEVATION_DEG)) @ (points - centre).T, 1, 0
    )
    scale = DISTANCE / np.max(np.maximum(abs(x), abs(y)) / extent - z)
    asset_to_world = np.diag([scale, scale, scale, 1.0])
    asset_to_world[:3, 3] = -scale * centre
    shot = Shot(None, np.zeros(1), asset_to_world, condition_cameras(views, size))
    return render_clip(asset, shot).over(GREY)[:, 0]
