"""glTF files and results of `zoo.animate`: meshes, posed by `renderers.gltf` and shaded as by `renderers.meshes`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renderers.arguments import instance, integer, shown
from renderers.cameras import Cameras
from renderers.gltf import Asset
from zoo.export.html.materials import draw_calls
from zoo.viewer.scene import FPS, Description, MotionFacts, distance_of
from zoo.viewer.wire import Part

if TYPE_CHECKING:
    from zoo.animate3d import Animation

LARGEST_MOTION = 128 << 20  # bytes of the vertices of a motion; beyond, fewer frames are sent
_MOST_FRAMES = 480
_BYTES_PER_VERTEX = 9  # three uint16 and three int8


class MeshScene:
    """The scene of a glTF file."""

    def __init__(self, asset: Asset, title: str, *, animation: Animation | None = None) -> None:
        """Args: the asset, a title, and the result of `zoo.animate` that it is of; only its motion is shown."""
        self.asset, self.title, self.animation = asset, title, animation
        indices = [i for i, each in enumerate(asset.animations) if not each.fault]
        self.indices = indices[-1:] if animation is not None else indices
        self.formats: tuple[str, ...] = (".mp4", ".glb")
        if animation is not None:
            self.formats = (".mp4", ".glb", ".fbx", ".usd", ".ply", ".html", ".npz")
        self._drawn = draw_calls(asset)
        self._lock = threading.Lock()  # an asset caches the animation that was evaluated last
        first = self.indices[0] if self.indices else None
        points = np.concatenate([self._positions(first, t) for t in self._times(first)[::6]])
        low, high = points.min(0), points.max(0)
        self.target = (low + high) / 2
        self.radius = float(np.linalg.norm(points - self.target, axis=1).max())

    def describe(self) -> Part:
        """Draw calls, triangles, textures, texture coordinates and vertex colours."""
        asset = self.asset
        triangles = sum(len(primitive.triangles) for primitive in asset.primitives)
        names = tuple(self._name(index) for index in self.indices) or ("rest pose",)
        facts: dict[str, object] = {
            "vertices": asset.num_vertices,
            "triangles": triangles,
            "animations": len(asset.animations),
        }
        facts |= {key: asset.metadata[key] for key in ("author", "license") if key in asset.metadata}
        draws, arrays = self._drawn
        header = Description(
            kind="mesh", title=self.title, facts=facts, names=names, formats=self.formats,
            start={"kind": "trained", "index": 0}, target=tuple(self.target), distance=distance_of(self.radius),
            extra={"draws": draws, "vertices": asset.num_vertices},
        )  # fmt: skip
        return header.to_json(), arrays

    def motion(self, choice: str) -> Part:
        """Vertices over time: "positions" uint16 [T, V, 3] with "low" and "step", "normals" int8 [T, V, 3]."""
        animation = self._chosen(choice)
        times = self._times(animation)
        with self._lock:
            poses = [self.asset.pose(animation, float(time)) for time in times]
            shift = (self.asset.origin(animation) - self.asset.origin(None)).astype(np.float32)
        positions = np.stack([pose.positions for pose in poses]) + shift
        visible = positions[:, self.asset.visible].reshape(-1, 3)
        low, high = visible.min(0).astype(np.float64), visible.max(0).astype(np.float64)
        step = np.maximum(high - low, 1e-12) / 65535
        whole = np.rint((positions - low) / step).clip(0, 65535).astype(np.uint16)
        normals = np.rint(np.stack([pose.normals for pose in poses]) * 127).clip(-127, 127).astype(np.int8)
        title = "rest pose" if animation is None else self._name(animation)
        header = MotionFacts(title, len(times), float(times[-1] - times[0]), 0.0, 1.0).to_json()
        return {**header, "mirrored": [bool(m) for m in poses[0].mirrored]}, {
            "positions": whole, "normals": normals, "low": low, "step": step,
        }  # fmt: skip

    def save(self, choice: str, path: Path, camera: Cameras | None) -> Path:
        """Write a video from the camera, or the file with its animations."""
        animation, camera = self._chosen(choice), camera and self._in_file(camera)
        if self.animation is not None:
            options: dict[str, Any] = (
                {"cameras": camera} if path.suffix == ".mp4" and camera is not None else {}
            )
            return self.animation.save(path, **options)
        if path.suffix == ".glb":
            source = self.asset.source
            path.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
            return path
        return self._save_video(animation, path, camera)

    def _in_file(self, camera: Cameras) -> Cameras:
        """A camera of the page in the world of the file; positions are sent relative to the rest pose's origin."""
        world_to_camera = camera.world_to_camera.copy()
        world_to_camera[:, :3, 3] -= world_to_camera[:, :3, :3] @ self.asset.origin(None)
        return Cameras(world_to_camera, camera.K, camera.width, camera.height)

    def _save_video(self, animation: int | None, path: Path, camera: Cameras | None) -> Path:
        from renderers.meshes import RenderSettings, Shot, composite, render_clip
        from zoo.export.video import write_mp4

        instance(camera, Cameras, "camera")
        assert camera is not None
        times = self._times(animation)
        fps = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else FPS
        with self._lock:
            clip = render_clip(
                self.asset, Shot(animation, times, np.eye(4), camera), RenderSettings(samples=4)
            )
        write_mp4(path, composite(clip.frames, 1.0)[0], fps)
        return path

    def _chosen(self, choice: str) -> int | None:
        try:
            content = json.loads(choice)
            index = integer(content["index"], "choice: index", 0, max(len(self.indices), 1) - 1)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ValueError(
                f"choice: expected an index below {max(len(self.indices), 1)}, got {shown(choice)}"
            ) from None
        return self.indices[index] if self.indices else None

    def _name(self, index: int) -> str:
        if self.animation is not None:
            return self.animation.name
        return self.asset.animations[index].name or f"animation {index}"

    def _times(self, animation: int | None) -> np.ndarray:
        """Times of the frames that are sent, seconds."""
        if animation is None:
            return np.zeros(1)
        start, end = self.asset.animations[animation].start, self.asset.animations[animation].end
        most = max(2, min(_MOST_FRAMES, LARGEST_MOTION // (_BYTES_PER_VERTEX * self.asset.num_vertices)))
        count = min(most, max(2, round((end - start) * FPS) + 1)) if end > start else 1
        return np.linspace(start, end, count)

    def _positions(self, animation: int | None, time: float) -> np.ndarray:
        """Visible vertices, in the coordinates that are sent."""
        asset = self.asset
        visible = asset.visible if len(asset.visible) else slice(None)
        shift = asset.origin(animation) - asset.origin(None)
        return asset.positions(animation, float(time))[visible].astype(np.float64) + shift
