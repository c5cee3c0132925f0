"""How much the object moves, whether it jumps, and whether half of the video is mirrored."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.flow import sample
from factory.generation.judging.video import SMALLEST_SIDE, JudgedVideo

MOST_FRAMES = 15  # that `motion` compares with the first one
FASTEST = 95  # percentile of the flow in the mask: the part that moves most


def motion(video: JudgedVideo) -> float | None:
    """Largest displacement of the object's fastest part from where it was at first; lengths of the object, 0 and up.

    Largest over at most `MOST_FRAMES` evenly spaced frames of the 95th percentile of |flow| from the first visible
    frame in its mask, divided by `JudgedVideo.size`. The noise of flow counts once, not once per frame as in a path,
    so that a small gesture differs from a frozen video, which scores about 0.01. None if fewer than two frames show
    the object.
    """
    places = np.flatnonzero(video.visible)
    if min(video.frames.shape[1:3]) < SMALLEST_SIDE or len(places) < 2:
        return None
    first, later = places[0], places[1:]
    chosen = np.unique(
        later[np.linspace(0, len(later) - 1, min(len(later), MOST_FRAMES)).round().astype(int)]
    )
    lengths = [np.linalg.norm(video.object_flow(first, t)[video.masks[first]], axis=-1) for t in chosen]
    return float(max(np.percentile(length, FASTEST) for length in lengths) / video.size)


def jump(video: JudgedVideo) -> float | None:
    """Largest sudden displacement of the object as it is; lengths of the object, 0 and up.

    With v_t the step of the mask's centre from frame t to t + 1, step t is sudden by

        J_t = min(|v_t − v_{t−1}|, |v_t − 2 v_{t−1} + v_{t−2}|, |v_t − v_{t+1}|, |v_t − 2 v_{t+1} + v_{t+2}|)

    its distance from constant speed and from constant acceleration, before and after it: an accelerated motion, such as
    a fall, continues one of its sides, and a displacement in one step or for one frame continues neither. The larger of
    two tolerances is subtracted, which grow with the motion: the third largest J within three steps of t, since a hop
    at a low frame rate has three or more and a jump one or two; and the median of |v_{t+1} − v_t| over the video.
    Divided by 1 + 10 (1 − IoU of the two masks with their centres aligned), since a creature that leaps changes its
    shape, and by `JudgedVideo.size`. None with fewer than three steps, or if a frame does not show the object.
    """
    if len(video.frames) < 4 or not video.visible.all():
        return None
    steps = np.diff(video.centres, axis=0)
    usual = float(np.median(np.linalg.norm(np.diff(steps, axis=0), axis=-1)))
    change = np.array([_suddenness(steps, t) for t in range(1, len(steps) - 1)])
    scores = []
    for t, value in enumerate(change):
        beside = np.sort(change[max(0, t - 3) : t + 4])
        third = beside[-3] if len(beside) > 2 else 0.0
        before, after = video.masks[t + 1], video.masks[t + 2]
        shift = np.broadcast_to(video.centres[t + 2] - video.centres[t + 1], (*before.shape, 2))
        aligned = sample(after.astype(np.float32), shift.astype(np.float32)) > 0.5
        deformed = 1 - (aligned & before).sum() / max(1, (aligned | before).sum())
        scores.append((value - max(third, usual)) / (1 + 10 * deformed))
    return max(0.0, float(max(scores) / video.size))


def _suddenness(steps: np.ndarray, t: int) -> float:
    """J_t of `jump`, pixels; `steps` are v_t, float64 [T - 1, 2]."""
    expected = [steps[t - 1], steps[t + 1]]
    if t >= 2:
        expected.append(2 * steps[t - 1] - steps[t - 2])
    if t + 2 < len(steps):
        expected.append(2 * steps[t + 1] - steps[t + 2])
    return float(min(np.linalg.norm(steps[t] - step) for step in expected))


_FLOORS = np.array([2.0, 3.0])  # 8-bit steps: noise and small motions stay below


def cut(video: JudgedVideo) -> float | None:
    """How far the largest change between two frames exceeds the changes beside it; a ratio, about 1 without a cut.

    Two changes are measured for each pair of frames: of colours in the union of the masks, and of colours after
    compensation of the flow, forwards or backwards, whichever fits better. Each is divided by the larger of its
    neighbours plus a constant. The result is the largest geometric mean of both.
    None with fewer than three pairs, or if a frame does not show the object.
    """
    excess = _excess(video)
    return None if excess is None else float(np.sqrt(excess.prod(0)).max())


def mirrored(video: JudgedVideo) -> float | None:
    """How much better a frame continues the mirror image of its predecessor than the predecessor; a ratio.

    Geometric mean of three ratios for each pair of frames f_t, f_{t+1}; the largest counts. e(a, b) is the mean
    difference of colours in the union of the masks, and r(a, b) that after compensation of the flow from a to b:

        e(f_t, f_{t+1}) / e(flip(f_t), f_{t+1})     above 1 where the video becomes its mirror image
        r(f_t, f_{t+1}) / r(flip(f_t), f_{t+1})     the same for small differences, as of a nearly symmetric object
        r(f_t, f_{t+1}) / the larger of its neighbours (`_excess`)    an object that turns through its plane of symmetry
                                                                      has no such excess

    None as for `cut`. The mirror image of a symmetric object looks alike, and scores about 1.
    """
    excess = _excess(video)
    if excess is None:
        return None
    ratios = []
    for t in range(1, len(video.frames) - 2):
        frame, after = video.smooth(t), video.smooth(t + 1)
        either, flipped = video.masks[t] | video.masks[t + 1], video.masks[t][:, ::-1] | video.masks[t + 1]
        same = np.abs(frame - after)[either].mean() + 1
        plain = same / (np.abs(frame[:, ::-1] - after)[flipped].mean() + 1)
        ratios.append(plain * (video.continuations.residuals[t] + 1) / (video.mirrored_change(t) + 1))
    return float(np.cbrt(np.array(ratios) * excess[1]).max())


def _excess(video: JudgedVideo) -> np.ndarray | None:
    """Change of colours, and of colours after compensation of the flow, over the larger of its neighbours.

    Returns:
        float64 [2, T - 3], for the pairs of frames (1, 2) to (T - 3, T - 2).
    """
    if len(video.frames) < 4 or not video.visible.all() or min(video.frames.shape[1:3]) < SMALLEST_SIDE:
        return None
    changes = np.stack([video.continuations.differences, video.continuations.residuals])
    return changes[:, 1:-1] / (np.maximum(changes[:, :-2], changes[:, 2:]) + _FLOORS[:, None])
