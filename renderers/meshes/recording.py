"""The loop over the frames of a shot that the rasterisers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from renderers.gltf import Asset, Pose
from renderers.meshes.buffers import reused_empty
from renderers.meshes.clip import RenderedClip, RenderSettings, Shot
from renderers.meshes.tracks import Surface, Tracker


class PosedScene(Protocol):
    """What a back end draws, in the pose of the current frame."""

    @property
    def one_sided(self) -> list[np.ndarray]:
        """Per primitive, bool [F]: triangles whose back face is never visible."""

    def deform(self, pose: Pose, shot: Shot) -> None:
        """Go on to the next frame."""


def record_clip(
    asset: Asset,
    shot: Shot,
    settings: RenderSettings,
    name: str,
    scene: PosedScene,
    colour: Callable[[np.ndarray, int], None],
    geometry: Callable[[Pose], Surface],
) -> RenderedClip:
    """Pose and draw every frame of a shot.

    Args:
        asset, shot, settings: of `renderers.meshes.render_clip`; the shot is centred on the asset (`Shot.centred`).
        name: of the back end, recorded in the clip.
        scene: is posed before each of the calls below.
        colour: draws frame t of all views into uint8 [V, T, H, W, 4], straight alpha, top row first.
        geometry: draws the surface in all views, given the pose of the next frame, for the flow.
    """
    views, frames = len(shot.cameras), len(shot.timestamps)
    size = shot.cameras.height, shot.cameras.width
    images = reused_empty((views, frames, *size, 4))
    depth = np.empty((views, frames, *size), np.float32) if settings.depth else None
    normals = np.empty((views, frames, *size, 3), np.float32) if settings.normals else None
    flow = np.empty((views, frames - 1, *size, 2), np.float32) if settings.flow else None
    tracker = None
    poses = (shot.pose(asset, time) for time in shot.timestamps)
    upcoming = next(poses)
    for t in range(frames):
        pose, upcoming = upcoming, next(poses, upcoming)
        scene.deform(pose, shot)
        colour(images, t)
        if not settings.geometry:
            continue
        surface = geometry(upcoming)
        if depth is not None:
            depth[:, t] = surface.depth
        if normals is not None:
            normals[:, t] = surface.normals
        if flow is not None and t < frames - 1:
            flow[:, t] = np.where(surface.depth[..., None] > 0.0, surface.flow, np.nan)
        if settings.tracks:
            tracker = tracker or Tracker(asset, scene.one_sided, shot, settings, pose, surface)
            tracker.follow(pose, surface)
    tracks = tracker.tracks() if tracker is not None else None
    timestamps = np.asarray(shot.timestamps)
    return RenderedClip(images, shot.cameras, timestamps, name, depth, normals, flow, tracks)
