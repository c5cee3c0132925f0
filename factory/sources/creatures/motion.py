"""Motion: gestures written on a take, takes solved into joint poses with the feet where they were planted.

A gesture is a function of a `Take` and its own time s in [0, 1] (float [T], clamped, so that what a gesture ends
with stays). Gestures add up: everything they write is an offset from the rest pose, and everything is 0 at s = 0.
Angles follow `shapes.rotation`: pitch bows forward, yaw turns to the left, roll leans to the right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from factory.sources.creatures.skeleton import Leg, Skeleton

SECONDS, FPS = 2.0, 24
TIMES = np.arange(int(SECONDS * FPS) + 1) / FPS
"""Key times: frames 0–47 of a clip, and the end."""

Curve = Callable[[np.ndarray], np.ndarray]
Gesture = Callable[["Take", np.ndarray], None]


class Take:
    """What gestures write on: offsets from the rest pose over T key times.

    Attributes:
        angles: [T, J, 3] radians, (pitch, yaw, roll) of each joint, applied as Ry · Rx · Rz.
        shifts: [T, J, 3] metres in the parent's axes.
        scales: [T, J, 3] factors.
        body_path: [T, 3] where the body stands: x, z in metres and heading in radians.
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
        """Several takes of one skeleton end to end, so that they are solved in one go."""
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
    """0 → 1 between `start` and `end`, and stays."""
    return lambda s: _smooth((s - start) / (end - start))


def hold(rise: float = 0.3, fall: float = 0.3) -> Curve:
    """0 → 1, stays there, and comes back to 0."""
    return lambda s: _smooth(s / rise) * _smooth((1 - s) / fall)


def pulses(count: int = 1) -> Curve:
    """`count` smooth bumps from 0 to 1 and back."""
    return lambda s: np.sin(np.pi * count * s) ** 2


def waves(count: float = 2, delay: float = 0.0) -> Curve:
    """`count` swings between -1 and 1 that fade in and out; `delay` in periods, for followers."""
    window = hold(0.25, 0.25)
    return lambda s: np.sin(2 * np.pi * (count * s - delay)) * window(s)


# ---------------------------------------------------------------------------------------- elementary gestures


def together(*gestures: Gesture) -> Gesture:
    """All at once."""

    def play(take: Take, s: np.ndarray) -> None:
        for gesture in gestures:
            gesture(take, s)

    return play


def within(start: float, end: float, gesture: Gesture) -> Gesture:
    """The gesture squeezed into a part of the time."""
    return lambda take, s: gesture(take, np.clip((s - start) / (end - start), 0, 1))


def sequence(*gestures: Gesture) -> Gesture:
    """One after the other, equal times."""
    edges = np.linspace(0, 1, len(gestures) + 1)
    return together(*(within(a, b, g) for a, b, g in zip(edges[:-1], edges[1:], gestures, strict=True)))


def bend(
    joint: str, pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None
) -> Gesture:
    """Turns a joint by angles in degrees along a curve (default `hold()`)."""
    curve = curve or hold()
    angles = np.radians([pitch, yaw, roll])

    def play(take: Take, s: np.ndarray) -> None:
        take.angles[:, take.skeleton.index(joint)] += curve(s)[:, None] * angles

    return play


def both(
    part: str,
    pitch: float = 0,
    yaw: float = 0,
    roll: float = 0,
    curve: Curve | None = None,
    names: str = "{side}_{part}",
) -> Gesture:
    """Turns a left joint by these angles and its right twin by their mirror image: roll > 0 spreads them."""
    left, right = (names.format(side=side, part=part) for side in ("left", "right"))
    return together(bend(left, pitch, yaw, roll, curve), bend(right, pitch, -yaw, -roll, curve))


def shift(joint: str, x: float = 0, y: float = 0, z: float = 0, curve: Curve | None = None) -> Gesture:
    """Moves a joint by metres along a curve (default `hold()`)."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.shifts[:, take.skeleton.index(joint)] += curve(s)[:, None] * np.array([x, y, z])

    return play


def swell(joint: str, x: float = 0, y: float = 0, z: float = 0, curve: Curve | None = None) -> Gesture:
    """Scales a joint by the factors 1 + (x, y, z) along a curve (default `hold()`)."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.scales[:, take.skeleton.index(joint)] *= 1 + curve(s)[:, None] * np.array([x, y, z])

    return play


def morph(name: str, amount: float = 1.0, curve: Curve | None = None) -> Gesture:
    """Adds to the weight of a morph target along a curve (default `hold()`)."""
    curve = curve or hold()

    def play(take: Take, s: np.ndarray) -> None:
        take.morphs[name] += amount * curve(s)

    return play


