"""Motion of the camera: of the background where it has texture, else what all of the object does in common."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.flow import CommonMotion
from factory.generation.judging.video import JudgedVideo

ANGLES = np.radians(np.arange(-75, 76, 5))  # of a last frame that is compared with the first
# Difference of the last frame from the first below which an object has begun to return to its pose.
RETURNED = 0.4


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
    value = _zoom(video)
    return None if value is None else abs(value)


def _zoom(video: JudgedVideo) -> float | None:
    """`zoom` with its sign: positive for an object that becomes larger."""
    common = _object_motion(video)
    if common is None:
        return None
    by_flow = float(common.mean(common.log_scale))
    places = np.concatenate([[0], np.cumsum(common.durations)]).astype(int)
    growth = np.diff(np.log(video.areas[places])) / 2
    if by_flow * growth.sum() <= 0:
        return 0.0
    return float(np.sign(by_flow) * np.sqrt(abs(by_flow) * _steady(growth, common.durations)))


def roll(video: JudgedVideo) -> float | None:
    """Rotation in the image that all of the object has in common; radians times a share, 0 and up.

    Geometric mean of two angles over the video: of the common motion, |mean a_t| over the steps (`CommonMotion.mean`);
    and of the halves of the object in the same sense (`CommonMotion.turns`), at the mean rate without the fastest and
    the slowest step, since a part that turns, such as a head, turns only some of the halves. Times (1 − s)^1/4, with s
    the largest share of the object that stands still in a step: before a camera that moves, nothing does. Times
    min(1, D(0) / 0.4), with D(0) the difference of the last frame from the first as in `final_roll`: an object that
    somersaults or loops ends as it began, and a camera that rolls does not. None as for `zoom`.
    """
    value = _roll(video)
    return None if value is None else abs(value)


def _roll(video: JudgedVideo) -> float | None:
    """`roll` with its sign."""
    common = _object_motion(video)
    if common is None:
        return None
    angle = float(common.mean(common.angle))
    halves = _steady_sum(common.turns * np.sign(angle), common.durations)
    moving = (1 - common.still.max()) ** 0.25 * min(1.0, video.ending.turned(0.0) / RETURNED)
    return float(np.sign(angle) * np.sqrt(abs(angle) * halves) * moving)


def final_roll(video: JudgedVideo) -> float | None:
    """Rotation of the last frame that explains its difference from the first; radians times a share, 0 and up.

    The angle θ within ±75° for which the last frame, turned back by it, differs least from the first, times
    1 − D(θ) / D(0), with D the difference of the two (`Ending.turned`). Most motions of an object do not end in the
    pose of the beginning, rotated in the image; before a camera that rolls, all of them are rotated. None as for
    `zoom`.
    """
    value = _final_roll(video)
    return None if value is None else abs(value)


def _final_roll(video: JudgedVideo) -> float | None:
    """`final_roll` with its sign."""
    if _object_motion(video) is None:
        return None
    differences = [video.ending.turned(angle) for angle in ANGLES]
    best, upright = int(np.argmin(differences)), video.ending.turned(0.0)
    return float(ANGLES[best] * (1 - differences[best] / upright)) if upright > 0 else 0.0


def pan(video: JudgedVideo) -> float | None:
    """Displacement that all parts of the object have; shares of the frame's longer side, 0 and up.

    Geometric mean of two displacements over the video in the direction of the common motion: of the whole object, at
    the mean rate without the fastest step; and of its base (`CommonMotion.base`), at the mean rate without the fastest
    and the slowest step, since the feet of a creature that walks stand in turns. Times √(1 − s), with s the largest
    share of the object that stands still in a step: before a camera that moves, nothing does. An object that glides
    across the frame scores as a panning camera does: before a plain background they are the same. None as for `zoom`.
    """
    common = _object_motion(video)
    if common is None:
        return None
    whole = _steady_sum(common.offset @ common.direction, common.durations, slowest=0)
    base = _steady_sum(common.base @ common.direction, common.durations)
    moving = float(np.sqrt(1 - common.still.max()))
    return float(np.sqrt(whole * base)) * moving / max(video.frames.shape[1:3])


def final_pan(video: JudgedVideo) -> float | None:
    """Displacement of the last frame that explains its difference from the first; shares of the frame's longer side.

    Distance of the mask's centre in the last frame from that in the first, times (1 − D)², with D the difference of
    the two frames once the last one is moved back by it (`Ending.moved`). An object that walks across the frame is
    seen from another side and at another distance in the end, before a panning camera it is not. None as for `zoom`.
    """
    vector = _final_pan(video)
    return None if vector is None else float(np.linalg.norm(vector))


def _final_pan(video: JudgedVideo) -> np.ndarray | None:
    """`final_pan` with its direction, float64 [2]."""
    if _object_motion(video) is None:
        return None
    shift = (video.centres[-1] - video.centres[0]) / max(video.frames.shape[1:3])
    return np.asarray(shift * (1 - video.ending.moved()) ** 2)


def signed_motion(video: JudgedVideo) -> dict[str, np.ndarray]:
    """The motion of the camera by measure as vectors float64 [1], or [2] for a pan, with sign and direction.

    Without those that are None.
    """
    common, panned = _object_motion(video), pan(video)
    if common is None or panned is None:
        return {}
    values: dict[str, float | np.ndarray | None] = {
        "zoom": _zoom(video),
        "roll": _roll(video),
        "pan": panned * common.direction,
        "final_roll": _final_roll(video),
        "final_pan": _final_pan(video),
    }
    return {name: np.atleast_1d(value) for name, value in values.items() if value is not None}


def _steady_sum(steps: np.ndarray, durations: np.ndarray, slowest: int = 1) -> float:
    """What steps [N] add up to at their mean rate, without the fastest and the `slowest` slowest ones; at least 0.

    With at most three steps, all of them count.
    """
    rates = np.sort(steps / durations)
    middle = rates[slowest:-1] if len(rates) > 3 else rates
    return max(0.0, float(middle.mean() * durations.sum()))


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
