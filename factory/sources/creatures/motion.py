"""Gestures and takes, the motion description that `pose.solve` converts to joint poses.

A gesture is a function that adds offsets from the rest pose to a `Take`. Its time s (float [T]) is clamped to [0, 1],
so its final value persists. Gestures are additive, except that scales multiply, and have no effect at s = 0.
Angles follow `shapes.rotation`: positive pitch bends forward, yaw turns left, roll leans right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from factory.sources.creatures.skeleton import Skeleton
from renderers import fixed

SECONDS, FPS = 2.0, 24
TIMES = np.arange(int(SECONDS * FPS) + 1) / FPS
"""Key times in seconds: frames 0–47 of a clip, and its end."""

Curve = Callable[[np.ndarray], np.ndarray]
Gesture = Callable[["Take", np.ndarray], None]


class Take:
    """Offsets from the rest pose over T key times, to which gestures add.

    Attributes:
        angles: [T, J, 3] radians, (pitch, yaw, roll) of each joint, applied as Ry · Rx · Rz.
        shifts: [T, J, 3] metres in the parent's axes.
        scales: [T, J, 3] factors.
        body_path: [T, 3] position (x, z in metres) and heading (radians) of the body.
        foot_path: leg → [T, 3] the same for each foothold.
        foot_shift: leg → [T, 3] metres off the foothold, in its heading.
        foot_angles: leg → [T, 3] radians, tipping about the sole.
        morphs: morph target → [T] weights.
    """

    def __init__(self, skeleton: Skeleton, morphs: Sequence[str] = (), frames: int = len(TIMES)):
        joints = len(skeleton.names)
        self.skeleton = skeleton
        self.angles, self.shifts = np.zeros((frames, joints, 3)), np.zeros((frames, joints, 3))
        self.scales = np.ones((frames, joints, 3))
        self.body_path = np.zeros((frames, 3))
        self.foot_path = {leg: np.zeros((frames, 3)) for leg in skeleton.legs}
        self.foot_shift = {leg: np.zeros((frames, 3)) for leg in skeleton.legs}
        self.foot_angles = {leg: np.zeros((frames, 3)) for leg in skeleton.legs}
        self.morphs = {name: np.zeros(frames) for name in morphs}

    @classmethod
    def joined(cls, takes: Sequence[Take]) -> Take:
        """Concatenate takes of one skeleton in time, so that they are solved in one batch."""
        whole = cls(takes[0].skeleton, list(takes[0].morphs), sum(len(take.angles) for take in takes))
        for name in ("angles", "shifts", "scales", "body_path"):
            setattr(whole, name, np.concatenate([getattr(take, name) for take in takes]))
        for name in ("foot_path", "foot_shift", "foot_angles", "morphs"):
            keys = getattr(whole, name)
            setattr(
                whole, name, {k: np.concatenate([getattr(take, name)[k] for take in takes]) for k in keys}
            )
        return whole


# ---------------------------------------------------------------------------------------- curves of s


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * x * (x * (6 * x - 15) + 10)


def ease(start: float = 0.0, end: float = 1.0) -> Curve:
    """Rise from 0 to 1 between `start` and `end`, then stay at 1."""
    return lambda s: _smooth((s - start) / (end - start))


def hold(rise: float = 0.3, fall: float = 0.3) -> Curve:
    """Rise to 1 over the fraction `rise`, hold, and fall to 0 over the last fraction `fall`."""
    return lambda s: _smooth(s / rise) * _smooth((1 - s) / fall)


def pulses(count: int = 1) -> Curve:
    """`count` sin² pulses from 0 to 1 and back."""
    return lambda s: fixed.sin(np.pi * count * s) ** 2


def waves(count: float = 2, delay: float = 0.0) -> Curve:
    """`count` periods of a sine with a smooth window; `delay` is a phase lag in periods, for trailing joints."""
    window = hold(0.25, 0.25)
    return lambda s: fixed.sin(2 * np.pi * (count * s - delay)) * window(s)


# ---------------------------------------------------------------------------------------- elementary gestures


def together(*gestures: Gesture) -> Gesture:
    """Play gestures simultaneously."""

    def play(take: Take, s: np.ndarray) -> None:
        for gesture in gestures:
            gesture(take, s)

    return play


def within(start: float, end: float, gesture: Gesture) -> Gesture:
    """Play a gesture between the times `start` and `end` (fractions of the whole)."""
    return lambda take, s: gesture(take, np.clip((s - start) / (end - start), 0, 1))


def sequence(*gestures: Gesture) -> Gesture:
    """Play gestures one after the other, each for an equal share of the time."""
    edges = np.linspace(0, 1, len(gestures) + 1)
    return together(*(within(a, b, g) for a, b, g in zip(edges[:-1], edges[1:], gestures, strict=True)))


def bend(
    joint: str, pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None
) -> Gesture:
    """Rotate a joint by angles in degrees, scaled by a curve (default `hold()`)."""
    curve = curve or hold()
    angles = np.radians([pitch, yaw, roll])

    def play(take: Take, s: np.ndarray) -> None:
        take.angles[:, take.skeleton.index(joint)] += curve(s)[:, None] * angles

    return play


def both(part: str, pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None) -> Gesture:
    """Rotate "left_{part}" by these angles and "right_{part}" by the mirrored ones; roll > 0 spreads them."""
    left, right = (
        bend(f"left_{part}", pitch, yaw, roll, curve),
        bend(f"right_{part}", pitch, -yaw, -roll, curve),
    )
    return together(left, right)


def shift(joint: str, x: float = 0, y: float = 0, z: float = 0, curve: Curve | None = None) -> Gesture:
    """Translate a joint by metres, scaled by a curve (default `hold()`)."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.shifts[:, take.skeleton.index(joint)] += curve(s)[:, None] * np.array([x, y, z])

    return play


