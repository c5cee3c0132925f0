"""Motion of the camera: of the background where it has texture, else what all of the object does in common."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.flow import CommonMotion
from factory.generation.judging.video import JudgedVideo


def background_motion(video: JudgedVideo) -> float | None:
    """Path of the background's flow over the video, as a share of the frame's longer side; 0 and up.

    Sum over pairs of frames of the median of |flow| over pixels outside the mask that have texture. None if less than
    2 % of the background has texture, as before a plain colour.
    """
    lengths = video.background_flow
    return None if lengths is None else float(lengths.sum() / max(video.frames.shape[1:3]))


def zoom(video: JudgedVideo) -> float | None:
    """Steady change of scale that the object's flow and its area agree on; |ln(scale)|, 0 and up.

    Geometric mean of |mean ln s_t| over the steps (`CommonMotion.mean`), with s_t the scale of the common motion in the
    mask, and of the steady change of ln(A_t) / 2 (`_steady`), with A_t the mask's area; 0 if they have different signs.
    None before a textured background, where `background_motion` measures it, or if a frame does not show the object.
    """
    common = _object_motion(video)
    if common is None:
        return None
    by_flow = float(common.mean(common.log_scale))
    places = np.concatenate([[0], np.cumsum(common.durations)]).astype(int)
    growth = np.diff(np.log(video.areas[places])) / 2
    if by_flow * growth.sum() <= 0:
        return 0.0
    return float(np.sqrt(abs(by_flow) * _steady(growth, common.durations)))


def roll(video: JudgedVideo) -> float | None:
    """Rotation in the image that all of the object has in common; radians times a share, 0 and up.

    |mean a_t| over the steps (`CommonMotion.mean`), with a_t the angle of the common motion, times √s with s the
    smallest share of the object that follows it in a step: of an object that turns about its own axis, most does not.
    None as for `zoom`.
    """
    common = _object_motion(video)
    if common is None:
        return None
    return abs(float(common.mean(common.angle))) * float(np.sqrt(common.share.min()))


def pan(video: JudgedVideo) -> float | None:
    """Displacement that all parts of the object have; shares of the frame's longer side, 0 and up.

    With s_t the displacement of the slowest fifth of the mask in step t, in the direction of the common motion: the
    mean rate s_t / τ_t, without the fastest and the slowest step, times the duration Σ τ_t. The foot that a walking
    creature stands on is slow, but not under a panning camera. An object that glides across the frame scores as a
    panning camera does: before a plain background they are the same. None as for `zoom`.
    """
    common = _object_motion(video)
    if common is None:
        return None
    rates = np.sort(common.slowest / common.durations)
    middle = rates[1:-1] if len(rates) > 3 else rates
    return max(0.0, float(middle.mean() * common.durations.sum())) / max(video.frames.shape[1:3])


def _steady(steps: np.ndarray, durations: np.ndarray) -> float:
    """Length of the sum of steps [N], times the share of their squares that a constant speed explains.

    With sum L of the steps l_t, and τ_t the duration of each: |L| L² / (Σ τ_t Σ l_t² / τ_t), by the inequality of
    Cauchy and Schwarz at most |L|.
    """
    length = abs(float(steps.sum()))
    squares = durations.sum() * float((steps**2 / durations).sum())
    return length * length**2 / squares if squares > 0 else 0.0


def _object_motion(video: JudgedVideo) -> CommonMotion | None:
    """Common motion of the object before a plain background."""
    return video.object_motion if video.background_flow is None else None