def foot(
    leg: str, x: float = 0, y: float = 0, z: float = 0,
    pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None,
) -> Gesture:  # fmt: skip
    """Takes a foot off its foothold by metres and degrees along a curve (default `hold()`)."""
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
    """A wave that runs down a chain: each joint swings like the one before, `lag` periods later."""
    return together(*(bend(j, pitch, yaw, roll, waves(count, k * lag)) for k, j in enumerate(joints)))


def curl(
    joints: Sequence[str], pitch: float = 0, yaw: float = 0, roll: float = 0, curve: Curve | None = None
) -> Gesture:
    """Bends a whole chain, the angles shared among its joints."""
    n = len(joints)
    return together(*(bend(joint, pitch / n, yaw / n, roll / n, curve) for joint in joints))


# ---------------------------------------------------------------------------------------- getting about


def _advance(path: np.ndarray, u: np.ndarray, x: float, z: float, turn: float) -> np.ndarray:
    """`path` [T, 3] followed, in its own heading, by the part u of a way to (x, z) while turning."""
    heading = path[:, 2]
    cos, sin = np.cos(heading), np.sin(heading)
    return path + np.stack([u * (x * cos + z * sin), u * (z * cos - x * sin), u * turn], 1)


def steps(
    gait: Sequence[Sequence[str]], count: int, forward: float = 0, side: float = 0, turn_deg: float = 0,
    lift: float = 0.06, bob: float = 0.02, tip_deg: float = 25,
) -> Gesture:  # fmt: skip
    """Walks: the groups of legs in `gait` step in turn, `count` steps in all, and every planted foot stays put.

    Args:
        forward, side: metres covered along +Z and +X of the heading at the start.
        turn_deg: degrees turned to the left on the way.
        (Counts and distances are for the whole 2 s; a shorter walk at the same pace gets less far.)
        lift: height of a step, metres. bob: how far the body sinks at each step, metres.
        tip_deg: how far the toes hang down at the top of a step.
    """
    groups, full = len(gait), count

    def play(take: Take, s: np.ndarray) -> None:
        share = _share(s)
        count = max(groups + 1, round(full * share))
        x, z, turn = side * share, forward * share, np.radians(turn_deg) * (1 if share > 0.4 else 0.5)
        progress = []
        for g, legs in enumerate(gait):
            u, height, last = np.zeros_like(s), np.zeros_like(s), 0.0
            for step in range(g, count, groups):
                goal = min(1.0, (step + 1) / max(1, count - groups + 1))
                phase = np.clip(s * count - step, 0, 1)
                u += (goal - last) * _smooth(phase)
                height += np.sin(np.pi * phase) ** 2
                last = goal
            progress.append(u)
            for leg in legs:
                take.foot_path[leg] = _advance(take.foot_path[leg], u, x, z, turn)
                take.foot_shift[leg][:, 1] += lift * height
                take.foot_angles[leg][:, 0] += np.radians(tip_deg) * height
        mean = np.mean(progress, axis=0)
        kernel = np.hanning(9)[1:-1]  # the body glides where the feet step
        padded = np.concatenate([np.full(3, mean[0]), mean, np.full(3, mean[-1])])
        glide = np.convolve(padded, kernel / kernel.sum(), "valid")
        glide = (glide - glide[0]) / (glide[-1] - glide[0])
        take.body_path = _advance(
            take.body_path, glide - glide[0] * (1 - s), side, forward, np.radians(turn_deg)
        )
        take.shifts[:, take.skeleton.index("body"), 1] -= bob * np.sin(np.pi * count * s) ** 2

    return play


def hops(
    count: int, forward: float = 0, side: float = 0, turn_deg: float = 0, height: float = 0.15, crouch: float = 0.08,
    flight: Gesture | None = None,
) -> Gesture:  # fmt: skip
    """Jumps with all feet: crouch, fly `height` metres high, land softly; `count` times, equal parts of the way.

    `crouch` is in metres; a body without legs squashes by that fraction instead.
    `flight` is a gesture played once over every flight: tucked feet, spread wings.
    """

    def play(take: Take, s: np.ndarray) -> None:
        up, sink, u = np.zeros_like(s), np.zeros_like(s), np.zeros_like(s)
        leap = height * np.clip(3 * _share(s) / count, 0.5, 1)  # short flights are low
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
        else:  # what has no knees squashes
            take.scales[:, body] *= 1 + sink[:, None] * [0.5 * crouch, -crouch, 0.5 * crouch]
        turn = np.radians(turn_deg)
        take.body_path = _advance(take.body_path, u, side, forward, turn)
        for leg, path in take.foot_path.items():
            take.foot_path[leg] = _advance(path, u, side, forward, turn)

    return play


