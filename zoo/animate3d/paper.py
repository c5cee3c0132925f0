"""Method `paper`: the 4D optimisation of Animate3D (§3.2-3.3).

Static Gaussians (`still_splats`) are moved by a HexPlane field (`hexplane`) that is optimised until they look like the
videos, as rigidly as possible (`rigidity`). Frames join one after the other. The field moves control points that carry
the Gaussians (`controls`): of a mesh the nodes of a deformation graph, so that results are exported and judged like
those of method `graph`; of a file of splats, points in space (`zoo.animate3d.splats`). As published, it moves every
Gaussian by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import identity
from scipy.sparse.linalg import factorized
from scipy.spatial.transform import Rotation
from torch import Tensor

from renderers.gaussians import TensorCameras
from renderers.gaussians.features import rotation_matrices
from zoo.animate3d.controls import Binding, Controls, nearest
from zoo.animate3d.graph import GraphPose, still_pose
from zoo.animate3d.hexplane import MotionField, Moved
from zoo.animate3d.mending import polish
from zoo.animate3d.rigidity import Neighbours, arap, neighbourhoods
from zoo.animate3d.solver import Problem
from zoo.animate3d.still_splats import UNIT, StillSplats, make_splats, matching_loss, oversampled, targets


@dataclass(frozen=True)
class PaperSettings:
    """Settings of method `paper`.

    Attributes:
        side: videos are reduced by a whole factor to at most this many pixels.
        oversample: whether videos of a mesh that are at most half as large are compared with means of pixels of
            pictures that are drawn in a multiple of their size.
        gaussians: most Gaussians.
        controlled: whether the field moves control points that carry the Gaussians; if not, each Gaussian by itself.
        colors, levels, robust: of `zoo.animate3d.still_splats.matching_loss`.
        steps_per_frame: after which the next frame joins; 0 begins with all frames.
        last_steps: with all frames.
        frames_at_once: of a step: the newest, and others drawn at random.
        arap: weight of the loss, which sums over frames and is a mean over points, in the field's space.
        arap_points: drawn in each step.
        polish: whether the last step is method `graph`'s, from the poses found (`zoo.animate3d.mending.polish`); not
            of splats, which have no surface, and not with videos whose views disagree or that are at most half as
            large as `side`, by which joints would bend too far.
        rates: of Adam; see `zoo.animate3d.hexplane.RATES`.
        seed: of all random choices.
    """

    side: int = 128
    oversample: bool = True
    gaussians: int = 3000
    controlled: bool = True
    colors: float = 10.0
    levels: int = 4
    robust: float = 0.15
    steps_per_frame: int = 50
    last_steps: int = 150
    frames_at_once: int = 4
    arap: float = 5000.0
    arap_points: int = 512
    polish: bool = True
    rates: dict[str, float] = field(default_factory=lambda: {"heads": 3e-3, "grids": 1e-2, "global": 1e-3})
    seed: int = 0

    @staticmethod
    def published() -> PaperSettings:
        """Those of the released code, for a GPU. ARAP 12 · 512 points · 3 neighbours."""
        return PaperSettings(
            side=256, oversample=False, gaussians=100_000, controlled=False, colors=1.0, levels=1, robust=math.inf,
            last_steps=50, frames_at_once=15, arap=12 * 512 * 3.0, polish=False,
            rates={"heads": 1e-4, "grids": 1e-2, "global": 1e-3},
        )  # fmt: skip


PICTURES = 100.0  # weight of colours and coverage, as released


@dataclass(frozen=True)
class FieldMotion:
    """Gaussians, and the field that moves them in T frames.

    Attributes:
        controls: the points that the field moves; None if it moves each Gaussian by itself.
        carried: means [T, K, 3] and quaternions [T, K, 4] of the control points in another motion, which the field
            corrects; None if it moves the still model.
    """

    splats: StillSplats
    field: MotionField
    frames: int
    controls: Controls | None = None
    carried: tuple[Tensor, Tensor] | None = None

    def times(self, frames: Tensor) -> Tensor:
        """t of frames: -1 for the first, 1 for the last."""
        return 2 * frames.to(self.splats.means) / (self.frames - 1) - 1

    def moved(self, frames: Tensor, growing: bool = False) -> Moved:
        """The Gaussians in frames, int64 [F]."""
        splats, controls = self.splats, self.controls
        if controls is None:
            return self.field(splats.means, splats.quats, self.times(frames), growing=growing)
        return controls.carry(self.pose(frames, growing), splats.means, splats.quats, controls.gaussians)

    def pose(self, frames: Tensor, growing: bool = False) -> Moved:
        """The control points in frames, int64 [F]."""
        assert self.controls is not None
        carried = self.carried and (self.carried[0][frames], self.carried[1][frames])
        return self.controls.pose(self.field, self.times(frames), carried=carried, growing=growing)

    @torch.no_grad()
    def carry(self, still: Tensor, frame: int) -> Tensor:
        """Where any points [n, 3] of the still model are in a frame, in the field's space.

        Control points carry those that are near in space.
        """
        unturned = torch.tensor([1.0, 0.0, 0.0, 0.0]).to(still).expand(len(still), -1)
        frames = torch.tensor([frame])
        if self.controls is not None:
            binding = nearest(self.controls.centres, still)
            return self.controls.carry(self.pose(frames), still, unturned, binding).means[0]
        whole = self.field.whole(self.field.features(self.splats.means, self.times(frames)))
        return self.field(still, unturned, self.times(frames), whole=whole).means[0]

    @torch.no_grad()
    def poses(self, problem: Problem) -> list[GraphPose]:
        """The motion as poses of a graph, whose nodes the control points are if there are any. Frame 0 is still."""
        if self.controls is None:
            return graph_poses(problem, self.displaced(problem))
        poses = [still_pose(problem.graph)]
        for frame in range(1, self.frames):
            moved = self.pose(torch.tensor([frame]))
            rotations = rotation_matrices(moved.quats[0].double()).numpy()
            poses.append(GraphPose(rotations, moved.means[0].double().numpy() / UNIT))
        return poses

    def displaced(self, problem: Problem) -> np.ndarray:
        """The surface points in all frames where the field moves each by itself: float64 [T, n, 3], unit space."""
        still = torch.from_numpy(problem.surface.points * UNIT).to(self.splats.means)
        moved = [self.carry(still, frame).double().numpy() / UNIT for frame in range(1, self.frames)]
        return np.array([problem.surface.points, *moved])


def track_field(
    problem: Problem,
    progress: Callable[[int, int], None] | None = None,
    settings: PaperSettings | None = None,
) -> list[GraphPose]:
    """Stage 1: fit the field to the videos. Returns the poses of the graph."""
    settings = settings or PaperSettings()
    frames, cameras = targets(problem.views, settings.side)
    small = 2 * max(frames.shape[2:4]) <= settings.side
    if settings.oversample:
        cameras = oversampled(frames, cameras, settings.side)
    splats = make_splats(problem, settings.gaussians, frames, cameras, settings.seed)
    controls = controls_of(problem, splats) if settings.controlled else None
    motion = FieldMotion(splats, MotionField(settings.seed), len(frames), controls)
    reconstruct(motion, neighbours_on(problem, splats), frames, cameras, settings, progress)
    poses = motion.poses(problem)
    polished = settings.polish and problem.stiffness.softens and not small
    return polish(problem, poses) if polished else poses


def controls_of(problem: Problem, splats: StillSplats) -> Controls:
    """The nodes of the graph, which carry splats as they carry the surface."""
    graph, kind = problem.graph, splats.means
    nodes = torch.from_numpy(graph.point_nodes[splats.points].astype(np.int64))
    weights = torch.from_numpy(graph.point_weights[splats.points]).to(kind)
    return Controls(torch.from_numpy(graph.centres * UNIT).to(kind), Binding(nodes, weights))


def neighbours_on(problem: Problem, splats: StillSplats) -> Neighbours:
    """Neighbourhoods of splats along the surface of a mesh."""
    return neighbourhoods(problem.surface.links, splats.points, splats.means.double().numpy())


def reconstruct(
    motion: FieldMotion,
    neighbours: Neighbours,
    frames: Tensor,
    cameras: TensorCameras,
    settings: PaperSettings,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Optimise a field until the Gaussians look like the videos [T, V, H, W, 4]."""
    splats, T = motion.splats, len(frames)
    random = np.random.default_rng(settings.seed)
    optimizer = torch.optim.Adam(motion.field.groups(settings.rates), eps=1e-15)
    progressive = settings.steps_per_frame * (T - 1)
    for step in range(progressive + settings.last_steps):
        newest = T - 1 if step >= progressive else 1 + step // settings.steps_per_frame
        chosen = torch.from_numpy(_frames(random, newest, settings, step < progressive))
        moved = motion.moved(chosen)
        pictures = matching_loss(
            splats.at(moved), cameras, frames[chosen], settings.colors, settings.levels, settings.robust
        )
        loss = PICTURES * pictures * len(chosen)
        if settings.arap:
            rows = torch.from_numpy(random.integers(len(splats.means), size=settings.arap_points))
            loss = loss + settings.arap * arap(splats.means, moved.means, neighbours, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(1 + (T - 1) * (step + 1) // (progressive + settings.last_steps), T)


def _frames(
    random: np.random.Generator, newest: int, settings: PaperSettings, progressive: bool
) -> np.ndarray:
    """Frames of a step, 1 … newest: the newest while frames join, and others without repetition."""
    if not progressive:
        return np.sort(1 + random.permutation(newest)[: settings.frames_at_once])
    others = 1 + random.permutation(newest - 1)[: settings.frames_at_once - 1]
    return np.sort(np.append(others, newest)).astype(np.int64)


def graph_poses(problem: Problem, points: np.ndarray) -> list[GraphPose]:
    """The poses of the graph that carry its points nearest to given ones, float [T, n, 3], unit space.

    Rotations are those that fit the points of each node best (Kabsch 1976), positions then follow by least squares.
    Frame 0 is the still pose.
    """
    graph, still, W = problem.graph, problem.surface.points, problem.matrix
    share = W.T.tocsr()
    total = np.maximum(np.asarray(share.sum(1)), 1e-9)
    middle = share @ still / total
    solve = factorized((W.T @ W + 1e-6 * identity(W.shape[1])).tocsc())
    poses = [still_pose(graph)]
    for moved in points[1:]:
        outer = share @ np.einsum("ni,nj->nij", moved, still).reshape(-1, 9) / total
        centre = share @ moved / total
        covariance = outer.reshape(-1, 3, 3) - np.einsum("ki,kj->kij", centre, middle)
        u, _, vt = np.linalg.svd(covariance)
        u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
        rotations = u @ vt
        # Σ_k w_k (R_k (x - g_k) + p_k) = y; p near where the node's own rotation puts it.
        turned = W @ rotations.reshape(-1, 9)
        offset = W @ np.einsum("kij,kj->ki", rotations, graph.centres)
        rest = moved - (np.einsum("nij,nj->ni", turned.reshape(-1, 3, 3), still) - offset)
        likely = centre + np.einsum("kij,kj->ki", rotations, graph.centres - middle)
        right = W.T @ rest + 1e-6 * likely
        positions = np.stack([solve(right[:, axis]) for axis in range(3)], -1)
        poses.append(GraphPose(rotations, positions))
    return poses


def carried_by(poses: list[GraphPose]) -> tuple[Tensor, Tensor]:
    """Poses of the graph as means [T, K, 3] and quaternions [T, K, 4] of control points, in the field's space."""
    rotations = np.array([pose.rotations for pose in poses])
    quats = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat(scalar_first=True)
    means = np.array([pose.positions for pose in poses]) * UNIT
    return (
        torch.from_numpy(means).float(),
        torch.from_numpy(quats.reshape(*rotations.shape[:2], 4)).float(),
    )
