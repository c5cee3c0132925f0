"""Colours and sharpness of the object over time: flicker, identity, the first frame, blur."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.colors import color_distance
from factory.generation.judging.flow import opencv
from factory.generation.judging.video import SMALLEST_SIDE, JudgedVideo


def flicker(video: JudgedVideo) -> float | None:
    """Amplitude of alternating changes of brightness or colour; share of the brightness, 0 and up.

    δ_t: median over the mask of the difference between a pixel of frame t and where the flow takes it in frame t + 1,
    divided by the object's mean brightness. The result is the mean over t of |δ_t − δ_{t−1}| / 4 in the channel where
    it is largest: a brightness of 1 ± a in turns gives a, a steady change gives 0. None with fewer than three frames,
    or if one does not show the object.
    """
    if len(video.frames) < 3 or not video.visible.all() or min(video.frames.shape[1:3]) < SMALLEST_SIDE:
        return None
    steps = video.continuations.brightening
    brightness = np.mean([frame[mask].mean() for frame, mask in zip(video.frames, video.masks, strict=True)])
    second = np.abs(np.diff(steps, axis=0)).mean(0) / 4
    return float(second.max() / max(brightness, 1.0))


def color_change(video: JudgedVideo) -> float | None:
    """Lasting distance of the object's colours from those of the first frame; CIELAB units, 0 and up.

    For each of L*, a*, b*: the 1-Wasserstein distance between the distributions over the mask, from 49 quantiles; L*
    counts 0.4. The Euclidean length of the three, and the median over the last quarter of the frames. It does not
    depend on where on the object a colour is, so that a moving object has a small one. None if the first or all of
    those frames do not show the object.
    """
    late = video.visible & (np.arange(len(video.frames)) >= 0.75 * len(video.frames))
    if not video.visible[0] or not late.any():
        return None
    return float(np.median([color_distance(video.colors[0], other) for other in video.colors[late]]))


def color_step(video: JudgedVideo) -> float | None:
    """Largest distance of the object's colours between two frames in succession; CIELAB units, 0 and up.

    The distance is that of `color_change`. Turning objects change their colours gradually, inverted or replaced ones at
    once. None if no two frames in succession show the object.
    """
    pairs = np.flatnonzero(video.visible[:-1] & video.visible[1:])
    if not len(pairs):
        return None
    return max(color_distance(video.colors[t], video.colors[t + 1]) for t in pairs)


def shape_change(video: JudgedVideo) -> float | None:
    """Lasting change of the silhouette's proportions; |ln| of a ratio, 0 and up.

    With s_t = (ln of the area, ln of the longer and of the shorter axis of the mask's ellipse), each relative to frame
    0: the Euclidean length of the median over the last quarter of the frames. None if the first or all of those
    frames do not show the object.
    """
    change = proportion_change(video)
    return None if change is None else float(np.linalg.norm(change))


def proportion_change(video: JudgedVideo) -> np.ndarray | None:
    """The vector of `shape_change`, float64 [3]: ln of area, longer and shorter axis, over those of frame 0."""
    last = np.arange(len(video.frames)) >= 0.75 * len(video.frames)
    if not video.visible[0] or not (video.visible & last).any():
        return None
    start = _proportions(video.masks[0])
    late = [_proportions(mask) - start for mask in video.masks[video.visible & last]]
    return np.median(late, axis=0)


def _proportions(mask: np.ndarray) -> np.ndarray:
    points = np.argwhere(mask).astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(points.T) + np.eye(2) / 12)
    return np.array([np.log(len(points)) / 2, np.log(variances[1]) / 2, np.log(variances[0]) / 2])


def first_frame(video: JudgedVideo) -> float | None:
    """Distance of the first frame from the picture that the video was made from; share of full scale, 0..1.

    Root mean square of the colour difference, after a blur of σ = 1 pixel, over the mask of the first frame. None
    without a picture.
    """
    if video.still is None or not video.visible[0]:
        return None
    cv2 = opencv()
    first, still = (
        cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0) for image in (video.frames[0], video.still)
    )
    return float(np.sqrt(((first - still)[video.masks[0]] ** 2).mean()) / 255)


def sharpness_loss(frames: np.ndarray, masks: np.ndarray) -> float | None:
    """Loss of sharpness against the first frame; share, below 0 for a gain.

    The sharpness of a frame is the share of its gradients that a blur of σ = 1 pixel removes, in the mask dilated by
    three pixels (after Crete et al. 2007, The blur effect); it depends little on how much texture is seen. Result:
    1 − median over the last three quarters of the frames / first. None if those do not show the object.

    Args:
        frames: uint8 [T, H, W, 3], not reduced.
        masks: bool [T, H, W].
    """
    sharp = np.array([_sharpness(frame, mask) for frame, mask in zip(frames, masks, strict=True)])
    late = sharp[len(sharp) // 4 :]
    if not np.isfinite(sharp[0]) or not np.isfinite(late).any() or sharp[0] <= 0:
        return None
    return float(1 - np.nanmedian(late) / sharp[0])


def _sharpness(frame: np.ndarray, mask: np.ndarray) -> float:
    cv2 = opencv()
    if mask.sum() < 12:
        return np.nan
    around = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    before, after = _gradients(grey, around), _gradients(cv2.GaussianBlur(grey, (0, 0), 1.0), around)
    return 1 - after / before if before > 0 else np.nan


def _gradients(grey: np.ndarray, region: np.ndarray) -> float:
    rows, columns = np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1]
    # Squares, so that strong edges count and noise does not.
    return float((rows**2 + columns**2)[region[:-1, :-1]].mean())