def _share(s: np.ndarray) -> float:
    """The part of the take that a gesture has for itself."""
    return float(((s > 0) & (s < 1)).sum() + 1) / (len(s) - 1)


def _smooth_flight(air: np.ndarray) -> np.ndarray:
    """Even speed through the air, with the ends rounded only as far as landing needs."""
    return 0.5 * air + 0.5 * air * air * (3 - 2 * air)


# ---------------------------------------------------------------------------------------- solving


@dataclass(frozen=True)
class Pose:
    """Local transforms over T frames, as glTF animates them."""

    rotations: np.ndarray  # float [T, J, 3, 3]
    translations: np.ndarray  # float [T, J, 3]
    scales: np.ndarray  # float [T, J, 3]
    morphs: dict[str, np.ndarray]  # float [T] each

    def __getitem__(self, frames: slice | np.ndarray) -> Pose:
        """The pose at some of the frames."""
        morphs = {name: weights[frames] for name, weights in self.morphs.items()}
        return Pose(self.rotations[frames], self.translations[frames], self.scales[frames], morphs)


def euler(angles: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] of (pitch, yaw, roll) [..., 3] in radians: Ry · Rx · Rz."""
    (cx, cy, cz), (sx, sy, sz) = (np.moveaxis(f(angles), -1, 0) for f in (np.cos, np.sin))
    rows = [
        [cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx],
        [cx * sz, cx * cz, -sx],
        [cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def solve(take: Take) -> Pose:
    """Local joint transforms of a take: paths walked, legs bent to reach their footholds, tails kept off the floor."""
    skeleton = take.skeleton
    rotations = euler(take.angles)
    translations = take.shifts + skeleton.offsets
    body = skeleton.index("body") if "body" in skeleton.names else None
    if body is not None:
        heading = _heading(take.body_path[:, 2])
        translations[:, body] = _place(take.body_path, translations[:, body])
        rotations[:, body] = heading @ rotations[:, body]
        _settle(take, body, rotations, translations)
    for chain in skeleton.chains:
        _lift_chain(
            skeleton,
            rotations,
            translations,
            take.scales,
            [skeleton.index(j) for j in chain.joints],
            chain.radii,
        )
    for name, leg in skeleton.legs.items():
        _reach(take, name, leg, rotations, translations)
    return Pose(rotations, translations, take.scales, take.morphs)


def _heading(yaw: np.ndarray) -> np.ndarray:
    zero = np.zeros_like(yaw)
    return euler(np.stack([zero, yaw, zero], -1))


def _place(path: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [T, 3] of the rest frame carried along a path [T, 3]."""
    moved = np.einsum("tij,tj->ti", _heading(path[:, 2]), np.broadcast_to(points, (len(path), 3)))
    moved[:, 0] += path[:, 0]
    moved[:, 2] += path[:, 1]
    return moved


