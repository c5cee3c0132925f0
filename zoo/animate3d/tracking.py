"""The poses of all frames: starts, the pyramid, and what is left over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from zoo.animate3d.graph import GraphPose, still_pose
from zoo.animate3d.limbs import Limb, descend_limbs, find_limbs, in_order, swing_limbs
from zoo.animate3d.solver import Problem, Stage, descend

COARSE = (Stage(4.0, 2, 6, 0.1), Stage(2.0, 2, 8, 0.1))  # all nodes
LIMBS = (Stage(4.0, 2, 6, 0.003, 0.1), Stage(2.0, 2, 6, 0.003, 0.1))  # rotations of limbs
FINE = (Stage(1.0, 1, 6, 0.1), Stage(1.0, 1, 8, 0.1, 0.1))
# For poses that are near the truth already. Joints bend and twist sharply: at true poses, the energy of `FINE` is twice
# that at its optimum, and most of it is the graph's.
POLISH = (Stage(1.0, 1, 6, 0.1, 0.03, 1 / 3, 0.1), Stage(1.0, 1, 8, 0.1, 0.003, 1 / 3, 0.1))
# From a start to where joints bend as sharply as the videos show, at all resolutions.
_SOFT = (Stage(4.0, 2, 8, 0.03, 0.1, 1 / 3, 0.1), Stage(2.0, 2, 8, 0.05, 0.03, 1 / 3, 0.1))
_STARTS, _MIDDLE, _FINALISTS = (
    2,
    3,
    2,
)  # poses that go through the stages before, at and after a blur of 2 pixels
_HOPELESS = 1.5  # of the lowest energy at 2 pixels: poses above are dropped
# Energies beyond twice the cost of frame 0 (a known pose), as shares of the still model's largest image cost:
_MISSED = 0.05  # at 2 pixels: limbs are missing
_SWEPT = 0.03  # at 1 pixel: the frame is fitted again
# `mend`:
_MENDED = 0.015  # the frame is fitted again; as `_SWEPT`, beyond the cost of frame 0 itself
_PASSES = 4  # over the frames
_POLISHED, _ENDED = 4, 2  # poses that go through the first and the last stage of `POLISH`
_BETTER = 0.99  # of the energy: poses below are taken
_PATIENCE = 0.5  # of a frame's energy: a branch whose sum is higher by more is dropped
_SAME = 0.005  # units, mean distance of nodes: poses that are nearer are the same


@dataclass(frozen=True)
class Fitted:
    """A pose and its energy at the last stage."""

    pose: GraphPose
    energy: float


def track(problem: Problem, progress: Callable[[int, int], None] | None = None) -> list[GraphPose]:
    """Fit the frames one after the other, then the bad ones again from the frames on both sides."""
    T = len(problem.views.frames)
    search = Search.make(problem)
    still = still_pose(problem.graph)
    fits = [Fitted(still, 0.0)]
    for frame in range(1, T):
        problem.anchor = fits[-1].pose
        fits.append(search.fit_frame(frame, starts([each.pose for each in fits])))
        if progress is not None:
            progress(frame + 1, T)
    changed = _sweep(problem, search, fits, range(T - 1, 0, -1), set(range(T)))
    _sweep(problem, search, fits, range(1, T), changed)
    return [each.pose for each in fits]


def polish(problem: Problem, poses: list[GraphPose]) -> list[GraphPose]:
    """Fit poses that are good already to the videos, with a softer graph if these are right; the first stays."""
    result = poses[:1]
    for frame, pose in enumerate(poses[1:], 1):
        problem.anchor = result[-1]
        for stage in _last_stages(problem):
            pose = descend(problem, pose, stage, frame)[0]
        result.append(pose)
    return result


def _last_stages(problem: Problem) -> tuple[Stage, ...]:
    """Those of `polish`."""
    return POLISH if problem.stiffness.softens else FINE[:1]


def cheapest(problem: Problem, motions: list[list[GraphPose]]) -> list[int]:
    """Which of several motions has the lowest energy, that of `polish`, in each frame: indices, one per frame.

    Frames are judged by themselves. Ties, as in frame 0, go to the first motion.
    """
    problem.anchor, stage = None, _last_stages(problem)[-1]
    energies = [[problem.energy(pose, stage, frame) for frame, pose in enumerate(poses)] for poses in motions]
    return [int(index) for index in np.argmin(energies, axis=0)]


def mend(problem: Problem, motions: list[list[GraphPose]]) -> tuple[list[GraphPose], list[int]]:
    """The best of several polished motions in each frame, and frames that remain bad fitted again: poses, and motions.

    The coarse stages of `Search.fit_frame` are stiff, and keep limbs from bending as sharply as fast ones do. So bad
    frames are fitted again by softer stages and by rotations of limbs, from the frames on both sides, and the energy of
    `polish` decides. Passes go backwards and forwards, as a good frame is a start for those beside it.

    The list has the index of the motion that each frame is from, -1 for those fitted again.
    """
    chosen = cheapest(problem, motions)
    poses = [motions[index][frame] for frame, index in enumerate(chosen)]
    if not problem.stiffness.softens:
        return poses, chosen
    limbs, bad = in_order(find_limbs(problem.graph)), _limit(problem, POLISH[-1], _MENDED, 1)
    changed = set(range(len(poses)))
    for number in range(_PASSES):
        order = range(len(poses) - 1, 0, -1) if number % 2 == 0 else range(1, len(poses))
        improved = _mend_once(problem, limbs, bad, poses, order, changed)
        for frame in improved:
            chosen[frame] = -1
        changed = improved
    return poses, chosen


def _mend_once(
    problem: Problem, limbs: list[Limb], bad: float, poses: list[GraphPose], order: range, changed: set[int]
) -> set[int]:
    """Fit bad frames again in an order, and change poses to those with a lower energy: the frames that changed.

    A branch is the motion as it continues from the frames before in this order. Where limbs are hidden, its energy may
    be the higher one for some frames until the videos tell; so it is followed, and taken as soon as its sum is lower.
    """
    T, step, last = len(poses), order.step, POLISH[-1]
    improved: set[int] = set()
    branch: dict[int, GraphPose] = {}
    lost = 0.0  # by how much the sum of energies of the branch is the higher one

    def at(frame: int) -> GraphPose:
        return branch.get(frame, poses[frame])

    def apart(one: GraphPose, two: GraphPose) -> float:
        return float(np.linalg.norm(one.positions - two.positions, axis=1).mean())

    for frame in order:
        before = frame - step
        problem.anchor = poses[frame - 1]
        energy = problem.energy(poses[frame], last, frame)
        # A frame whose surroundings are as they were when it was fitted last would end where it did.
        if energy < bad or not (branch or {frame - 1, frame + 1} & (changed | improved)):
            branch, lost = {}, 0.0
            continue
        along: list[GraphPose] = []
        if before < T:
            along.append(at(before))
            if 0 <= before - step < T:
                along.append(extrapolated(at(before - step), at(before)))
        others = [poses[frame]]
        if frame < T - 1:
            others.append(middle(poses[frame - 1], poses[frame + 1]))
        if 0 <= frame + step < T:
            others.append(poses[frame + step])
            if 0 <= frame + 2 * step < T:
                others.append(extrapolated(poses[frame + 2 * step], poses[frame + step]))
        continued = _fit_again(problem, limbs, along, frame, (_SOFT, FINE)) if along else None
        other = _fit_again(problem, limbs, others, frame, (_SOFT,))
        if continued is not None and apart(continued.pose, poses[frame]) < _SAME:
            continued = None
        if continued is not None and lost + continued.energy < min(_BETTER * energy, lost + other.energy):
            branch[frame] = continued.pose
            for each, pose in branch.items():
                poses[each] = pose
            improved |= set(branch)
            branch, lost = {}, 0.0
        elif other.energy < _BETTER * energy:
            poses[frame] = other.pose
            improved.add(frame)
            branch, lost = {}, 0.0
        elif continued is not None and lost + continued.energy - energy < _PATIENCE * energy:
            branch[frame] = continued.pose
            lost += continued.energy - energy
        else:
            branch, lost = {}, 0.0
    return improved


def _fit_again(
    problem: Problem,
    limbs: list[Limb],
    candidates: list[GraphPose],
    frame: int,
    ways: tuple[tuple[Stage, ...], ...],
) -> Fitted:
    """The pose of a frame with the lowest energy of those reached from the candidates, by stages and by limbs."""
    reached = []
    for start in candidates:
        for stages in ways:
            pose = start
            for stage in stages:
                pose = descend(problem, pose, stage, frame)[0]
            reached.append(pose)
        pose = start
        for stage in LIMBS:
            pose = descend_limbs(problem, limbs, pose, stage, frame)[0]
        reached.append(pose)
    *before, last = POLISH
    polished = []
    for pose in _best(problem, reached, LIMBS[1], frame, _POLISHED):
        for stage in before:
            pose, energy = descend(problem, pose, stage, frame)
        polished.append(Fitted(pose, energy))
    polished.sort(key=lambda each: each.energy)
    ended = [Fitted(*descend(problem, each.pose, last, frame)) for each in polished[:_ENDED]]
    return min(ended, key=lambda each: each.energy)


def _sweep(problem: Problem, search: Search, fits: list[Fitted], order: range, changed: set[int]) -> set[int]:
    """Fit bad frames again from the frames around them, in an order, and keep poses with a lower energy.

    Frames are left out if neither frame beside them is in `changed` or was improved before them. Returns the frames
    that were improved.
    """
    T, step = len(fits), order.step
    improved: set[int] = set()
    for frame in order:
        if fits[frame].energy < search.bad or frame - step == T:
            continue
        if not {frame - 1, frame + 1} & (changed | improved):
            continue
        problem.anchor = fits[frame - 1].pose
        neighbours = [fits[frame - step].pose]
        if 0 <= frame - 2 * step < T:
            neighbours.append(extrapolated(fits[frame - 2 * step].pose, neighbours[0]))
        if frame < T - 1:
            neighbours.append(middle(fits[frame - 1].pose, fits[frame + 1].pose))
        again = search.fit_frame(frame, neighbours, swings=False)
        if again.energy < fits[frame].energy:
            fits[frame] = again
            improved.add(frame)
    return improved


def starts(poses: list[GraphPose]) -> list[GraphPose]:
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


def middle(first: GraphPose, second: GraphPose) -> GraphPose:
    """The pose half way between two."""
    turn = Rotation.from_matrix(second.rotations @ first.rotations.swapaxes(1, 2)).as_rotvec()
    half = Rotation.from_rotvec(turn / 2).as_matrix()
    return GraphPose(half @ first.rotations, (first.positions + second.positions) / 2)


@dataclass(frozen=True)
class Search:
    """The fit of one frame.

    Attributes:
        limbs: of the graph.
        missed: energy at a blur of 2 pixels above which limbs are searched for.
        bad: energy at a blur of 1 pixel above which a frame is fitted again.
    """

    problem: Problem
    limbs: list[list[Limb]]
    missed: float
    bad: float

    @staticmethod
    def make(problem: Problem) -> Search:
        missed, bad = (_limit(problem, *each, 2) for each in ((COARSE[1], _MISSED), (FINE[1], _SWEPT)))
        return Search(problem, find_limbs(problem.graph), missed, bad)

    def fit_frame(self, frame: int, candidates: list[GraphPose], swings: bool = True) -> Fitted:
        """The best pose of a frame that is reached from the candidates.

        Each goes through several coarse stages, as which of them finds a limb depends on its width and speed; the
        energies at the finer stages decide.
        """
        problem, limbs = self.problem, in_order(self.limbs)
        candidates = _best(problem, candidates, COARSE[1], frame, _STARTS)
        reached = []
        for pose in candidates:
            reached.append(descend(problem, pose, COARSE[0], frame)[0])
            for stage in LIMBS:
                pose = descend_limbs(problem, limbs, pose, stage, frame)[0]
            reached.append(pose)
        reached = _best(problem, reached, LIMBS[1], frame, _MIDDLE)
        energy = problem.energy(reached[0], LIMBS[1], frame)
        if swings and energy > self.missed:
            start, energy = descend_limbs(problem, limbs, reached[0], LIMBS[0], frame)
            reached.append(swing_limbs(problem, self.limbs, start, energy, LIMBS[0], frame)[0])
        fitted = sorted(
            (descend(problem, pose, COARSE[1], frame) for pose in reached), key=lambda pair: pair[1]
        )
        results = []
        for pose, energy in fitted[:_FINALISTS]:
            if energy > _HOPELESS * fitted[0][1]:
                break
            for stage in FINE if problem.stiffness.softens else FINE[:1]:
                pose, energy = descend(problem, pose, stage, frame)
            results.append(Fitted(pose, energy))
        return min(results, key=lambda result: result.energy)


def _limit(problem: Problem, stage: Stage, share: float, multiple: float) -> float:
    """A share of the still model's largest image cost in any frame, and a multiple of that in frame 0."""
    still, level = still_pose(problem.graph), problem.level(stage)
    costs = [problem.image_cost(still, level, frame) for frame in range(len(problem.views.frames))]
    return share * max(costs) + multiple * costs[0]


def _best(problem: Problem, poses: list[GraphPose], stage: Stage, frame: int, count: int) -> list[GraphPose]:
    """The poses with the lowest energies, lowest first."""
    return sorted(poses, key=lambda pose: problem.energy(pose, stage, frame))[:count]


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
