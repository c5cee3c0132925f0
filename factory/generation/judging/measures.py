"""All measures of a video by name. The scores are computed once; `verdict.decide` compares them with thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import TypeAlias

import numpy as np

from factory.generation.judging import appearance, camera, framing, motion, views
from factory.generation.judging.thresholds import Thresholds
from factory.generation.judging.verdict import Verdict, decide
from factory.generation.judging.video import JudgedVideo
from renderers.arguments import shown
from renderers.cameras import Cameras

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
    "final_roll": camera.final_roll,
    "final_pan": camera.final_pan,
    "flicker": appearance.flicker,
    "color_change": appearance.color_change,
    "color_step": appearance.color_step,
    "shape_change": appearance.shape_change,
    "first_frame": appearance.first_frame,
    "border_contact": framing.border_contact,
    "least_visible": framing.least_visible,
    "mask_consistency": framing.mask_consistency,
    "overlay": framing.overlay,
    "bands": framing.bands,
}


# Measured with the background of the video; the others with one colour behind the object (`JudgedVideo.isolated`).
_WITH_BACKGROUND = (
    "background_motion", "zoom", "roll", "pan", "final_roll", "final_pan", "first_frame",
    "overlay", "bands",
)  # fmt: skip

# Measures with a lower limit; the others have an upper one.
_LOWEST = ("motion", "least_visible", "mask_consistency")
# Share of the views that must show a fault, 0 = one view. The worst of V views has V times as many false alarms as one
# view, and the views of a motion err together. The shares were chosen with clean and faulty videos of four views
# (`python -m benchmarks.judges --views 4`).
_NEEDED = {
    "motion": 1.0,  # a gesture in front of the body is hidden from the other side
    "jump": 0.5,
    "cut": 0.5,
    "mirrored": 0.75,
    "flicker": 0.5,
    "least_visible": 0.5,  # a fish that swims towards a camera is small in its pictures
    "color_change": 0.75,  # an object that turns shows two opposite cameras other colours
}
LONE = 1.75  # a fault of one view alone counts if its score is beyond the limit by this factor
# The motion of the camera and the change of shape are averaged over views with their signs (`_directed`): a camera
# moves alike in all of its pictures, but an object that walks comes nearer to one camera and goes away from another,
# and to the left of a third.
LONE_AVERAGED = 3.0  # as `LONE`, for these


def judge_video(
    frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None, thresholds: Thresholds
) -> Verdict:
    """Measure a video of an object and compare the scores with thresholds; arguments as in `measure_video`."""
    return decide(measure_video(frames, masks, still), thresholds)


def judge_views(
    frames: np.ndarray,
    masks: np.ndarray,
    still: np.ndarray | None,
    thresholds: Thresholds,
    cameras: Cameras | None = None,
) -> Verdict:
    """Measure the videos of one motion from several views and compare the scores with thresholds.

    Arguments as in `measure_views`.
    """
    return decide(measure_views(frames, masks, still, cameras), thresholds)


def measure_video(frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None = None) -> Scores:
    """Measure a video of an object.

    Args:
        frames: uint8 [T, H, W, 3], at least 2 frames.
        masks: bool [T, H, W], the object. Frames without it have empty masks.
        still: uint8 [H, W, 3], the picture that the video was made from; None if there is none.

    Returns:
        A score per measure; None where it cannot be measured in this video.

    Raises:
        TypeError, ValueError: an array has another type or shape.
    """
    _check("measure_video", frames, masks, still, "T H W")
    return _measure(JudgedVideo.of(frames, masks, still), frames, masks)


def _measure(video: JudgedVideo, frames: np.ndarray, masks: np.ndarray) -> Scores:
    """The scores of a video; `frames` and `masks` in their full size."""
    scores: Scores = dict.fromkeys(MEASURES)
    scores["sharpness_loss"] = appearance.sharpness_loss(frames, masks)
    for name in MEASURES:
        scores[name] = MEASURES[name](video if name in _WITH_BACKGROUND else video.isolated)
    return {
        name: float(value) if value is not None and np.isfinite(value) else None
        for name, value in scores.items()
    }


def measure_views(
    frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None = None, cameras: Cameras | None = None
) -> Scores:
    """Measure the videos of one motion from several views: each view, and their agreement.

    Args:
        frames: uint8 [V, T, H, W, 3], at least 2 frames.
        masks: bool [V, T, H, W].
        still: uint8 [V, H, W, 3], the pictures that the videos were made from; None if there are none.
        cameras: of the views, with images of this size; None if they are not known.

    Returns:
        A score per measure, over the views where it can be measured: `score_of_views`, or `averaged_score` for the
        motion of the camera and the change of shape; and `view_height`, `view_color` and `view_silhouettes`.
    """
    _check("measure_views", frames, masks, still, "V T H W")
    each, directed = [], []
    for v in range(len(frames)):  # one at a time: flow and blurred frames of a view are released with it
        video = JudgedVideo.of(frames[v], masks[v], None if still is None else still[v])
        each.append(_measure(video, frames[v], masks[v]))
        directed.append(_directed(video))
    scores: Scores = {}
    for name in each[0]:
        values = [score for view in each if (score := view[name]) is not None]
        vectors = [view[name] for view in directed if name in view]
        averaged = len(vectors) == len(values) > 1
        scores[name] = averaged_score(vectors) if averaged else score_of_views(name, values)
    scores["view_height"] = views.view_height(masks)
    scores["view_color"] = views.view_color(frames, masks)
    scores["view_silhouettes"] = views.view_silhouettes(masks, cameras)
    return scores


def score_of_views(name: str, values: Sequence[float]) -> float | None:
    """One score from those of the views.

    With n views and the share s of them that must show the fault (`_NEEDED`): the ⌈s n⌉-th worst score, at least the
    worst; or the worst one, divided by `LONE` (multiplied, for a measure with a lower limit), if that is worse. So a
    video fails if enough views are beyond the limit, or one is far beyond it. One view: its score.

    Args:
        name: of the measure.
        values: one per view.

    Returns:
        None without values.
    """
    if not values:
        return None
    lowest = name in _LOWEST
    worst = sorted(values, reverse=not lowest)
    needed = max(1, ceil(_NEEDED.get(name, 0.0) * len(worst)))
    lone = worst[0] * LONE if lowest else worst[0] / LONE
    return float(min(worst[needed - 1], lone) if lowest else max(worst[needed - 1], lone))


def _directed(video: JudgedVideo) -> dict[str, np.ndarray]:
    """Zoom, roll, pan and the change of shape as vectors, without those that cannot be measured."""
    vectors = camera.signed_motion(video)
    shape = appearance.proportion_change(video)
    return vectors if shape is None else {**vectors, "shape_change": shape}


def averaged_score(vectors: Sequence[np.ndarray]) -> float:
    """Length of the mean of the views' vectors; at least that of the longest one, divided by `LONE_AVERAGED`.

    Args:
        vectors: float64 [D] per view.
    """
    longest = max(float(np.linalg.norm(vector)) for vector in vectors)
    return max(float(np.linalg.norm(np.mean(vectors, axis=0))), longest / LONE_AVERAGED)


def _check(function: str, frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None, axes: str) -> None:
    _check_array(f"{function}: frames", frames, np.uint8, f"{axes} 3")
    _check_array(f"{function}: masks", masks, bool, axes, frames.shape[:-1])
    time = axes.split().index("T")
    if still is not None:
        shape = (*frames.shape[:time], *frames.shape[time + 1 :])
        _check_array(f"{function}: still", still, np.uint8, f"{axes} 3".replace("T ", ""), shape)
    if frames.shape[time] < 2 or not frames.size:
        raise ValueError(f"{function}: frames: expected at least 2 frames, got shape {list(frames.shape)}")


def _check_array(
    name: str, value: np.ndarray, kind: type, axes: str, shape: tuple[int, ...] | None = None
) -> None:
    letters = axes.split()
    expected = f"{np.dtype(kind)} [{', '.join(letters)}]" + (f" of shape {list(shape)}" if shape else "")
    if not isinstance(value, np.ndarray) or value.dtype != kind:
        raise TypeError(f"{name}: expected an array {expected}, got {shown(value)}")
    fits = value.ndim == len(letters) and (letters[-1] != "3" or value.shape[-1] == 3)
    if not fits or (shape is not None and value.shape != shape):
        raise ValueError(f"{name}: expected an array {expected}, got one of shape {list(value.shape)}")