def _global(
    skeleton: Skeleton, rotations: np.ndarray, translations: np.ndarray, joint: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [T, 3, 3] and position [T, 3] of a joint in the root's frame (scales are for legless bodies)."""
    turn, place = rotations[:, joint], translations[:, joint]
    parent = skeleton.parents[joint]
    while parent > 0:
        place = np.einsum("tij,tj->ti", rotations[:, parent], place) + translations[:, parent]
        turn = rotations[:, parent] @ turn
        parent = skeleton.parents[parent]
    return turn, place


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _frame(along: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Orthonormal columns (along, normal, along × normal)."""
    return np.stack([along, normal, np.cross(along, normal)], -1)


def _ankle(take: Take, name: str, leg: Leg) -> tuple[np.ndarray, np.ndarray]:
    """Where a foot wants its ankle [T, 3], and how the foot is turned [T, 3, 3]."""
    path = take.foot_path[name]
    turn = _heading(path[:, 2]) @ euler(take.foot_angles[name])
    sole = _place(path, leg.sole + take.foot_shift[name])
    return sole + turn @ (take.skeleton.rest[take.skeleton.index(leg.foot)] - leg.sole), turn


def _hip(
    take: Take, leg: Leg, rotations: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a leg begins [T, 3], and how the joint that carries it is turned [T, 3, 3]."""
    upper = take.skeleton.index(leg.upper)
    turn, place = _global(take.skeleton, rotations, translations, take.skeleton.parents[upper])
    return place + np.einsum("tij,tj->ti", turn, translations[:, upper]), turn


def _bones(skeleton: Skeleton, leg: Leg) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hip, knee and ankle of the rest pose."""
    return tuple(skeleton.rest[skeleton.index(joint)] for joint in (leg.upper, leg.lower, leg.foot))


def _settle(take: Take, body: int, rotations: np.ndarray, translations: np.ndarray) -> None:
    """Lowers the body wherever a leg would otherwise be too short for its foothold, as a wide stance does."""
    for _ in range(3):
        drop = np.zeros(len(translations))
        for name, leg in take.skeleton.legs.items():
            hip0, knee0, ankle0 = _bones(take.skeleton, leg)
            longest = 0.995 * (np.linalg.norm(knee0 - hip0) + np.linalg.norm(ankle0 - knee0))
            ankle, _ = _ankle(take, name, leg)
            hip, _ = _hip(take, leg, rotations, translations)
            flat = np.linalg.norm((hip - ankle)[:, [0, 2]], axis=1)
            highest = ankle[:, 1] + np.sqrt(np.maximum(longest**2 - flat**2, 0))
            drop = np.maximum(drop, hip[:, 1] - highest)
        if not (drop > 1e-5).any():
            return
        translations[:, body, 1] -= drop


def _reach(take: Take, name: str, leg: Leg, rotations: np.ndarray, translations: np.ndarray) -> None:
    """Two-bone inverse kinematics in closed form, the knee in the plane of the rest pose turned with the body."""
    skeleton = take.skeleton
    upper, lower, foot_ = (skeleton.index(joint) for joint in (leg.upper, leg.lower, leg.foot))
    hip0, knee0, ankle0 = _bones(skeleton, leg)
    ankle, foot_turn = _ankle(take, name, leg)
    hip, parent_turn = _hip(take, leg, rotations, translations)

    thigh, shin = np.linalg.norm(knee0 - hip0), np.linalg.norm(ankle0 - knee0)
    straight = ankle - hip
    length = np.clip(
        np.linalg.norm(straight, axis=1), abs(thigh - shin) * 1.02 + 1e-4, (thigh + shin) * 0.999
    )
    direction = _unit(straight)
    direction0 = _unit(ankle0 - hip0)
    bend0 = _unit(knee0 - hip0 - ((knee0 - hip0) @ direction0) * direction0)
    follow = _unit(parent_turn @ bend0 + foot_turn @ bend0)
    side = _unit(follow - np.einsum("ti,ti->t", follow, direction)[:, None] * direction)
    cosine = np.clip((thigh**2 + length**2 - shin**2) / (2 * thigh * length), -1, 1)
    knee = hip + thigh * (cosine[:, None] * direction + np.sqrt(1 - cosine**2)[:, None] * side)
    end = hip + length[:, None] * direction

    normal0, normal = np.cross(direction0, bend0), np.cross(direction, side)
    upper_turn = _frame(_unit(knee - hip), normal) @ _frame(_unit(knee0 - hip0), normal0).T
    lower_turn = _frame(_unit(end - knee), normal) @ _frame(_unit(ankle0 - knee0), normal0).T
    rotations[:, upper] = np.swapaxes(parent_turn, 1, 2) @ upper_turn
    rotations[:, lower] = np.swapaxes(upper_turn, 1, 2) @ lower_turn
    rotations[:, foot_] = np.swapaxes(lower_turn, 1, 2) @ foot_turn


def _lift_chain(
    skeleton: Skeleton, rotations: np.ndarray, translations: np.ndarray, scales: np.ndarray,
    joints: Sequence[int], radii: Sequence[float],
) -> None:  # fmt: skip
    """Turns the base of a chain upwards until none of its joints is lower than its radius."""
    for _ in range(6):
        base_turn, base = _global(skeleton, rotations, translations, joints[0])
        arms, deficit = [], []
        for joint, radius in zip(joints[1:], radii[1:], strict=True):
            place = _global(skeleton, rotations, translations, joint)[1]
            arms.append(place - base)
            deficit.append(radius - place[:, 1])
        arms, deficit = np.stack(arms, 1), np.stack(deficit, 1)
        flat = np.linalg.norm(arms[..., [0, 2]], axis=-1)
        angle = np.maximum((deficit / np.maximum(flat, 0.05)).max(1), 0)
        if not (angle > 1e-4).any():
            return
        tip = arms[:, -1] * [1, 0, 1]
        axis = _unit(np.cross(tip, np.array([0.0, 1.0, 0.0])))
        lift = _about(axis, np.minimum(angle, 0.5))
        rotations[:, joints[0]] = rotations[:, joints[0]] @ np.swapaxes(base_turn, 1, 2) @ lift @ base_turn


def _about(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] about unit axes [T, 3] (Rodrigues)."""
    x, y, z = axis.T
    zero = np.zeros_like(x)
    cross = np.stack([np.stack(r, -1) for r in ([zero, -z, y], [z, zero, -x], [-y, x, zero])], -2)
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
