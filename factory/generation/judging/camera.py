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

    The smaller of |Σ ln s_t|, with s_t the scale of the common motion in the mask, and |ln(A_last / A_first)| / 2 if
    both have the same sign, else 0. None before a textured background, where `background_motion` measures it, or if
    a frame does not show the object.
    """
    common = _object_motion(video)
    if common is None:
        return None
    by_flow = common.log_scale.sum()
    by_area = np.log(video.areas[-1] / video.areas[0]) / 2
    return float(min(abs(by_flow), abs(by_area))) if by_flow * by_area > 0 else 0.0


def roll(video: JudgedVideo) -> float | None:
    """Steady rotation in the image that all of the object has in common; radians, 0 and up.

    |Σ a_t| times the share of Σ a_t² that a constant speed explains (`_steady`), with a_t the angle of the common
    motion in step t. The share is 1 for a camera at constant speed, and small for a gesture that takes a part of the
    video. None as for `zoom`.
    """
    common = _object_motion(video)
    return None if common is None else _steady(common.angle[:, None], common.durations)


def pan(video: JudgedVideo) -> float | None:
    """Steady displacement that all parts of the object have; shares of the frame's longer side, 0 and up.

    |Σ s_t| times the share of the squares that a constant speed explains (`_steady`), with s_t the displacement of the
    slowest tenth of the mask in step t, in the direction of the common motion, at least 0. The foot that a walking
    creature stands on is slow, but not under a panning camera. An object that glides across the frame at constant speed
    scores as a panning camera does: before a plain background they are the same. None as for `zoom`.
    """
    common = _object_motion(video)
    if common is None:
        return None
    return _steady(np.maximum(common.slowest, 0)[:, None], common.durations) / max(video.frames.shape[1:3])


def _steady(steps: np.ndarray, durations: np.ndarray) -> float:
    """Length of the sum of steps [N, D], times the share of their squares along it that a constant speed explains.

    With l_t the part of step t along the sum L, and τ_t its duration: L L² / (Σ τ_t Σ l_t² / τ_t), by the inequality of
    Cauchy and Schwarz at most L.
    """
    total = steps.sum(0)
    length = float(np.linalg.norm(total))
    along = steps @ total / max(length, 1e-12)
    squares = durations.sum() * float((along**2 / durations).sum())
    return length * length**2 / squares if squares > 0 else 0.0


def _object_motion(video: JudgedVideo) -> CommonMotion | None:
    """Common motion of the object before a plain background."""
    return video.object_motion if video.background_flow is None else None
