"""The poses of all frames: starts, the pyramid, and what is left over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoo.animate3d.graph import GraphPose, still_pose
from zoo.animate3d.solver import Problem, Stage, descend

PYRAMID = (Stage(4.0, 2, 10, 0.1), Stage(2.0, 2, 10, 0.1), Stage(1.0, 1, 8, 0.1))
_FINALISTS = 2  # starts that go through the coarsest stage


def track(problem: Problem, progress: Callable[[int, int], None] | None = None) -> list[GraphPose]:
    """Fit the frames one after the other, each from several starts."""
    T = len(problem.views.frames)
    poses = [still_pose(problem.graph)]
    for frame in range(1, T):
        problem.anchor = poses[-1]
        poses.append(fit_frame(problem, frame, starts(problem, poses)))
        if progress is not None:
            progress(frame + 1, T)
    return poses


def starts(problem: Problem, poses: list[GraphPose]) -> list[GraphPose]:
    """Poses from which to fit the frame after `poses`: last, continued, still, last but one."""
    result = [poses[-1]]
    if len(poses) > 1:
        result += [extrapolated(poses[-2], poses[-1]), poses[0]]
    if len(poses) > 2:
        result.append(poses[-2])
    return result


def extrapolated(before: GraphPose, last: GraphPose) -> GraphPose:
    """The pose after `last` if every node repeats its step: R' = (R R_before^T) R, p' = 2 p - p_before."""
    turn = last.rotations @ before.rotations.swapaxes(1, 2)
    return GraphPose(turn @ last.rotations, 2 * last.positions - before.positions)


def fit_frame(problem: Problem, frame: int, candidates: list[GraphPose]) -> GraphPose:
    """The best pose of a frame that the pyramid reaches from the candidates."""
    first = PYRAMID[0]
    candidates = sorted(candidates, key=lambda pose: problem.energy(pose, first, frame))[:_FINALISTS]
    descended = [descend(problem, pose, first, frame) for pose in candidates]
    pose = min(descended, key=lambda result: result[1])[0]
    for stage in PYRAMID[1:]:
        pose, _ = descend(problem, pose, stage, frame)
    return pose


@dataclass(frozen=True)
class Residual:
    """What is left over: see `Fit.residual` and `Fit.node_residual`."""

    frames: np.ndarray
    nodes: np.ndarray


def measure(problem: Problem, poses: list[GraphPose]) -> Residual:
    """Compare the poses with the videos at the finest level."""
    level = problem.views.level(1.0, 1)
    still = poses[0]
    costs = np.array([problem.image_cost(pose, level, frame) for frame, pose in enumerate(poses)])
    unmoved = max(problem.image_cost(still, level, frame) for frame in range(len(poses)))
    nodes = np.array([_node_residual(problem, pose, frame) for frame, pose in enumerate(poses)])
    return Residual(np.sqrt(costs / max(unmoved, 1e-9)), nodes)


def _node_residual(problem: Problem, pose: GraphPose, frame: int) -> np.ndarray:
    """Root mean square difference over the pixels of each node, float64 [K]."""
    level = problem.views.level(1.0, 1)
    canvas, _ = problem.draw(pose, level)
    difference = ((canvas.blurred - level.targets[frame]) ** 2).sum(-1)
    seen = canvas.sample >= 0
    view = np.nonzero(seen)[0]
    row, column = np.divmod(canvas.sample[seen], canvas.face.shape[2])
    point = problem.surface.faces[canvas.face[view, row, column], 0]
    nodes, weights = problem.graph.point_nodes[point], problem.graph.point_weights[point]
    K = len(problem.graph.centres)
    total = np.bincount(nodes.ravel(), weights.ravel(), K)
    sums = np.bincount(nodes.ravel(), (weights * difference[seen][:, None]).ravel(), K)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 1, np.sqrt(sums / total), np.nan)
