"""The OpenGL renderer: clips frame by frame."""

from __future__ import annotations

import contextlib

import numpy as np

from renderers.gltf import Asset
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderSettings, Shot
from renderers.meshes.opengl.context import Gpu
from renderers.meshes.opengl.scene import Scene
from renderers.meshes.opengl.targets import Targets
from renderers.meshes.tracks import Tracker


class OpenGLRenderer:
    """The OpenGL back end: one context per process, used for many clips."""

    def __init__(self) -> None:
        self._gpu = Gpu()
        self.name = f"opengl {PICTURE_VERSIONS['opengl']} ({self._gpu.description})"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        shot = shot.centred(asset)
        views, frames = len(shot.cameras), len(shot.timestamps)
        height, width = shot.cameras.height, shot.cameras.width
        colour = np.empty((views, frames, height, width, 4), np.uint8)
        depth = np.empty((views, frames, height, width), np.float32) if settings.depth else None
        normals = np.empty((views, frames, height, width, 3), np.float32) if settings.normals else None
        flow = np.empty((views, frames - 1, height, width, 2), np.float32) if settings.flow else None
        tracker = None
        # The context is made current: other code in this process may have contexts, too.
        with self._gpu.ctx, contextlib.ExitStack() as stack:
            scene = Scene(self._gpu, asset, shot, stack)
            targets = Targets(self._gpu, shot.cameras, settings, stack)
            poses = (shot.pose(asset, time) for time in shot.timestamps)
            upcoming = next(poses)
            for t in range(frames):
                pose, upcoming = upcoming, next(poses, upcoming)
                scene.deform(pose, shot)
                colour[:, t] = targets.colour(scene, shot)
                if not settings.geometry:
                    continue
                surface = targets.geometry(scene, shot, upcoming)
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
        return RenderedClip(colour, shot.cameras, timestamps, self.name, depth, normals, flow, tracks)
