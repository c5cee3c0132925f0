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
# Poses that go through the stages of limbs, and those at and after a blur of 2 pixels.
_STARTS, _MIDDLE, _FINALISTS = 2, 3, 2
_DIRECT = 2  # starts that are compared with those at a blur of 1 pixel, without coarser stages
_HOPELESS = 1.5  # of the lowest energy at 2 pixels: poses above are dropped
# Energies beyond twice the cost of frame 0 (a known pose), as shares of the still model's largest image cost:
_MISSED = 0.05  # at 2 pixels: limbs are missing
_SWEPT = 0.03  # at 1 pixel: the frame is fitted again


@dataclass(frozen=True)
class Fitted:
    """A pose and its energy at the last stage."""

    pose: GraphPose
    energy: float


def track(problem: Problem, progress: Callable[[int, int], None] | None = None) -> list[GraphPose]:
    """Fit the frames one after the other, then the bad ones again from the frames on both sides.

    The second step is left to `zoo.animate3d.mending.mend` if the videos are right.
    """
    T = len(problem.views.frames)
    search = Search.make(problem)
    still = still_pose(problem.graph)
    fits = [Fitted(still, 0.0)]
    for frame in range(1, T):
        problem.anchor = fits[-1].pose
        fits.append(search.fit_frame(frame, starts_after([each.pose for each in fits])))
        if progress is not None:
            progress(frame + 1, T)
    if not problem.stiffness.softens:
        changed = _sweep(problem, search, fits, range(T - 1, 0, -1), set(range(T)))
        _sweep(problem, search, fits, range(1, T), changed)
    return [each.pose for each in fits]


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


def starts_after(poses: list[GraphPose]) -> list[GraphPose]:
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
        missed, bad = (energy_limit(problem, *each, 2) for each in ((COARSE[1], _MISSED), (FINE[1], _SWEPT)))
        return Search(problem, find_limbs(problem.graph), missed, bad)

    def fit_frame(self, frame: int, starts: list[GraphPose], swings: bool = True) -> Fitted:
        """The best pose of a frame that is reached from the starts.

        They go through several coarse stages, as which of them finds a limb depends on its width and speed, or to the
        finer ones directly; the energies at the finer stages decide.
        """
        problem, limbs = self.problem, in_order(self.limbs)
        # A motion that continues may begin with the highest energy and end with the lowest: descend, then choose.
        coarse = [(descend(problem, pose, COARSE[0], frame), pose) for pose in starts]
        coarse.sort(key=lambda pair: pair[0][1])
        reached = []
        for (descended, _), pose in coarse[:_STARTS]:
            reached.append(descended)
            for stage in LIMBS:
                pose = descend_limbs(problem, limbs, pose, stage, frame)[0]
            reached.append(pose)
        reached = lowest(problem, reached, LIMBS[1], frame, _MIDDLE)
        energy = problem.energy(reached[0], LIMBS[1], frame)
        if swings and energy > self.missed:
            start, energy = descend_limbs(problem, limbs, reached[0], LIMBS[0], frame)
            reached.append(swing_limbs(problem, self.limbs, start, energy, LIMBS[0], frame)[0])
        fitted = sorted(
            (descend(problem, pose, COARSE[1], frame) for pose in reached), key=lambda pair: pair[1]
        )
        finalists = [pose for pose, energy in fitted[:_FINALISTS] if energy <= _HOPELESS * fitted[0][1]]
        if not problem.stiffness.softens:
            return self._descended(finalists, FINE[0], frame)[0]
        # Coarse stages are stiffer than joints are, and lead away from starts that are right already.
        finalists += lowest(problem, starts, FINE[0], frame, _DIRECT)
        near = self._descended(finalists, FINE[0], frame)[:_FINALISTS]
        return self._descended([each.pose for each in near], FINE[1], frame)[0]

    def _descended(self, poses: list[GraphPose], stage: Stage, frame: int) -> list[Fitted]:
        """Where a stage leads from poses, the lowest energy first."""
        results = [Fitted(*descend(self.problem, pose, stage, frame)) for pose in poses]
        return sorted(results, key=lambda result: result.energy)


def energy_limit(problem: Problem, stage: Stage, share: float, multiple: float) -> float:
    """A share of the still model's largest image cost in any frame, and a multiple of that in frame 0."""
    still, level = still_pose(problem.graph), problem.level(stage)
    costs = [problem.image_cost(still, level, frame) for frame in range(len(problem.views.frames))]
    return share * max(costs) + multiple * costs[0]


def lowest(problem: Problem, poses: list[GraphPose], stage: Stage, frame: int, count: int) -> list[GraphPose]:
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
