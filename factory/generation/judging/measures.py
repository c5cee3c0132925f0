"""All measures of a video by name. The scores are computed once; `verdict.decide` compares them with thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from factory.generation.judging import appearance, camera, framing, motion
from factory.generation.judging.video import JudgedVideo

Scores: TypeAlias = dict[str, float | None]

MEASURES: dict[str, Callable[[JudgedVideo], float | None]] = {
    "motion": motion.motion,
    "jump": motion.jump,
    "cut": motion.cut,
    "mirrored": motion.mirrored,
    "background_motion": camera.background_motion,
    "zoom": camera.zoom,
    "roll": camera.roll,
    "pan": camera.pan,
    "flicker": appearance.flicker,
    "color_change": appearance.color_change,
    "shape_change": appearance.shape_change,
    "first_frame": appearance.first_frame,
    "border_contact": framing.border_contact,
    "least_visible": framing.least_visible,
    "mask_consistency": framing.mask_consistency,
    "overlay": framing.overlay,
    "bands": framing.bands,
}


def measure_video(frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None = None) -> Scores:
    """Measure a video of an object.

    Args:
        frames: uint8 [T, H, W, 3].
        masks: bool [T, H, W], the object. Frames without it have empty masks.
        still: uint8 [H, W, 3], the picture that the video was made from; None if there is none.

    Returns:
        A score per measure; None where it cannot be measured in this video.
    """
    video = JudgedVideo.of(frames, masks, still)
    scores: Scores = {name: measure(video) for name, measure in MEASURES.items()}
    scores["sharpness_loss"] = appearance.sharpness_loss(frames, masks)
    return {name: value if value is None or np.isfinite(value) else None for name, value in scores.items()}