def swell(joint: str, x: float = 0, y: float = 0, z: float = 0, curve: Curve | None = None) -> Gesture:
    """Scale a joint by the factors 1 + curve · (x, y, z) (default curve `hold()`)."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.scales[:, take.skeleton.index(joint)] *= 1 + curve(s)[:, None] * np.array([x, y, z])

    return play


def morph(name: str, amount: float = 1.0, curve: Curve | None = None) -> Gesture:
    """Add `amount` times a curve (default `hold()`) to the weight of a morph target."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.morphs[name] += amount * curve(s)

    return play


def foot(
    leg: str, x: float = 0, y: float = 0, z: float = 0,
    pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None,
) -> Gesture:  # fmt: skip
    """Move and rotate a foot from its foothold, in metres and degrees, scaled by a curve (default `hold()`)."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.foot_shift[leg] += curve(s)[:, None] * np.array([x, y, z])
        take.foot_angles[leg] += curve(s)[:, None] * np.radians([pitch, yaw, roll])

    return play


def ripple(
    joints: Sequence[str],
    pitch: float = 0,
    yaw: float = 0,
    roll: float = 0,
    count: float = 2,
    lag: float = 0.12,
) -> Gesture:
    """Travelling wave along a chain: each joint repeats the swing of the previous one `lag` periods later."""
    return together(*(bend(j, pitch, yaw, roll, waves(count, k * lag)) for k, j in enumerate(joints)))


def curl(
    joints: Sequence[str], pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None
) -> Gesture:
    """Bend a chain, with the angles divided equally among its joints."""
    n = len(joints)
    return together(*(bend(joint, pitch / n, yaw / n, roll / n, curve) for joint in joints))


# ---------------------------------------------------------------------------------------- locomotion


def _advance(path: np.ndarray, u: np.ndarray, x: float, z: float, turn: float) -> np.ndarray:
    """Extend `path` [T, 3] by the fraction u [T] of a displacement (x, z), in the path's heading, and of a turn."""
    heading = path[:, 2]
    cos, sin = fixed.cos(heading), fixed.sin(heading)
    return path + np.stack([u * (x * cos + z * sin), u * (z * cos - x * sin), u * turn], 1)


