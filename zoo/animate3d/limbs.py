"""Search for limbs that moved too far between two frames for Gauss-Newton: large rotations about joints, then energies.

A limb is the part of the graph within a geodesic distance of an extremity (`find_limbs`). `swing_limbs` rotates each
limb about its joint by a fixed set of large rotations, ranks the results by how well the moved nodes cover the part of
the silhouettes that the other nodes leave uncovered, and lets the energy decide between the best few.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from zoo.animate3d.graph import Graph, GraphPose
from zoo.animate3d.solver import Problem, Stage
from zoo.animate3d.views import Level

_LARGEST_SHARE = 0.45  # of the nodes: more are the body, not a limb
_REACHES = (0.4, 0.65, 0.95)  # joints, as shares of the way from an extremity to the middle of the graph
_ANGLES = np.radians([35, 70, 110, 150])
_RENDERED, _DESCENDED = 8, 1  # rotations of a limb whose energy is computed, and that are refined
_ITERATIONS = 5
_HOPELESS = 2.0  # swings with a higher image cost, as a multiple of the energy before, are not refined
_GAIN = 0.99  # a swing is accepted if it lowers the energy below this share


@dataclass(frozen=True)
class Limb:
    """One extremity and the joint it may turn about.

    Attributes:
        share: float64 [K], 1 for nodes that follow the rotation, 0 for those that do not, between at the joint.
        joint: int64 [j], nodes at the joint; it is their mean.
        tip: the node at the extremity.
    """

    share: np.ndarray
    joint: np.ndarray
    tip: int


def find_limbs(graph: Graph) -> list[list[Limb]]:
    """For each extremity of the graph, the limbs of different lengths that end in it.

    Extremities are the nodes whose mean geodesic distance to all others is a local maximum.
    """
    between = np.where(np.isfinite(graph.between), graph.between, 0.0)
    between = (between + between.T) / 2
    remoteness = between.mean(1)
    middle = int(remoteness.argmin())
    tips = [
        node
        for node in range(len(between))
        if remoteness[node] >= remoteness[between[node] < 3.5 * graph.spacing].max() and node != middle
    ]
    limbs = [[_limb(graph, between, tip, reach * between[tip, middle]) for reach in _REACHES] for tip in tips]
    return [kept for group in limbs if (kept := [limb for limb in group if limb is not None])]


def _limb(graph: Graph, between: np.ndarray, tip: int, reach: float) -> Limb | None:
    """The nodes within a geodesic reach of the tip; None if they are most of the graph, or nothing is beyond."""
    width = 1.5 * graph.spacing
    share = np.clip((reach - between[tip]) / width, 0, 1)
    joint = np.flatnonzero(np.abs(between[tip] - reach) <= width)
    if (share > 0).mean() > _LARGEST_SHARE or reach < 2 * graph.spacing or not len(joint):
        return None
    return Limb(share, joint, tip)


def swing(pose: GraphPose, limb: Limb, turn: np.ndarray) -> GraphPose:
    """Rotate a limb about its joint by an angle vector."""
    centre = pose.positions[limb.joint].mean(0)
    moved = np.flatnonzero(limb.share > 0)
    Q = Rotation.from_rotvec(limb.share[moved, None] * turn).as_matrix()
    rotations, positions = pose.rotations.copy(), pose.positions.copy()
    rotations[moved] = Q @ rotations[moved]
    positions[moved] = centre + np.einsum("kij,kj->ki", Q, positions[moved] - centre)
    return GraphPose(rotations, positions)


def articulated_step(pose: GraphPose, limbs: list[Limb], step: np.ndarray) -> GraphPose:
    """Rotate all limbs, the shortest first, then move the whole model: step float64 [3 L + 6]."""
    for limb, turn in zip(limbs, step[:-6].reshape(-1, 3), strict=True):
        pose = swing(pose, limb, turn)
    Q, centre = Rotation.from_rotvec(step[-6:-3]).as_matrix(), pose.positions.mean(0)
    return GraphPose(Q @ pose.rotations, (pose.positions - centre) @ Q.T + centre + step[-3:])


def basis(pose: GraphPose, limbs: list[Limb]) -> np.ndarray:
    """Derivative of the nodes' steps (ω, τ) by that of `articulated_step`: float64 [6 K, 3 L + 6]."""
    K = len(pose.positions)
    result = np.zeros((K, 6, 3 * len(limbs) + 6))
    for index, limb in enumerate(limbs):
        arm = pose.positions - pose.positions[limb.joint].mean(0)
        columns = slice(3 * index, 3 * index + 3)
        result[:, :3, columns] = limb.share[:, None, None] * np.eye(3)
        result[:, 3:, columns] = -limb.share[:, None, None] * _cross(arm)
    result[:, :3, -6:-3] = np.eye(3)
    result[:, 3:, -6:-3] = -_cross(pose.positions - pose.positions.mean(0))
    result[:, 3:, -3:] = np.eye(3)
    return result.reshape(6 * K, -1)


def _cross(vectors: np.ndarray) -> np.ndarray:
    """[v]× of each vector [n, 3]: [n, 3, 3]."""
    zero, (x, y, z) = np.zeros(len(vectors)), vectors.T
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)


