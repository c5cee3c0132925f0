"""The OpenGL renderer: clips frame by frame."""

from __future__ import annotations

import contextlib

import numpy as np

from renderers.gltf import Asset
from renderers.meshes.clip import PICTURE_VERSIONS, RenderedClip, RenderSettings, Shot
from renderers.meshes.opengl.context import Gpu
from renderers.meshes.opengl.scene import Scene
from renderers.meshes.opengl.targets import Targets
from renderers.meshes.recording import record_clip


class OpenGLRenderer:
    """The OpenGL back end: one context per process, used for many clips."""

    def __init__(self) -> None:
        self._gpu = Gpu()

    @property
    def name(self) -> str:
        """Back end, version of its images, driver and its version."""
        return f"opengl {PICTURE_VERSIONS['opengl']} ({self._gpu.description})"

    def render_clip(self, asset: Asset, shot: Shot, settings: RenderSettings) -> RenderedClip:
        """Render a shot; see `renderers.meshes.render_clip`."""
        shot = shot.centred(asset)
        # The context is made current: other code in this process may have contexts, too.
        with self._gpu.ctx, contextlib.ExitStack() as stack:
            scene = Scene(self._gpu, asset, shot, stack)
            targets = Targets(self._gpu, shot.cameras, settings, stack)

            def colour(images: np.ndarray, t: int) -> None:
                images[:, t] = targets.colour(scene, shot)

            return record_clip(
                asset,
                shot,
                settings,
                self.name,
                scene,
                colour,
                lambda pose: targets.geometry(scene, shot, pose),
            )
