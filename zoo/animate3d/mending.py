"""The end of a fit: motions polished, compared by their energies, and frames that remain bad fitted again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from zoo.animate3d.graph import GraphPose
from zoo.animate3d.limbs import Limb, descend_limbs, find_limbs, in_order
from zoo.animate3d.solver import Problem, Stage, descend
from zoo.animate3d.tracking import FINE, LIMBS, Fitted, energy_limit, extrapolated, lowest, middle

# For poses that are near the truth already. Joints bend and twist sharply: at true poses, the energy of `FINE` is twice
# that at its optimum, and most of it is the graph's.
POLISH = (Stage(1.0, 1, 6, 0.1, 0.03, 1 / 3, 0.1), Stage(1.0, 1, 8, 0.1, 0.003, 1 / 3, 0.1))
# From a start to where joints bend as sharply as the videos show, at all resolutions.
_SOFT = (Stage(4.0, 2, 8, 0.03, 0.1, 1 / 3, 0.1), Stage(2.0, 2, 8, 0.05, 0.03, 1 / 3, 0.1))
_POLISHED, _ENDED = 4, 2  # poses that go through the first and the last stage of `POLISH`
_BETTER = 0.99  # of the energy: poses below are taken
_PATIENCE = 0.5  # of a frame's energy: a branch whose sum is higher by more is dropped
_SAME = 0.005  # units, mean distance of nodes: poses that are nearer are the same


def polish(
    problem: Problem, poses: list[GraphPose], progress: Callable[[int, int], None] | None = None
) -> list[GraphPose]:
    """Fit poses that are good already to the videos, with a softer graph if these are right; the first stays."""
    result = poses[:1]
    for frame, pose in enumerate(poses[1:], 1):
        problem.anchor = result[-1]
        result.append(_through(problem, pose, _last_stages(problem), frame).pose)
        if progress is not None:
            progress(frame + 1, len(poses))
    return result


def _last_stages(problem: Problem) -> tuple[Stage, ...]:
    """Those of `polish`."""
    return POLISH if problem.stiffness.softens else FINE[:1]


def _through(problem: Problem, pose: GraphPose, stages: tuple[Stage, ...], frame: int) -> Fitted:
    """Where stages, one after the other, lead from a pose."""
    energy = np.inf
    for stage in stages:
        pose, energy = descend(problem, pose, stage, frame)
    return Fitted(pose, energy)


def cheapest(problem: Problem, motions: list[list[GraphPose]]) -> list[int]:
    """Which of several motions has the lowest energy, that of `polish`, in each frame: indices, one per frame.

    Frames are judged by themselves. Ties, as in frame 0, go to the first motion.
    """
    problem.anchor, stage = None, _last_stages(problem)[-1]
    energies = [[problem.energy(pose, stage, frame) for frame, pose in enumerate(poses)] for poses in motions]
    return [int(index) for index in np.argmin(energies, axis=0)]


def mend(
    problem: Problem,
    motions: list[list[GraphPose]],
    bad: float,
    passes: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[GraphPose], list[int]]:
    """The best of several polished motions in each frame, and frames that remain bad fitted again: poses, and motions.

    The coarse stages of `Search.fit_frame` are stiff, and keep limbs from bending as sharply as fast ones do. So bad
    frames are fitted again by softer stages and by rotations of limbs, from the frames on both sides, and the energy of
    `polish` decides. Passes go backwards and forwards in turn, as a good frame is a start for those beside it. Videos
    whose views disagree show no such bends, and get the best of the motions.

    The list has the index of the motion that each frame is from, -1 for those fitted again.

    Args:
        bad: energy beyond the cost of frame 0 (a known pose) above which a frame is bad, as a share of the still
            model's largest image cost.
        passes: at most, over the frames.
        progress: called after each frame of a pass with (done, T), as if all passes together were T frames.
    """
    chosen = cheapest(problem, motions)
    poses = [motions[index][frame] for frame, index in enumerate(chosen)]
    if not problem.stiffness.softens:
        return poses, chosen
    T = len(poses)
    limbs, limit = in_order(find_limbs(problem.graph)), energy_limit(problem, POLISH[-1], bad, 1)
    changed = set(range(T))
    for number in range(passes):
        order = range(T - 1, 0, -1) if number % 2 == 0 else range(1, T)
        run = Pass(problem, limbs, limit, poses, order, changed)
        for done, frame in enumerate(order, 1):
            run.visit(frame)
            if progress is not None:
                progress((number * T + done) // passes, T)
        changed = run.improved
        for frame in changed:
            chosen[frame] = -1
    return poses, chosen


@dataclass
class Pass:
    """One pass over the frames in an order, in which bad ones are fitted again.

    A branch is the motion as it continues from the frames before in this order. Where limbs are hidden, its energy may
    be the higher one for some frames until the videos tell; so it is followed, and taken as soon as its sum is lower.

    Attributes:
        limbs: of the graph, the shortest first.
        bad: energy of `polish` above which a frame is fitted again.
        poses: of all frames; those that improve are replaced.
        order: of the frames, forwards or backwards.
        changed: frames that the pass before improved. Others end where they did before, unless one beside them changed.
        improved: frames that this pass has improved.
        branch: poses of the frames that a branch has reached.
        lost: by how much the sum of the branch's energies is the higher one.
    """

    problem: Problem
    limbs: list[Limb]
    bad: float
    poses: list[GraphPose]
    order: range
    changed: set[int]
    improved: set[int] = field(default_factory=set)
    branch: dict[int, GraphPose] = field(default_factory=dict)
    lost: float = 0.0

    def visit(self, frame: int) -> None:
        """Fit the next frame of the order again if it is bad, and anything could be different."""
        self.problem.anchor = self.poses[frame - 1]
        energy = self.problem.energy(self.poses[frame], POLISH[-1], frame)
        beside = {frame - 1, frame + 1} & (self.changed | self.improved)
        if energy >= self.bad and (self.branch or beside):
            self._fit(frame, energy)
        else:
            self._leave_branch()

    def _fit(self, frame: int, energy: float) -> None:
        """Fit a frame with an energy again, and take what is better: the branch, or the frame by itself."""
        along = self._along(frame)
        continued = self._best(along, frame, (_SOFT, FINE)) if along else None
        other = self._best(self._around(frame), frame, (_SOFT,))
        if continued is not None and _apart(continued.pose, self.poses[frame]) < _SAME:
            continued = None
        summed = np.inf if continued is None else self.lost + continued.energy
        if continued is not None and continued.energy < other.energy and summed < _BETTER * energy:
            self._take(self.branch | {frame: continued.pose})
        elif other.energy < _BETTER * energy:
            self._take({frame: other.pose})
        elif continued is not None and summed - energy < _PATIENCE * energy:
            self.branch[frame] = continued.pose
            self.lost = summed - energy
        else:
            self._leave_branch()

    def _take(self, better: dict[int, GraphPose]) -> None:
        for frame, pose in better.items():
            self.poses[frame] = pose
        self.improved |= set(better)
        self._leave_branch()

    def _leave_branch(self) -> None:
        self.branch, self.lost = {}, 0.0

    def _at(self, frame: int) -> GraphPose:
        """The pose of a frame on the branch."""
        return self.branch.get(frame, self.poses[frame])

    def _along(self, frame: int) -> list[GraphPose]:
        """Starts that continue the motion from the frames before, none at its end."""
        T, before, step = len(self.poses), frame - self.order.step, self.order.step
        if before >= T:
            return []
        last = self._at(before)
        return [last] + ([extrapolated(self._at(before - step), last)] if 0 <= before - step < T else [])

    def _around(self, frame: int) -> list[GraphPose]:
        """Starts from the frame itself, those on both sides, and those after it in the order."""
        poses, T, step = self.poses, len(self.poses), self.order.step
        result = [poses[frame]]
        if frame < T - 1:
            result.append(middle(poses[frame - 1], poses[frame + 1]))
        if 0 <= frame + step < T:
            result.append(poses[frame + step])
            if 0 <= frame + 2 * step < T:
                result.append(extrapolated(poses[frame + 2 * step], poses[frame + step]))
        return result

    def _best(self, candidates: list[GraphPose], frame: int, ways: tuple[tuple[Stage, ...], ...]) -> Fitted:
        """The pose with the lowest energy of those reached from the candidates, by ways of stages and by limbs."""
        problem, reached = self.problem, []
        for start in candidates:
            reached += [_through(problem, start, stages, frame).pose for stages in ways]
            for stage in LIMBS:
                start = descend_limbs(problem, self.limbs, start, stage, frame)[0]
            reached.append(start)
        near = lowest(problem, reached, LIMBS[1], frame, _POLISHED)
        polished = sorted((_through(problem, pose, POLISH[:1], frame) for pose in near), key=_energy)
        return min(
            (_through(problem, each.pose, POLISH[1:], frame) for each in polished[:_ENDED]), key=_energy
        )


def _energy(fitted: Fitted) -> float:
    return fitted.energy


def _apart(one: GraphPose, two: GraphPose) -> float:
    """Mean distance of the nodes, units."""
    return float(np.linalg.norm(one.positions - two.positions, axis=1).mean())