def steps(
    gait: Sequence[Sequence[str]], count: int, forward: float = 0, side: float = 0, turn_deg: float = 0,
    lift: float = 0.06, bob: float = 0.02, tip_deg: float = 25,
) -> Gesture:  # fmt: skip
    """Walk: the groups of legs in `gait` step alternately, `count` steps in total, and planted feet do not slide.

    Counts and distances are for the whole 2 s. A shorter walk has the same speed and covers less distance.

    Args:
        forward, side: metres covered along +Z and +X of the heading at the start.
        turn_deg: degrees turned to the left during the walk.
        lift: height of a step, metres. bob: how far the body drops at each step, metres.
        tip_deg: pitch of the foot at the top of a step, degrees.
    """
    groups = len(gait)

    def play(take: Take, s: np.ndarray) -> None:
        share = _share(s)
        taken = max(groups + 1, round(count * share))
        x, z, turn = side * share, forward * share, np.radians(turn_deg)
        progress = []
        for g, legs in enumerate(gait):
            u, height, last = np.zeros_like(s), np.zeros_like(s), 0.0
            for step in range(g, taken, groups):
                goal = min(1.0, (step + 1) / max(1, taken - groups + 1))
                phase = np.clip(s * taken - step, 0, 1)
                u += (goal - last) * _smooth(phase)
                height += fixed.sin(np.pi * phase) ** 2
                last = goal
            progress.append(u)
            for leg in legs:
                take.foot_path[leg] = _advance(take.foot_path[leg], u, x, z, turn)
                take.foot_shift[leg][:, 1] += lift * height
                take.foot_angles[leg][:, 0] += np.radians(tip_deg) * height
        mean = np.mean(progress, axis=0)
        # A Hann window smooths the stepwise progress of the feet into body motion.
        kernel = 0.5 + 0.5 * fixed.cos(np.pi * np.arange(-6, 7, 2) / 8)
        kernel /= kernel.sum()
        padded = np.concatenate([np.full(3, mean[0]), mean, np.full(3, mean[-1])])
        glide = sum(factor * padded[k : k + len(mean)] for k, factor in enumerate(kernel))
        glide = (glide - glide[0]) / (glide[-1] - glide[0])
        take.body_path = _advance(take.body_path, glide, x, z, turn)
        take.shifts[:, take.skeleton.index("body"), 1] -= bob * fixed.sin(np.pi * taken * s) ** 2

    return play


def hops(
    count: int, forward: float = 0, side: float = 0, turn_deg: float = 0, height: float = 0.15, crouch: float = 0.08,
    flight: Gesture | None = None,
) -> Gesture:  # fmt: skip
    """Jump `count` times with all feet: crouch, fly up to `height` metres, land. Each jump covers an equal distance.

    `crouch` is in metres; a body without legs squashes by that fraction instead.
    `flight` is a gesture played during every flight, such as tucking the feet or spreading the wings.
    """

    def play(take: Take, s: np.ndarray) -> None:
        up, sink, u = np.zeros_like(s), np.zeros_like(s), np.zeros_like(s)
        leap = height * np.clip(3 * _share(s) / count, 0.5, 1)  # shorter flights are lower
        for k in range(count):
            local = np.clip(s * count - k, 0, 1)
            air = np.clip((local - 0.3) / 0.45, 0, 1)
            up += 4 * air * (1 - air)
            u += _smooth_flight(air) / count
            sink += _smooth(local / 0.22) * _smooth((0.36 - local) / 0.14)
            sink += 0.8 * _smooth((local - 0.68) / 0.1) * _smooth((1 - local) / 0.22)
            if flight:
                flight(take, air)
        take.shifts[:, 0, 1] += leap * up
        body = take.skeleton.index("body")
        if take.skeleton.legs:
            take.shifts[:, body, 1] -= crouch * sink
        else:  # a body without legs squashes instead
            take.scales[:, body] *= 1 + sink[:, None] * [0.5 * crouch, -crouch, 0.5 * crouch]
        turn = np.radians(turn_deg)
        take.body_path = _advance(take.body_path, u, side, forward, turn)
        for leg, path in take.foot_path.items():
            take.foot_path[leg] = _advance(path, u, side, forward, turn)

    return play


def _share(s: np.ndarray) -> float:
    """Return the fraction of the take during which a gesture is active."""
    return float(((s > 0) & (s < 1)).sum() + 1) / (len(s) - 1)


def _smooth_flight(air: np.ndarray) -> np.ndarray:
    """Blend of linear and smoothstep progress, so that the speed in the air is nearly constant."""
    return 0.5 * air + 0.5 * air * air * (3 - 2 * air)
