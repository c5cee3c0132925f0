"""How an `Animation` shows itself in notebooks, and the page that plays it in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoo.animate3d.loading import StillModel
from zoo.animate3d.motion import GraphMotion
from zoo.animate3d.timing import at_times
from zoo.notebook import card, preview

if TYPE_CHECKING:
    from renderers.cameras import Cameras
    from zoo.animate3d.fit_report import FitReport

PREVIEW_FRAMES, PREVIEW_SIDE = 24, 192


class Shown(Protocol):
    """What the card needs of an `Animation`, whose module imports this one."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> StillModel: ...
    @property
    def motion(self) -> GraphMotion: ...
    @property
    def report(self) -> FitReport | None: ...
    @property
    def duration(self) -> float: ...
    def vertices(self, times: np.ndarray | None = None) -> np.ndarray: ...
    def default_camera(self, resolution: int) -> Cameras: ...
    def render(self, cameras: Cameras, times: np.ndarray) -> np.ndarray: ...


def animation_card(animation: Shown) -> str:
    """HTML of an animation; without a preview if no mesh renderer works on this machine."""
    from renderers.meshes import RenderError

    report = animation.report
    facts = {
        "model": animation.model.name,
        "sentence": report.sentence if report else None,
        "video model": report.video_model if report else None,
        "frames": len(animation.motion.times),
        "seconds": f"{animation.duration:.3g}",
        "vertices": animation.model.asset.num_vertices,
        "nodes of the graph": len(animation.motion.nodes),
        "doubtful frames": len(report.doubtful_frames) if report else None,
    }
    try:
        picture = _preview(animation)
    except (RenderError, ImportError):
        picture = None
    return card(animation.name, facts, picture)


def _preview(animation: Shown) -> bytes:
    """Animated WebP of at most `PREVIEW_FRAMES` frames from the default camera."""
    count = min(PREVIEW_FRAMES, len(animation.motion.times))
    times = np.linspace(animation.motion.times[0], animation.motion.times[-1], count)
    frames = animation.render(animation.default_camera(PREVIEW_SIDE), times)[0]
    return preview(frames, (count - 1) / animation.duration if animation.duration > 0 else 1.0)


def write_page(path: Path, animation: Shown, frames: int, background: Sequence[float] | None = None) -> None:
    """Write a page that plays an animation in the browser; see `zoo.export.html.meshes`.

    Args:
        path: of the file.
        animation: with vertices in the order of its model's asset.
        frames: number of frames that are stored, evenly spaced. The browser interpolates between them.
        background: sRGB-encoded, three floats in 0..1; None = that of the colour scheme.
    """
    from zoo.export.html.meshes import MovingMesh, write_mesh_page

    asset, times = animation.model.asset, np.linspace(0.0, animation.duration, frames)
    motion = at_times(animation.motion, times)
    mesh = MovingMesh(
        asset, motion.vertex_nodes, motion.vertex_weights, motion.nodes, motion.positions, motion.rotations,
        animation.name or "animation", animation.duration,
    )  # fmt: skip
    moved = animation.vertices()[:, asset.visible].reshape(-1, 3)
    target = (moved.min(0) + moved.max(0)) / 2
    radius = max(float(np.linalg.norm(moved - target, axis=1).max()), 1e-9)
    facts: dict[str, object] = {
        "model": animation.model.name,
        "vertices": f"{asset.num_vertices:,}",
        "triangles": f"{sum(len(primitive.triangles) for primitive in asset.primitives):,}",
        "seconds": f"{animation.duration:.3g}",
    }
    facts |= {key: asset.metadata[key] for key in ("author", "license") if key in asset.metadata}
    write_mesh_page(path, mesh, target=target, radius=radius, facts=facts, background=background)
