"""How an `Animation` shows itself in notebooks."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.notebook import card, preview

PREVIEW_FRAMES, PREVIEW_SIDE = 24, 192


def animation_card(animation: Any) -> str:
    """HTML of a `zoo.animate3d.Animation`; without a preview if no mesh renderer works on this machine."""
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


def _preview(animation: Any) -> bytes:
    """Animated WebP of at most `PREVIEW_FRAMES` frames from the default camera."""
    count = min(PREVIEW_FRAMES, len(animation.motion.times))
    times = np.linspace(animation.motion.times[0], animation.motion.times[-1], count)
    frames = animation.render(animation.default_camera(PREVIEW_SIDE), times)[0]
    return preview(frames, (count - 1) / animation.duration if animation.duration > 0 else 1.0)
