"""Framebuffers: supersampled views, an atlas for read-back, and float targets for depth, normals and motion."""

from __future__ import annotations

import contextlib

import moderngl
import numpy as np

from renderers.cameras import Cameras, opengl_projection, to_opengl
from renderers.gltf import Pose
from renderers.meshes.clip import RenderError, RenderSettings, Shot
from renderers.meshes.opengl.context import Gpu, Resource, release_with
from renderers.meshes.opengl.scene import Scene
from renderers.meshes.tracks import Surface


class Targets:
    """Framebuffers for one image size: one view at sample resolution, and the atlas of resolved views."""

    def __init__(
        self,
        gpu: Gpu,
        cameras: Cameras,
        settings: RenderSettings,
        stack: contextlib.ExitStack,
    ) -> None:
        self._gpu, self._ctx, self._cameras = gpu, gpu.ctx, cameras
        self._world_to_opengl = to_opengl(cameras.world_to_camera)
        self._eyes = cameras.camera_to_world[:, :3, 3]
        self._side = int(np.sqrt(settings.samples))
        width, height = cameras.width, cameras.height
        limit = min(self._ctx.info["GL_MAX_TEXTURE_SIZE"], 16384)
        if max(width, height) * self._side > limit:
            raise RenderError(
                f"opengl: {width} x {height} pixels with {settings.samples} samples requires a target of "
                f"{max(width, height) * self._side} pixels, but this device supports at most {limit}; render at a "
                f"lower resolution or with fewer samples"
            )

        def own(resource: Resource) -> Resource:
            return release_with(stack, resource)

        sample_size = (width * self._side, height * self._side)
        self._samples = own(self._ctx.texture(sample_size, 4))
        depth = own(self._ctx.depth_renderbuffer(sample_size))
        self.view = own(self._ctx.framebuffer([self._samples], depth))
        self._views_per_atlas = max(1, min(len(cameras), limit // height))
        self._atlas = own(
            self._ctx.framebuffer([own(self._ctx.renderbuffer((width, height * self._views_per_atlas), 4))])
        )
        if settings.geometry:
            self._geometry_images = np.empty((2, len(cameras), height, width, 4), np.float32)
            self._float_view = own(
                self._ctx.framebuffer(
                    [own(self._ctx.renderbuffer((width, height), 4, dtype="f4")) for _ in range(2)],
                    own(self._ctx.depth_renderbuffer((width, height))),
                )
            )

    def _projections(self, scene: Scene) -> np.ndarray:
        """World-to-clip matrices [V, 4, 4] with a tight depth range: assets measure millimetres to kilometres."""
        distance = np.linalg.norm(self._eyes, axis=1)
        far = float(distance.max() + scene.radius) * 1.001
        near = max(float(distance.min() - scene.radius) * 0.999, far * 1e-4)
        return opengl_projection(self._cameras, near, far) @ self._world_to_opengl

    def colour(self, scene: Scene, shot: Shot) -> np.ndarray:
        """Render the current frame from all views: uint8 [V, H, W, 4], straight alpha, top row first."""
        width, height = self._cameras.width, self._cameras.height
        images = np.empty((len(self._cameras), height, width, 4), np.uint8)
        matrices = self._projections(scene)
        resolve = self._gpu.resolve
        resolve["side"], resolve["height"] = self._side, height
        for first in range(0, len(self._cameras), self._views_per_atlas):
            views = range(first, min(first + self._views_per_atlas, len(self._cameras)))
            for row, v in enumerate(views):
                self.view.use()
                self.view.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
                scene.set_view(matrices[v], self._eyes[v], shot)
                scene.draw_colour(self.view, v)
                self._atlas.use()
                self._ctx.viewport = (0, row * height, width, height)
                self._ctx.enable_only(moderngl.NOTHING)
                self._samples.use(0)
                resolve["corner"] = (0, row * height)
                self._gpu.full_screen.render(vertices=3)
            size = (width, height * len(views))
            self._atlas.read_into(images[first : first + len(views)], viewport=size, components=4)
        return images

    def geometry(self, scene: Scene, shot: Shot, upcoming: Pose) -> Surface:
        """Render depth, normals and motion of the current frame from all views.

        Args:
            upcoming: the pose of the next frame.
        Returns:
            Views of arrays that the next call overwrites.
        """
        width, height = self._cameras.width, self._cameras.height
        images = self._geometry_images
        scene.set_next_pose(upcoming)
        for v, matrix in enumerate(self._projections(scene)):
            self._float_view.use()
            self._float_view.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
            scene.set_view(matrix, self._eyes[v], shot)
            scene.draw_geometry()
            for attachment, image in enumerate(images[:, v]):
                self._float_view.read_into(image, components=4, attachment=attachment, dtype="f4")
        surface, motion = images[:, :, ::-1]  # the rows of OpenGL images run upwards
        motion *= np.array([width / 2, -height / 2, 1.0, -1.0], np.float32)
        return Surface(surface[..., 3], surface[..., :3], motion[..., :2], motion[..., 2:])
