"""Key frames: quaternions that interpolate along the shorter arc, and the fewest keys within a tolerance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def continuous(quats: np.ndarray) -> np.ndarray:
    """Unit quaternions [T, K, 4] with signs chosen so that linear interpolation takes the shorter arc.

    q and −q are the same rotation; each is given a non-negative dot product with its predecessor.
    """
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    flips = np.where((quats[1:] * quats[:-1]).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    return quats * np.concatenate([np.ones_like(quats[:1, :, :1]), np.cumprod(flips, axis=0)])


def lerp(a: np.ndarray, b: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Linear interpolation, a at u = 0 and b at u = 1."""
    return a + (b - a) * u


def slerp(a: np.ndarray, b: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Spherical interpolation of unit quaternions [..., 4] along the shorter arc; u broadcasts to [..., 1]."""
    dot = (a * b).sum(-1, keepdims=True)
    b = np.where(dot < 0, -b, b)
    angle = np.arccos(np.clip(np.abs(dot), 0.0, 1.0))
    sine = np.sin(angle)
    near = sine < 1e-7
    safe = np.where(near, 1.0, sine)
    first = np.where(near, 1.0 - u, np.sin((1.0 - u) * angle) / safe)
    second = np.where(near, u, np.sin(u * angle) / safe)
    mixed = first * a + second * b
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of points [..., 3]."""
    return np.linalg.norm(a - b, axis=-1)


def turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far the rotation from a to b moves a point at distance 1: 2 sin(θ/2), for unit quaternions [..., 4].

    With the dot product d = cos(θ/2) it is 2 √(1 − d²), computed as the length of the part of b orthogonal to a.
    """
    dot = (a * b).sum(-1, keepdims=True)
    return 2.0 * np.linalg.norm(b - dot * a, axis=-1)


def kept_keys(
    times: np.ndarray,
    values: np.ndarray,
    tolerance: float,
    interpolate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = lerp,
    error: Callable[[np.ndarray, np.ndarray], np.ndarray] = distance,
) -> np.ndarray:
    """Choose keys between which interpolation restores all others (Douglas and Peucker 1973, in time).

    Args:
        times: [T], increasing.
        values: [T, ...].
        tolerance: largest error at any of the T times.
        interpolate: of values [n, ...] between two of them.
        error: of values [n, ...] against the given ones, [n].
    Returns:
        Ascending indices, with the first and the last; a single one if all values are within the tolerance of the
        first.
    """
    last = len(times) - 1
    if last == 0 or error(np.broadcast_to(values[0], values.shape), values).max() <= tolerance:
        return np.zeros(1, np.int64)
    kept, stack = {0, last}, [(0, last)]
    while stack:
        start, stop = stack.pop()
        if stop - start < 2:
            continue
        inner = slice(start + 1, stop)
        u = (times[inner] - times[start]) / (times[stop] - times[start])
        u = u.reshape(-1, *[1] * (values.ndim - 1))
        between = interpolate(values[start : start + 1], values[stop : stop + 1], u)
        errors = error(between, values[inner])
        worst = int(errors.argmax())
        if errors[worst] > tolerance:
            middle = start + 1 + worst
            kept.add(middle)
            stack += [(start, middle), (middle, stop)]
    return np.array(sorted(kept))
