"""Frames that the videos do not decide: a motion far from the one chosen shows them nearly as well."""

from __future__ import annotations

import numpy as np

from zoo.animate3d.graph import GraphPose
from zoo.animate3d.mending import POLISH
from zoo.animate3d.solver import Problem
from zoo.animate3d.tracking import FINE

# Chosen on five clips outside the 20 of `benchmarks.animate` (docs/animate-experiments.md).
_FAR = 0.2  # mean distance of nodes, as a share of their mean displacement from the still model in all frames
_NEARLY = 3.0  # of the energy of the pose chosen


def contested(problem: Problem, poses: list[GraphPose], motions: list[list[GraphPose]]) -> np.ndarray:
    """Whether any of several polished motions is far from a pose in its frame, at less than three times its energy.

    The distance is a better measure of the error than the residual, as methods err in different ways; where the
    energies differ much, the videos refute one of the two.

    Args:
        poses: of the T frames, chosen from the motions or found since.
        motions: each of T frames.

    Returns:
        bool [T]; False for the first frame, which is the still model.
    """
    problem.anchor = None
    stage = POLISH[-1] if problem.stiffness.softens else FINE[0]
    positions = np.array([pose.positions for pose in poses])
    displacement = np.linalg.norm(positions - positions[0], axis=-1)[1:].mean()
    result = np.zeros(len(poses), bool)
    for motion in motions:
        for frame in range(1, len(poses)):
            apart = np.linalg.norm(motion[frame].positions - positions[frame], axis=-1).mean()
            if apart > _FAR * displacement and not result[frame]:
                limit = _NEARLY * problem.energy(poses[frame], stage, frame)
                result[frame] = problem.energy(motion[frame], stage, frame) < limit
    return result
