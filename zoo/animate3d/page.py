"""How an `Animation` shows itself in notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoo.animate3d.loading import StillModel
from zoo.animate3d.motion import GraphMotion
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
