"""Solve takes into poses: path following, inverse kinematics of the legs, and floor avoidance of tails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from factory.sources.creatures.motion import Take
from factory.sources.creatures.shapes import euler
from factory.sources.creatures.skeleton import Chain, Leg, Skeleton
from renderers import fixed


@dataclass(frozen=True)
class Pose:
    """Local joint transforms and morph weights over T frames, as in a glTF animation."""

    rotations: np.ndarray  # float [T, J, 3, 3]
    translations: np.ndarray  # float [T, J, 3]
    scales: np.ndarray  # float [T, J, 3]
    morphs: dict[str, np.ndarray]  # float [T] each

    def __getitem__(self, frames: slice | np.ndarray) -> Pose:
        """Return the pose at a subset of the frames."""
        morphs = {name: weights[frames] for name, weights in self.morphs.items()}
        return Pose(self.rotations[frames], self.translations[frames], self.scales[frames], morphs)


def solve(take: Take) -> Pose:
    """Solve a take into local joint transforms.

    The body follows its path and is lowered where a leg cannot reach; chains are lifted above the floor; legs are
    solved with two-bone inverse kinematics.
    """
    skeleton = take.skeleton
    rotations = euler(take.angles)
    translations = take.shifts + skeleton.offsets
    body = skeleton.index("body")
    translations[:, body] = _place(take.body_path, translations[:, body])
    rotations[:, body] = fixed.product(_heading(take.body_path[:, 2]), rotations[:, body])
    _settle(take, body, rotations, translations)
    for chain in skeleton.chains:
        _lift(skeleton, chain, rotations, translations)
    for name, leg in skeleton.legs.items():
        _reach(take, name, leg, rotations, translations)
    return Pose(rotations, translations, take.scales, take.morphs)


def _heading(yaw: np.ndarray) -> np.ndarray:
    zero = np.zeros_like(yaw)
    return euler(np.stack([zero, yaw, zero], -1))


def _place(path: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Transform rest-pose points [T, 3] or [3] along a path [T, 3] of (x, z, yaw)."""
    moved = fixed.applied(_heading(path[:, 2]), np.broadcast_to(points, (len(path), 3)))
    moved[:, 0] += path[:, 0]
    moved[:, 2] += path[:, 1]
    return moved


