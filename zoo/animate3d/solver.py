"""Gauss-Newton on one frame: image terms and the graph's energy at one level of the pyramid."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import csr_matrix
from scipy.spatial.transform import Rotation

from zoo.animate3d import kernels
from zoo.animate3d.appearance import Appearance
from zoo.animate3d.graph import Graph, GraphPose, move_points
from zoo.animate3d.surface import Surface
from zoo.animate3d.views import Canvas, Level, Views


@dataclass(frozen=True)
class Stiffness:
    """Weights of the graph's energy; those of lengths are multiplied by (pixels per unit)² and the views / 4.

    Attributes:
        bend, stretch: of an edge's residual across and along it.
        turn: of differences of rotations, radians.
        anchor: of the distance of each node to its place in the frame before, for a single view, which does not show
            depth; a hundredth of it for more views.
        bend_delta, turn_delta: beyond these (units, radians) bending costs linearly: joints.
        softens: whether the graph becomes softer at the end of the fit, which right videos need to bend joints sharply.
    """

    bend: float = 0.1
    stretch: float = 0.3
    turn: float = 0.01
    anchor: float = 0.1
    bend_delta: float = 0.1
    turn_delta: float = 0.5
    softens: bool = True

    def scaled(self, factor: float) -> Stiffness:
        """All weights multiplied by a factor."""
        weights = {name: factor * getattr(self, name) for name in ("bend", "stretch", "turn", "anchor")}
        return replace(self, **weights)


STIFFNESS = {"rendered": Stiffness(), "generated": replace(Stiffness().scaled(10), softens=False)}


@dataclass(frozen=True)
class Stage:
    """One step of the way from coarse to fine.

    Attributes:
        blur: σ, pixels. pixel: size of a pixel, in those of the finest level.
        iterations: at most.
        stiffness: factor of the graph's energy.
        turn, stretch: other factors, of differences of rotations and of stretching.
        bend_delta: factor of that of `Stiffness`.
    """

    blur: float
    pixel: int
    iterations: int
    stiffness: float
    turn: float = 1.0
    stretch: float = 1.0
    bend_delta: float = 1.0


_CHANNELS = np.array([1.0, 1.0, 1.0, 2.0])  # ω: red, green, blue, alpha
_HUBER = 0.15
_TURN_CAP, _SHIFT_CAP = 0.6, 0.15  # largest step of a node, radians and units
_SETTLED = 0.02  # mean step in blurs at which a level has converged


@dataclass
class Terms:
    """Image terms at one pose: cost per view, and M, m of each surface point (`kernels.image_terms`)."""

    cost: np.ndarray
    M: np.ndarray
    m: np.ndarray


@dataclass
class Problem:
    """The surface, its graph, the videos, and the frame before: all that the energy of a pose depends on."""

    surface: Surface
    graph: Graph
    views: Views
    appearance: Appearance
    stiffness: Stiffness
    anchor: GraphPose | None = None  # the pose of the frame before the one that is fitted
    matrix: csr_matrix = field(init=False)
    _canvases: dict[tuple[int, int, int], Canvas] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.matrix = self.graph.matrix()

    @property
    def length_weight(self) -> float:
        """Factor of the graph's energy: squared pixels per unit, times views over 4."""
        return self.views.scale**2 * len(self.views.extrinsics) / 4

    def draw(
        self, pose: GraphPose, level: Level, surface: Surface | None = None
    ) -> tuple[Canvas, np.ndarray]:
        """Draw the model; returns the canvas, which the next call overwrites, and the points.

        `surface` may be the model with some faces left out.
        """
        shape = level.targets.shape[1:4]
        if shape not in self._canvases:
            self._canvases[shape] = Canvas(*shape)
        canvas = self._canvases[shape]
        points, turn = move_points(self.matrix, self.graph, pose, self.surface.points)
        canvas.draw(surface or self.surface, points, self.appearance.colors(self.surface, turn), level)
        return canvas, points

    def image_terms(self, pose: GraphPose, level: Level, frame: int) -> Terms:
        """Draw the model and linearise its difference to a frame."""
        canvas, points = self.draw(pose, level)
        terms = Terms(np.zeros(len(level.extrinsics)), np.zeros((len(points), 6)), np.zeros((len(points), 3)))
        kernels.fill_halo(canvas.sample, level.halo)
        kernels.image_terms(
            canvas.blurred, level.targets[frame], canvas.sample, canvas.face, canvas.weights,
            self.surface.faces, points, level.extrinsics, level.intrinsics, _CHANNELS, _HUBER,
            terms.M, terms.m, terms.cost,
        )  # fmt: skip
        area = level.pixel**2  # sums over pixels are as over those of the finest level
        terms.cost *= area
        terms.M *= area
        terms.m *= area
        return terms

    def image_cost(self, pose: GraphPose, level: Level, frame: int) -> float:
        """The image term alone."""
        canvas, _ = self.draw(pose, level)
        cost = np.zeros(len(level.extrinsics))
        kernels.image_cost(canvas.blurred, level.targets[frame], _CHANNELS, _HUBER, cost)
        return float(cost.sum()) * level.pixel**2

    def graph_energy(
        self,
        pose: GraphPose,
        stage: Stage,
        H: np.ndarray | None = None,
        g: np.ndarray | None = None,
    ) -> float:
        """The graph's energy at a stage; adds its normal equations to H and g if given."""
        edges, s, weight = self.graph.edges, self.stiffness, stage.stiffness * self.length_weight
        turns = Rotation.from_matrix(
            pose.rotations[edges[:, 1]] @ pose.rotations[edges[:, 0]].swapaxes(1, 2)
        ).as_rotvec()
        add = H is not None
        none = np.zeros((0, 0)), np.zeros(0)
        energy = kernels.graph_terms(
            edges, self.graph.stiffness, self.graph.loose, self.graph.centres, pose.positions, pose.rotations, turns,
            weight * s.bend, stage.stretch * weight * s.stretch, stage.bend_delta * s.bend_delta,
            stage.turn * weight * s.turn, s.turn_delta,
            H if add else none[0], g if add else none[1], add,
        )  # fmt: skip

        if self.anchor is None:
            return energy
        anchor = weight * s.anchor * (1.0 if len(self.views.extrinsics) == 1 else 0.01)
        drift = (pose.positions - self.anchor.positions).ravel()
        if H is not None and g is not None:
            places = 6 * np.arange(len(drift) // 3)[:, None] + [3, 4, 5]
            H[places.ravel(), places.ravel()] += anchor
            g[places.ravel()] -= anchor * drift
        return energy + anchor * float(drift @ drift)

    def normal_equations(self, pose: GraphPose, terms: Terms, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        """H [6K, 6K], of which the upper triangle is filled, and g [6K] of H d = g for a step of all nodes."""
        size = 6 * len(self.graph.centres)
        H, g = np.zeros((size, size)), np.zeros(size)
        self.graph_energy(pose, stage, H, g)
        kernels.gather(
            terms.M, terms.m, self.graph.point_nodes, self.graph.point_weights,
            self.surface.points, self.graph.centres, pose.rotations, H, g,
        )  # fmt: skip
        return H, g

    def level(self, stage: Stage) -> Level:
        """The videos as a stage compares them."""
        return self.views.level(stage.blur, stage.pixel)

    def energy(self, pose: GraphPose, stage: Stage, frame: int) -> float:
        """Image term and graph term."""
        return self.image_cost(pose, self.level(stage), frame) + self.graph_energy(pose, stage)


def descend(problem: Problem, pose: GraphPose, stage: Stage, frame: int) -> tuple[GraphPose, float]:
    """Levenberg-Marquardt at one stage: the best pose, and its energy."""
    level, damping = problem.level(stage), 1e-3
    terms = problem.image_terms(pose, level, frame)
    energy = float(terms.cost.sum()) + problem.graph_energy(pose, stage)
    for _ in range(stage.iterations):
        H, g = problem.normal_equations(pose, terms, stage)
        step = _solve(H, g, damping)
        step /= max(
            1.0,
            float(np.linalg.norm(step[:, :3], axis=1).max()) / _TURN_CAP,
            float(np.linalg.norm(step[:, 3:], axis=1).max()) / _SHIFT_CAP,
        )
        candidate = pose.stepped(step)
        terms_there = problem.image_terms(candidate, level, frame)
        energy_there = float(terms_there.cost.sum()) + problem.graph_energy(candidate, stage)
        if energy_there < energy:
            moved = float(np.linalg.norm(step[:, 3:], axis=1).mean()) * problem.views.scale
            pose, terms, energy = candidate, terms_there, energy_there
            damping = max(damping / 4, 1e-4)
            if moved < _SETTLED * stage.blur:
                break
        else:
            damping *= 10
            if damping > 10:
                break
    return pose, energy


def _solve(H: np.ndarray, g: np.ndarray, damping: float) -> np.ndarray:
    """Solve (H + damping · diag H) d = g with the upper triangle of H: the step [K, 6]."""
    diagonal = np.arange(len(g))
    H = H.astype(np.float32)
    H[diagonal, diagonal] += damping * H[diagonal, diagonal] + 1e-6 * max(
        float(H[diagonal, diagonal].max()), 1e-12
    )
    try:
        step = cho_solve(
            cho_factor(H, lower=False, overwrite_a=True, check_finite=False), g.astype(np.float32)
        )
    except LinAlgError:
        return np.zeros((len(g) // 6, 6))
    return step.astype(np.float64).reshape(-1, 6)
