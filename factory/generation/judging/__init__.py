"""Judges of generated motion videos: measured quantities, thresholds, and a decision.

    scores = measure_video(frames, masks, still)      once per video; keep them
    verdict = decide(scores, Thresholds())            again whenever thresholds change
    verdict.kept, verdict.failed, verdict.unmeasured

A quantity that cannot be measured in a video has the score None and does not count against it. OpenCV is needed.

    motion       how much it moves, jumps, cuts, mirror images
    camera       motion of the background, or of all of the object in common
    appearance   flicker, identity, the first frame, sharpness
    framing      the frame's border, masks over time, text and bands
    views        agreement of several views of one motion
    masks        masks before a background of one colour
    faults       good videos made faulty, to choose and test thresholds
"""

from __future__ import annotations

from factory.generation.judging.masks import foreground_masks
from factory.generation.judging.measures import (
    MEASURES,
    Scores,
    judge_video,
    judge_views,
    measure_video,
    measure_views,
)
from factory.generation.judging.thresholds import Thresholds
from factory.generation.judging.verdict import Verdict, decide

__all__ = [
    "MEASURES",
    "Scores",
    "Thresholds",
    "Verdict",
    "decide",
    "foreground_masks",
    "judge_video",
    "judge_views",
    "measure_video",
    "measure_views",
]