def descend_limbs(
    problem: Problem, limbs: list[Limb], pose: GraphPose, stage: Stage, frame: int
) -> tuple[GraphPose, float]:
    """Levenberg-Marquardt over rotations of the limbs and a rigid motion: the best pose, and its energy."""
    level, damping = problem.level(stage), 1e-2
    terms = problem.image_terms(pose, level, frame)
    energy = float(terms.cost.sum()) + problem.graph_energy(pose, stage)
    for _ in range(stage.iterations):
        H, g = problem.normal_equations(pose, terms, stage)
        H = np.triu(H) + np.triu(H, 1).T
        columns = basis(pose, limbs)
        reduced = columns.T @ (H @ columns)
        diagonal = np.arange(len(reduced))
        scale = reduced[diagonal, diagonal]
        reduced[diagonal, diagonal] += damping * scale + 1e-3 * scale.max()
        step = np.linalg.solve(reduced, columns.T @ g)
        largest = np.linalg.norm(step.reshape(-1, 3), axis=1)
        step /= max(1.0, float(largest[:-1].max()) / 0.6, float(largest[-1]) / 0.15)
        candidate = articulated_step(pose, limbs, step)
        terms_there = problem.image_terms(candidate, level, frame)
        energy_there = float(terms_there.cost.sum()) + problem.graph_energy(candidate, stage)
        if energy_there < energy:
            gain = (energy - energy_there) / energy
            pose, terms, energy = candidate, terms_there, energy_there
            damping = max(damping / 4, 1e-3)
            if gain < 5e-3:
                break
        else:
            damping *= 8
            if damping > 10:
                break
    return pose, energy


def swing_limbs(
    problem: Problem, limbs: list[list[Limb]], pose: GraphPose, energy: float, stage: Stage, frame: int
) -> tuple[GraphPose, float]:
    """Improve a pose that `descend_limbs` found at a stage: the pose and its energy.

    Limbs are tried one after the other; each swing that lowers the energy is kept.
    """
    level, every = problem.level(stage), in_order(limbs)
    short = replace(stage, iterations=_ITERATIONS)
    for group in limbs:
        turns = [(limb, turn) for limb in group for turn in _turns(pose, limb)]
        if not turns:
            continue
        covers = _coverage(problem, level, pose, turns, frame)
        ranked = [swing(pose, *turns[index]) for index in np.argsort(-covers)[:_RENDERED]]
        costs = [problem.image_cost(candidate, level, frame) for candidate in ranked]
        for index in np.argsort(costs, kind="stable")[:_DESCENDED]:
            if costs[index] > _HOPELESS * energy:
                break
            candidate = ranked[index]
            candidate, reached = descend_limbs(problem, every, candidate, short, frame)
            if reached < _GAIN * energy:
                pose, energy = candidate, reached
    return pose, energy


def in_order(limbs: list[list[Limb]]) -> list[Limb]:
    """All limbs, the shortest first."""
    return sorted((limb for group in limbs for limb in group), key=lambda limb: float(limb.share.sum()))


def _turns(pose: GraphPose, limb: Limb) -> list[np.ndarray]:
    """Angle vectors that move the tip: 4 angles about 12 axes across the limb."""
    arm = pose.positions[limb.tip] - pose.positions[limb.joint].mean(0)
    length = np.linalg.norm(arm)
    if length < 1e-6:
        return []
    arm /= length
    side = np.cross(arm, np.eye(3)[np.abs(arm).argmin()])
    side /= np.linalg.norm(side)
    other = np.cross(arm, side)
    around = np.arange(12) * (np.pi / 6)
    axes = np.cos(around)[:, None] * side + np.sin(around)[:, None] * other
    return [angle * axis for axis in axes for angle in _ANGLES]


def _coverage(
    problem: Problem, level: Level, pose: GraphPose, turns: list[tuple[Limb, np.ndarray]], frame: int
) -> np.ndarray:
    """How well the swung nodes fit the silhouettes, float64 [len(turns)].

    In each view, a moved node counts t (1 - b) - (1 - t), with the blurred alpha t of the target and b of the model
    without the limb where the node is: 1 in a region that only the target covers, 0 over the body, -1 outside.
    """
    target = level.targets[frame, ..., 3]
    maps: dict[int, np.ndarray] = {}
    scores = np.empty(len(turns))
    for index, (limb, turn) in enumerate(turns):
        if id(limb) not in maps:
            body = _without(problem, level, pose, limb)
            maps[id(limb)] = target * (1 - body) - (1 - target)
        points = swing(pose, limb, turn).positions[limb.share > 0.5]
        scores[index] = _at(level, maps[id(limb)], points).sum()
    return scores


def _without(problem: Problem, level: Level, pose: GraphPose, limb: Limb) -> np.ndarray:
    """Blurred alpha of the model without the faces that a limb moves, float32 [V, H, W]."""
    surface = problem.surface
    moved = problem.matrix @ limb.share > 0.5
    kept = ~moved[surface.faces].all(1)
    body = replace(surface, faces=surface.faces[kept], shading_faces=surface.shading_faces[kept])
    return problem.draw(pose, level, body)[0].blurred[..., 3].copy()


def _at(level: Level, images: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of images [V, H, W] at the pixels of points [n, 3]: [V, n]; -1 outside of the image."""
    V, H, W = images.shape
    seen = np.einsum("vij,nj->vni", level.extrinsics, np.c_[points, np.ones(len(points))])
    depth = np.maximum(seen[..., 2:], 1e-3)
    pixels = np.floor(np.einsum("vij,vnj->vni", level.intrinsics[:, :2], seen / depth)).astype(int)
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
    values = images[np.arange(V)[:, None], np.clip(y, 0, H - 1), np.clip(x, 0, W - 1)]
    return np.where(inside, values, -1.0)