def _global(
    skeleton: Skeleton, rotations: np.ndarray, translations: np.ndarray, joint: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation [T, 3, 3] and position [T, 3] of a joint in the root frame.

    Scales are ignored: only creatures without legs animate them.
    """
    turn, place = rotations[:, joint], translations[:, joint]
    parent = skeleton.parents[joint]
    while parent > 0:
        place = fixed.applied(rotations[:, parent], place) + translations[:, parent]
        turn = fixed.product(rotations[:, parent], turn)
        parent = skeleton.parents[parent]
    return turn, place


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(fixed.norm(vectors)[..., None], 1e-9)


def _frame(along: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return rotation matrices with columns (along, normal, along × normal)."""
    return np.stack([along, normal, np.cross(along, normal)], -1)


def _ankle(take: Take, name: str, leg: Leg) -> tuple[np.ndarray, np.ndarray]:
    """Return the target position of the ankle [T, 3] and the rotation of the foot [T, 3, 3], in the root frame."""
    path = take.foot_path[name]
    turn = fixed.product(_heading(path[:, 2]), euler(take.foot_angles[name]))
    sole = _place(path, leg.sole + take.foot_shift[name])
    ankle = take.skeleton.rest[take.skeleton.index(leg.foot)] - leg.sole
    return sole + fixed.applied(turn, ankle), turn


def _hip(
    take: Take, leg: Leg, rotations: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of the hip [T, 3] and the rotation of its parent joint [T, 3, 3], in the root frame."""
    upper = take.skeleton.index(leg.upper)
    turn, place = _global(take.skeleton, rotations, translations, take.skeleton.parents[upper])
    return place + fixed.applied(turn, translations[:, upper]), turn


def _bones(skeleton: Skeleton, leg: Leg) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rest positions [3] of hip, knee and ankle."""
    hip, knee, ankle = (skeleton.rest[skeleton.index(joint)] for joint in (leg.upper, leg.lower, leg.foot))
    return hip, knee, ankle


def _settle(take: Take, body: int, rotations: np.ndarray, translations: np.ndarray) -> None:
    """Lower the body in frames where a leg is too short to reach its foothold, as in a wide stance."""
    for _ in range(3):
        drop = np.zeros(len(translations))
        for name, leg in take.skeleton.legs.items():
            hip0, knee0, ankle0 = _bones(take.skeleton, leg)
            longest = 0.995 * (fixed.norm(knee0 - hip0) + fixed.norm(ankle0 - knee0))
            ankle, _ = _ankle(take, name, leg)
            hip, _ = _hip(take, leg, rotations, translations)
            flat = fixed.norm((hip - ankle)[:, [0, 2]])
            highest = ankle[:, 1] + np.sqrt(np.maximum(longest**2 - flat**2, 0))
            drop = np.maximum(drop, hip[:, 1] - highest)
        if not (drop > 1e-5).any():
            return
        translations[:, body, 1] -= drop


def _reach(take: Take, name: str, leg: Leg, rotations: np.ndarray, translations: np.ndarray) -> None:
    """Solve a leg with analytic two-bone inverse kinematics (law of cosines).

    The knee bends in its rest-pose direction, rotated with the parent and with the foot and averaged.
    """
    skeleton = take.skeleton
    upper, lower, foot_ = (skeleton.index(joint) for joint in (leg.upper, leg.lower, leg.foot))
    hip0, knee0, ankle0 = _bones(skeleton, leg)
    ankle, foot_turn = _ankle(take, name, leg)
    hip, parent_turn = _hip(take, leg, rotations, translations)

    thigh, shin = fixed.norm(knee0 - hip0), fixed.norm(ankle0 - knee0)
    straight = ankle - hip
    length = np.clip(fixed.norm(straight), abs(thigh - shin) * 1.02 + 1e-4, (thigh + shin) * 0.999)
    direction = _unit(straight)
    direction0 = _unit(ankle0 - hip0)
    bend0 = _unit(knee0 - hip0 - fixed.dot(knee0 - hip0, direction0) * direction0)
    follow = _unit(fixed.applied(parent_turn, bend0) + fixed.applied(foot_turn, bend0))
    side = _unit(follow - fixed.dot(follow, direction)[:, None] * direction)
    cosine = np.clip((thigh * thigh + length * length - shin * shin) / (2 * thigh * length), -1, 1)
    knee = hip + thigh * (cosine[:, None] * direction + np.sqrt(1 - cosine**2)[:, None] * side)
    end = hip + length[:, None] * direction

    normal0, normal = np.cross(direction0, bend0), np.cross(direction, side)
    upper_turn = fixed.product(_frame(_unit(knee - hip), normal), _frame(_unit(knee0 - hip0), normal0).T)
    lower_turn = fixed.product(_frame(_unit(end - knee), normal), _frame(_unit(ankle0 - knee0), normal0).T)
    rotations[:, upper] = fixed.product(np.swapaxes(parent_turn, 1, 2), upper_turn)
    rotations[:, lower] = fixed.product(np.swapaxes(upper_turn, 1, 2), lower_turn)
    rotations[:, foot_] = fixed.product(np.swapaxes(lower_turn, 1, 2), foot_turn)


def _lift(skeleton: Skeleton, chain: Chain, rotations: np.ndarray, translations: np.ndarray) -> None:
    """Rotate the base of a chain up until every joint is at least its radius above the floor."""
    joints = [skeleton.index(joint) for joint in chain.joints]
    for _ in range(6):
        base_turn, base = _global(skeleton, rotations, translations, joints[0])
        places, deficits = [], []
        for joint, radius in zip(joints[1:], chain.radii[1:], strict=True):
            place = _global(skeleton, rotations, translations, joint)[1]
            places.append(place - base)
            deficits.append(radius - place[:, 1])
        arms, deficit = np.stack(places, 1), np.stack(deficits, 1)
        flat = fixed.norm(arms[..., [0, 2]])
        angle = np.maximum((deficit / np.maximum(flat, 0.05)).max(1), 0)
        if not (angle > 1e-4).any():
            return
        tip = arms[:, -1] * [1, 0, 1]
        axis = _unit(np.cross(tip, np.array([0.0, 1.0, 0.0])))
        lift = _about(axis, np.minimum(angle, 0.5))
        turned = fixed.product(rotations[:, joints[0]], np.swapaxes(base_turn, 1, 2))
        rotations[:, joints[0]] = fixed.product(fixed.product(turned, lift), base_turn)


def _about(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return rotations [T, 3, 3] by angles [T] in radians about unit axes [T, 3] (Rodrigues' formula)."""
    x, y, z = axis.T
    zero = np.zeros_like(x)
    cross = np.stack([np.stack(r, -1) for r in ([zero, -z, y], [z, zero, -x], [-y, x, zero])], -2)
    sine, cosine = fixed.sin(angle)[:, None, None], fixed.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * fixed.product(cross, cross)
