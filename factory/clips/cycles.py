"""Which animations repeat, which clips stand still, and which models are static."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from factory.dataset.notes import still_note
from renderers import fixed
from renderers.gltf import Asset

# Largest distance between a vertex's first and last position in an animation that loops, in bounding-box diagonals.
_LOOP_TOLERANCE = 0.01
# Of a cycle without the closing key, relative to the longer of its first and last key step: `lacks_closing_key`.
_GAP = 1.5
_CHANGE = 0.8
_DRIFT = 0.25
_FEWEST_STEPS = 4  # key steps; the first and the last of fewer say little about a cycle
# Of a clip that stands still at one of its ends.
_STILL_REACH = 1e-4  # bounding-box diagonals per frame; less is rounding
_STILL_PART = 0.25  # of the clip's frames; a shorter pause is part of the motion


def ends_in_first_pose(asset: Asset, index: int) -> bool:
    """Whether the last pose of an animation is its first, so that it loops without a jump."""
    animation = asset.animations[index]
    first = asset.positions(index, animation.start)[asset.visible]
    last = asset.positions(index, animation.end)[asset.visible]
    diagonal = fixed.norm(np.ptp(first, axis=0))
    return bool(fixed.norm(last - first).max() <= _LOOP_TOLERANCE * diagonal)


def lacks_closing_key(asset: Asset, index: int) -> bool:
    """Whether an animation is a cycle that ends one key step before its first pose recurs.

    With p_i(t) the position of vertex i, h the typical distance of keys, and s and e the times of the first and last
    key, the steps of a vertex before, across and after the seam are

        last_i = p_i(e) - p_i(e - h)     closing_i = p_i(s) - p_i(e)     first_i = p_i(s + h) - p_i(s)

    Let m = max_i max(|first_i|, |last_i|) and c_i = closing_i - (first_i + last_i) / 2. Velocities that change smoothly
    across the seam have |closing_i| <= 1.5 m and |c_i| <= 0.8 m: for a vertex on a circle with n keys,
    |c_i| = (1 - cos(2 pi / n)) m, which allows n >= 5. Animations of characters without their closing key reach 0.77. A
    motion that reverses abruptly at the seam has closing_i = last_i = -first_i, so |c_i| = m. One that comes to rest
    there, as many idle motions do, is smooth. A body that travels jumps back by its whole path across the seam: the
    mean of c_i over the vertices, where opposite limbs cancel, must not exceed m / 4.
    """
    animation = asset.animations[index]
    step = animation.key_interval
    if not step or animation.duration < (_FEWEST_STEPS - 0.5) * step:
        return False
    times = (animation.end - step, animation.end, animation.start, animation.start + step)
    poses = [asset.positions(index, time)[asset.visible].astype(np.float64) for time in times]
    last, closing, first = (b - a for a, b in pairwise(poses))
    moved = max(_largest(first), _largest(last))
    if moved <= _STILL_REACH * fixed.norm(np.ptp(poses[2], axis=0)):
        return False
    change = closing - 0.5 * (first + last)
    drift = float(fixed.norm(change.mean(axis=0)))
    return (
        _largest(closing) <= _GAP * moved and _largest(change) <= _CHANGE * moved and drift <= _DRIFT * moved
    )


def _largest(steps: np.ndarray) -> float:
    """Length of the longest of vectors [N, 3]."""
    return float(fixed.norm(steps).max())


def still_notes(points: np.ndarray, fps: float) -> tuple[str, ...]:
    """Notes on a clip whose beginning or end stands still for at least a quarter of it.

    Args:
        points: [T, N, 3].
        fps: frame rate.
    """
    diagonals = fixed.norm(np.ptp(points, axis=1))
    reach = _STILL_REACH * float(diagonals.max())
    moves = [_largest(b - a) > reach for a, b in pairwise(points)]
    if not any(moves):
        return ()
    lengths = {"beginning": moves.index(True), "end": moves[::-1].index(True)}
    return tuple(
        still_note(part, steps / fps) for part, steps in lengths.items() if steps >= _STILL_PART * len(points)
    )


def is_static(asset: Asset) -> bool:
    """Whether the asset has no animation, or only poses: animations of zero length."""
    return all(animation.duration <= 0.0 and not animation.fault for animation in asset.animations)
