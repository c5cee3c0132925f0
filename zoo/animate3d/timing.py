"""Motions at other times: resampled, trimmed, and closed to a loop."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from zoo.animate3d.motion import GraphMotion
from zoo.animate3d.splats.motion import SplatMotion
from zoo.export.keys import lerp, slerp

Motion = TypeVar("Motion", GraphMotion, SplatMotion)
_SAME_TIME = 1e-9  # seconds


def at_times(motion: Motion, times: np.ndarray) -> Motion:
    """Evaluate a motion: positions are interpolated linearly, rotations spherically, and both held outside.

    Args:
        motion: the motion.
        times: [T], seconds, increasing; they become the times of the result.
    """
    old = motion.times
    after = np.clip(np.searchsorted(old, times, side="right"), 1, max(len(old) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(old) - 1)
    step = old[after] - old[before]
    u = np.clip((times - old[before]) / np.where(step > 0, step, 1.0), 0.0, 1.0)
    u = u[:, None, None].astype(motion.positions.dtype)
    return replace(
        motion,
        positions=lerp(motion.positions[before], motion.positions[after], u),
        rotations=slerp(motion.rotations[before], motion.rotations[after], u),
        times=np.asarray(times, np.float64),
    )


def trimmed(motion: Motion, start: float, end: float) -> Motion:
    """The part of a motion from `start` to `end`, in seconds from its first frame; it begins at 0 s."""
    times = motion.times - motion.times[0]
    inner: np.ndarray = times[(times > start + _SAME_TIME) & (times < end - _SAME_TIME)]
    chosen = np.array([start, *inner, end] if end > start else [start])
    part = at_times(replace(motion, times=times), chosen)
    return replace(part, times=chosen - start)


def resampled(motion: Motion, fps: float) -> Motion:
    """The motion at a frame rate; the last frame is the last that is not after the end of the motion."""
    length = motion.times[-1] - motion.times[0]
    count = int(np.floor(length * fps + 1e-6)) + 1
    return at_times(replace(motion, times=motion.times - motion.times[0]), np.arange(count) / fps)


def looped(motion: Motion, crossfade: float) -> Motion:
    """Close a motion of length L to a loop of length L − c by fading its end over into its beginning.

    At t < c the pose is a blend of those at L − c + t and at t, from the first to the second (smoothstep). The pose at
    the end of the loop, at L − c, is the one at its beginning, and speeds agree as well.

    Args:
        motion: the motion.
        crossfade: c, seconds, at most L / 2.
    """
    times = motion.times - motion.times[0]
    length = times[-1]
    shifted = replace(motion, times=times)
    end = length - crossfade
    inner: np.ndarray = times[(times > _SAME_TIME) & (times < end - _SAME_TIME)]
    chosen = np.array([0.0, *inner, end])
    base = at_times(shifted, chosen)
    ending = at_times(shifted, end + chosen)
    s = np.clip(chosen / crossfade, 0.0, 1.0)
    s = (s * s * (3.0 - 2.0 * s))[:, None, None].astype(motion.positions.dtype)
    return replace(
        base,
        positions=lerp(ending.positions, base.positions, s),
        rotations=slerp(ending.rotations, base.rotations, s),
    )
