"""How much the object moves, whether it jumps, and whether half of the video is mirrored."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.flow import dense_flow, opencv
from factory.generation.judging.video import SMALLEST_SIDE, JudgedVideo

MOST_STEPS = 15  # pairs of frames that `motion` adds up, so that noise of long videos does not
FASTEST = 95  # percentile of the flow in the mask: the part that moves most


def motion(video: JudgedVideo) -> float | None:
    """Path of the object's fastest part over the video, in lengths of the object; 0 and up.

    Sum over at most `MOST_STEPS` evenly spaced pairs of frames of the 95th percentile of |flow| in the mask, divided by
    `JudgedVideo.size`. A frozen video has the flow of its noise, about 0.02. None if no pair shows the object.
    """
    if min(video.frames.shape[1:3]) < SMALLEST_SIDE or not video.size:
        return None
    T = len(video.frames)
    steps = np.unique(np.linspace(0, T - 1, min(T, MOST_STEPS + 1)).round().astype(int))
    total, count = 0.0, 0
    for before, after in zip(steps[:-1], steps[1:], strict=True):
        if not video.visible[before]:
            continue
        if after == before + 1:
            flow = video.flow[before]
        else:
            flow = dense_flow(video.luma[before], video.luma[after])
        length = np.linalg.norm(flow[video.masks[before]], axis=-1)
        total += float(np.percentile(length, FASTEST))
        count += 1
    return total / video.size if count else None


def jump(video: JudgedVideo) -> float | None:
    """Largest change of the object's place that the frames before and after do not continue; lengths of the object.

    With v_t the step of the mask's centre from frame t to t + 1: max over t of min(|v_t − v_{t−1}|, |v_t − v_{t+1}|),
    divided by `JudgedVideo.size`. An accelerated motion agrees with one neighbour, a displacement for one step or for
    one frame with none. None with fewer than three steps between visible frames.
    """
    centres = np.array(
        [np.argwhere(mask).mean(0) if mask.any() else (np.nan, np.nan) for mask in video.masks]
    )
    steps = np.diff(centres, axis=0)
    if len(steps) < 3:
        return None
    turns = np.linalg.norm(np.diff(steps, axis=0), axis=-1)
    return _largest(np.minimum(turns[:-1], turns[1:]) / max(video.size, 1e-9))


def cut(video: JudgedVideo) -> float | None:
    """How far the largest change between two frames exceeds the changes beside it; a ratio, about 1 without a cut.

    Three changes are measured for each pair of frames: of colours in the union of the masks, of colours after
    compensation of the flow, and of the silhouette (1 − IoU). Each is divided by the larger of its neighbours, plus
    a constant that noise and small motions stay below. The result is the largest geometric mean of the three.
    None with fewer than three pairs, or if a frame does not show the object.
    """
    if len(video.frames) < 4 or not video.visible.all() or min(video.frames.shape[1:3]) < SMALLEST_SIDE:
        return None
    changes = _changes(video)
    beside = np.maximum(changes[:, :-2], changes[:, 2:])
    ratio = changes[:, 1:-1] / (beside + _FLOORS[:, None])
    return float(np.exp(np.log(np.maximum(ratio, 1e-3)).mean(0)).max())


_FLOORS = np.array([2.0, 3.0, 0.04])  # 8-bit steps, 8-bit steps, IoU


def _changes(video: JudgedVideo) -> np.ndarray:
    """Change of colours, of colours after compensation of the flow, and of the silhouette: [3, T - 1]."""
    cv2 = opencv()
    kernel = np.ones((3, 3), np.uint8)
    changes = np.zeros((3, len(video.frames) - 1))
    for t in range(len(video.frames) - 1):
        before, after = video.masks[t], video.masks[t + 1]
        either = before | after
        around = cv2.dilate(before.astype(np.uint8), kernel) > 0
        frame = video.frames[t].astype(np.float32)
        changes[0, t] = np.abs(video.frames[t + 1][either] - frame[either]).mean()
        changes[1, t] = np.abs(video.next_warped[t][around] - frame[around]).mean()
        changes[2, t] = 1 - (before & after).sum() / either.sum()
    return changes


def mirrored(video: JudgedVideo) -> float | None:
    """How much better a frame continues the mirror image of its predecessor than the predecessor; a ratio.

    With e(a, b) the mean difference of colours in the union of the masks: max over t of
    e(f_t, f_{t+1}) / e(flip(f_t), f_{t+1}). Below 1 where the object is not symmetric and does not turn, above 1 at
    the frame where the video becomes its mirror image; about 1 for a symmetric object, whose mirror image is no fault.
    None with fewer than two frames that show the object.
    """
    ratios = []
    for t in range(len(video.frames) - 1):
        if not (video.visible[t] and video.visible[t + 1]):
            continue
        same = _difference(video.frames[t], video.masks[t], video.frames[t + 1], video.masks[t + 1])
        flipped = _difference(
            video.frames[t][:, ::-1], video.masks[t][:, ::-1], video.frames[t + 1], video.masks[t + 1]
        )
        ratios.append((same + 1) / (flipped + 1))
    return float(max(ratios)) if ratios else None


def _difference(a: np.ndarray, mask_a: np.ndarray, b: np.ndarray, mask_b: np.ndarray) -> float:
    either = mask_a | mask_b
    return float(np.abs(a[either].astype(np.float32) - b[either]).mean())


def _largest(values: np.ndarray) -> float | None:
    return float(np.nanmax(values)) if np.isfinite(values).any() else None
