"""Where the object is in the frame, its masks over time, and what is beside it."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.flow import opencv
from factory.generation.judging.video import SMALLEST_SIDE, JudgedVideo

DIFFERENT = 24.0  # 8-bit steps: a larger difference from the background can be seen
STILL = 4.0  # 8-bit steps: a smaller standard deviation over time is static
PLAIN = 6.0  # 8-bit steps: median absolute deviation of a background of one colour


def border_contact(video: JudgedVideo) -> float | None:
    """Contact of the mask with the frame's border, beyond that of the first frame; lengths of the object, 0 and up.

    Mask pixels in the outermost rows and columns, divided by `JudgedVideo.size`; largest over frames minus the first.
    None if no frame shows the object.
    """
    if not video.size:
        return None
    masks = video.masks
    contact = masks[:, 0].sum(1) + masks[:, -1].sum(1) + masks[:, 1:-1, 0].sum(1) + masks[:, 1:-1, -1].sum(1)
    return float((contact - contact[0]).max() / video.size)


def least_visible(video: JudgedVideo) -> float | None:
    """Smallest area of the object, as a share of that in the first frame; 0 if a frame is empty.

    None if the first frame does not show the object.
    """
    return float(video.areas.min() / video.areas[0]) if video.visible[0] else None


def mask_consistency(video: JudgedVideo) -> float | None:
    """Agreement of each mask with the previous one moved along the flow; IoU, 0..1.

    10th percentile over pairs of frames: of a segmentation that loses parts of the object now and then it is low. None
    with no pair of frames that shows the object.
    """
    if len(video.frames) < 2 or min(video.frames.shape[1:3]) < SMALLEST_SIDE:
        return None
    overlaps = video.continuations.overlaps
    measured = overlaps[np.isfinite(overlaps)]
    return float(np.percentile(measured, 10)) if len(measured) else None


def overlay(video: JudgedVideo) -> float | None:
    """Share of the frame that something static beside the object covers, such as text or a logo; 0..1.

    Pixels outside the object's main part in all frames that differ from the background's median colour by more than 24
    steps and vary over time by less than 4. None if the background is not of one colour: there, what is static is
    background.
    """
    moving = _main_parts(video.masks).any(0)
    outside = ~moving
    if outside.mean() < 0.05:
        return None
    means, spreads = _over_time(video.frames, np.float32)
    mean, spread = means[outside], spreads[outside].max(-1)
    distance = np.abs(mean - np.median(mean, axis=0)).max(-1)
    if np.median(distance) > PLAIN or np.percentile(distance, 75) > DIFFERENT:
        return None
    return float(((distance > DIFFERENT) & (spread < STILL)).sum() / outside.size)


def bands(video: JudgedVideo) -> float | None:
    """Width of the widest band of one constant colour along a side of the frame; share of the frame's side, 0..1.

    A band ends at a row or column most of which (80 %) differs from it by more than 24 steps. A plain background ends
    at the object, which is not that wide, so it is no band.
    """
    mean, spreads = _over_time(video.frames, np.float64)
    spread = spreads.max(-1)
    widest = 0.0
    for turns in range(4):
        widest = max(widest, _band(np.rot90(mean, turns), np.rot90(spread, turns)))
    return widest


def _band(mean: np.ndarray, spread: np.ndarray) -> float:
    """Height of the band at the top, share of the height."""
    color = np.median(mean[0], axis=0)
    distance = np.abs(mean - color).max(-1)
    uniform = ((distance < PLAIN) & (spread < STILL)).mean(1) > 0.95
    rows = len(uniform) if uniform.all() else int(np.argmin(uniform))
    # One row of transition between the band and the picture is allowed.
    ends = rows and any(
        (distance[row] > DIFFERENT).mean() > 0.8 for row in range(rows, min(rows + 2, len(uniform)))
    )
    return rows / len(uniform) if ends else 0.0


def _over_time(frames: np.ndarray, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over time, [H, W, 3]; rows in turns, as the whole video in `kind` would be large."""
    rows = [frames[:, start : start + 16] for start in range(0, frames.shape[1], 16)]
    return tuple(  # type: ignore[return-value]
        np.concatenate([getattr(part, name)(0, dtype=kind) for part in rows]) for name in ("mean", "std")
    )


def _main_parts(masks: np.ndarray) -> np.ndarray:
    """The largest connected part of each mask, dilated by two pixels."""
    cv2 = opencv()
    result = np.zeros_like(masks)
    for t, mask in enumerate(masks):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        if count > 1:
            main = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            result[t] = cv2.dilate(main.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return result
