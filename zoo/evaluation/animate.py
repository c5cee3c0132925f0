"""Task of `zoo.animate`: known animations of known meshes, recovered from the still mesh.

The model "animate3d" follows the true videos, which measures the fit alone. An MV-VDM is given the still mesh and the
sentence, and its videos are followed. Vertices are compared in the coordinates of the mesh; the silhouettes are those
of held-out views, half-way between the views of the videos.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from renderers.cameras import Cameras
from renderers.gltf import Asset, Pose
from renderers.meshes import GREY, RenderSettings, Shot, render_clip
from zoo.animate3d.fitting import fit
from zoo.animate3d.timing import at_times
from zoo.evaluation.media import Media
from zoo.evaluation.scenes import BACKEND, Scene, SceneTask, orbit
from zoo.evaluation.tasks import Assignment, Measurement


def truth(assignment: Assignment, own_truth: bool = False) -> Measurement:
    """Animate the still meshes, and compare vertices and silhouettes."""
    return _Animations.measure(assignment, own_truth)


class _Animations(SceneTask):
    """The clips of a protocol, as truths and as fits."""

    def _held_out(self) -> Cameras:
        return orbit(self.settings, self.settings["resolution"], self.settings["heldout_offset_deg"])

    def _media(self, scene: Scene, positions: np.ndarray) -> Media:
        cameras = self._held_out()
        shot = Shot(None, np.arange(len(positions)) * 1.0, still_to_world(scene), cameras)
        clip = render_clip(Posed.of(scene.asset, positions), shot, RenderSettings(samples=4), backend=BACKEND)
        points = positions[:, scene.asset.visible].astype(np.float32)
        return Media(clip.over(GREY), clip.frames[..., 3], points, None, cameras)

    def render(self, scene: Scene) -> Media:
        return self._media(scene, scene.positions)

    def predict(self, label: str, index: int) -> Media:
        scene, model = self.scenes[index], self.models[label]
        still = scene.still
        if isinstance(model, str):
            cameras = orbit(self.settings, self.settings["resolution"])
            frames = scene.render(still_to_world(scene), cameras).frames
            times = scene.times - scene.times[0]
            motion = fit(scene.asset, frames, in_asset(cameras, scene), times, still=still).motion
        else:
            motion = self._follow(scene, model)
        moved = at_times(motion, scene.times - scene.times[0])
        return self._media(scene, moved.move(still.positions.astype(np.float64)))

    def _follow(self, scene: Scene, model: Any) -> Any:
        """The motion of videos that a model generates from the sentence."""
        from zoo.animate3d.videos import SECONDS, read_videos
        from zoo.animate3d.viewpoints import cameras_around, relative_to_origin

        result = model.animate(scene.asset, scene.caption, seed=self.settings["seed"])
        views, frames, size = result.frames.shape[:3]
        videos = read_videos(result, background=GREY, fps=frames / SECONDS)
        azimuths = [360.0 * view / views for view in range(views)]
        cameras = relative_to_origin(cameras_around(scene.asset, azimuths, size=size), scene.asset)
        return fit(scene.asset, videos.frames, cameras, videos.times, stiffness="generated").motion


# --- meshes with given vertices ------------------------------------------------------------------------


class Posed(Asset):
    """An asset whose vertices are given for each second t = 0, 1, …; for rendering results."""

    frames: np.ndarray
    smooth: Pose

    @classmethod
    def of(cls, asset: Asset, positions: np.ndarray) -> Posed:
        posed = cls(
            **{name: getattr(asset, name) for name in asset.__dataclass_fields__ if name != "_motions"}
        )
        object.__setattr__(posed, "frames", positions)
        object.__setattr__(posed, "smooth", asset.pose(None, 0.0))
        return posed

    def _evaluate(
        self, animation: int | None, time: float, normals: bool, closed: bool = False
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        positions = self.frames[round(time)].astype(np.float32)
        return positions, self._normals(positions), self.smooth.mirrored

    def _normals(self, positions: np.ndarray) -> np.ndarray:
        """Area-weighted vertex normals, equal at vertices that coincide and agree in the rest pose."""
        key = np.round(np.concatenate([self.smooth.positions, self.smooth.normals], 1).astype(np.float64), 4)
        _, group = np.unique(key, axis=0, return_inverse=True)
        normals = np.zeros((group.max() + 1, 3))
        for part, mirrored in zip(self.primitives, self.smooth.mirrored, strict=True):
            a, b, c = (positions[part.triangles[:, i]] for i in range(3))
            face = np.cross(b - a, c - a) * (-1 if mirrored else 1)
            for i in range(3):
                np.add.at(normals, group.reshape(-1)[part.triangles[:, i]], face)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
        return normals[group.reshape(-1)].astype(np.float32)


def still_to_world(scene: Any) -> np.ndarray:
    """Centre and scale of the still model, float64 [4, 4]: its largest extent is 1.

    Args:
        scene: has the still pose `still` and the `asset`.
    """
    points = scene.still.positions[scene.asset.visible].astype(np.float64)
    low, high = points.min(0), points.max(0)
    matrix = np.eye(4) / (high - low).max()
    matrix[:3, 3] = -(low + high) / 2 / (high - low).max()
    matrix[3, 3] = 1
    return matrix


def in_asset(cameras: Cameras, scene: Any) -> Cameras:
    """Cameras of the world that `still_to_world` leads to, in the coordinates of `Asset.positions`."""
    to_world = still_to_world(scene)
    matrices = cameras.world_to_camera @ to_world
    matrices[:, :3] /= to_world[0, 0]
    return Cameras(matrices, cameras.K, cameras.width, cameras.height)
