"""A search for limbs that moved farther than Gauss-Newton can follow."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from zoo.animate3d.graph import GraphPose, Limb
from zoo.animate3d.solver import Problem, Stage

_ANGLE = np.radians(40)
_AXES = np.concatenate([np.eye(3), -np.eye(3)])
_GAIN = 0.01  # of the energy that a turn must save


def bend_limbs(problem: Problem, pose: GraphPose, stage: Stage, frame: int) -> GraphPose:
    """Turn one limb after the other about its joint if that lowers the energy; Gauss-Newton does the rest."""
    energy = problem.energy(pose, stage, frame)
    for limb in problem.limbs:
        for axis in _AXES:
            candidate = turn_limb(pose, limb, _ANGLE * axis)
            there = problem.energy(candidate, stage, frame)
            if there < (1 - _GAIN) * energy:
                pose, energy = candidate, there
    return pose


def turn_limb(pose: GraphPose, limb: Limb, turn: np.ndarray) -> GraphPose:
    """Turn the nodes of a limb about its joint by their share of an angle vector [3], radians."""
    rotation = Rotation.from_rotvec(limb.share[:, None] * turn).as_matrix()
    joint = pose.positions[limb.joint].mean(0)
    moved = np.einsum("kij,kj->ki", rotation, pose.positions - joint) + joint
    positions = np.where(limb.share[:, None] > 0, moved, pose.positions)
    return GraphPose(rotation @ pose.rotations, positions)
