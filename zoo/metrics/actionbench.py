"""ActionBench's distances between animated surfaces: CD-3D, CD-4D and CD-M (Sabathier et al. 2026, ActionMesh).

The published definition is the evaluation code of facebookresearch/actionmesh (actionbench/), which is followed here to
the order of its steps. Chamfer distances are sums of both directions, of plain (not squared) distances; the alignment
minimises squared ones. The true surface is a tracked point cloud: point p is the same surface point in all frames.

Random samples are drawn from torch's generator with the benchmark's seed, so they are not the same points as its own;
with its 100 000 points the results differ from it by the sampling noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renderers.arguments import instance, integer, number, shown
from zoo.metrics.checks import check_finite, check_floats, check_tensors

SEED = 44
SURFACE_POINTS = 100_000  # sampled on each predicted surface
ICP_POINTS = 10_000  # of either cloud that the alignment is fitted to
ICP_ITERATIONS, ICP_LEARNING_RATE = 200, 0.01
CHAMFER_QUERIES = 10_000  # points of either cloud whose nearest neighbour counts
_CHUNK = 4096  # rows of a distance matrix on a GPU


@dataclass(frozen=True)
class Alignment:
    """The map x → (s ∘ x) R + t of row vectors.

    Attributes:
        scale: s, one factor per axis, [3].
        rotation: R, [3, 3].
        translation: t, [3].
        loss: Chamfer distance of squared distances that the fit reached.
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor
    loss: float

    def apply(self, points: Tensor) -> Tensor:
        """Map points [..., 3]."""
        check_tensors("Alignment.apply", "... 3", points=points)
        return (self.scale.to(points) * points) @ self.rotation.to(points) + self.translation.to(points)


def sample_surface(
    vertices: Tensor,
    faces: Tensor,
    count: int = SURFACE_POINTS,
    *,
    synchronized: bool = False,
    seed: int = SEED,
) -> Tensor:
    """Points on the surface of an animated mesh, uniform by area.

    Args:
        vertices: float [T, V, 3].
        faces: indices of triangles, int [F, 3], the same in all frames.
        count: number of points per frame.
        synchronized: True draws the points on the first frame's surface and keeps their triangles and barycentric
            coordinates, so that a point is the same surface point in all frames, as CD-M requires. False draws anew
            for every frame, with the seed `seed` + t.
        seed: of the draw.

    Returns:
        [T, count, 3].
    """
    check_floats("sample_surface", vertices=vertices)
    sizes = check_tensors("sample_surface", "T V 3", vertices=vertices)
    check_tensors("sample_surface", "F 3", faces=faces)
    check_finite("sample_surface", vertices=vertices)
    count = integer(count, "sample_surface: count", 1, 10**7)
    seed = integer(seed, "sample_surface: seed", 0)
    if faces.is_floating_point() or not 0 <= int(faces.min()) <= int(faces.max()) < sizes["V"]:
        raise ValueError(
            f"sample_surface: faces: expected indices of {sizes['V']} vertices, got {shown(faces)}"
        )
    corners = vertices[:, faces.long()]  # [T, F, 3, 3]
    edges = corners[:, :, 1:] - corners[:, :, :1]
    areas = torch.linalg.cross(edges[:, :, 0], edges[:, :, 1]).norm(dim=-1) / 2
    if not (areas.sum(-1) > 0).all():
        raise ValueError("sample_surface: vertices: expected a surface with an area in every frame, got none")
    points = []
    for frame in range(sizes["T"]):
        drawn = 0 if synchronized else frame
        generator = torch.Generator().manual_seed(seed + drawn)
        index = torch.multinomial(areas[drawn].cpu(), count, replacement=True, generator=generator)
        u, v = torch.rand(2, count, generator=generator, dtype=vertices.dtype).to(vertices.device)
        weights = torch.stack([1 - u.sqrt(), u.sqrt() * (1 - v), u.sqrt() * v], -1)  # uniform in a triangle
        points.append((weights[..., None] * corners[frame, index.to(vertices.device)]).sum(1))
    return torch.stack(points)


def align(
    predicted: Tensor,
    target: Tensor,
    *,
    iterations: int = ICP_ITERATIONS,
    learning_rate: float = ICP_LEARNING_RATE,
) -> Alignment:
    """ActionBench's gradient ICP: the map of a point cloud to another that minimises their Chamfer distance.

    Minimises, over a rotation (6D representation of Zhou et al. 2019), a translation and one scale factor per axis,

        mean_p min_q ‖x̂_p − x_q‖² + mean_q min_p ‖x̂_p − x_q‖²

    with Adam from the benchmark's 24 axis-aligned rotations at once, and returns the best of all starts and iterations.
    As in the published code, the translation and the scale of the result are those after the step whose loss was best,
    and its rotation is the one before that step.

    Args:
        predicted: points x̂_p, [P, 3]. Nearest points are found with a KD-tree on a CPU and by brute force on a GPU:
            10 000 points take minutes on a CPU core.
        target: points x_q, [Q, 3].
        iterations: of Adam.
        learning_rate: of Adam.
    """
    check_floats("align", predicted=predicted, target=target)
    check_tensors("align", "P 3", predicted=predicted)
    check_tensors("align", "Q 3", target=target)
    check_finite("align", predicted=predicted, target=target)
    iterations = integer(iterations, "align: iterations", 1)
    learning_rate = number(learning_rate, "align: learning_rate", above=0.0)
    source, goal = predicted.detach().float(), target.detach().float()
    starts = axis_rotations().to(source)
    count = len(starts)
    parameters = [
        torch.zeros(count, 3, device=source.device),
        torch.tensor([1.0, 0, 0, 0, 1, 0], device=source.device).repeat(count, 1),
        torch.ones(count, 3, device=source.device),
    ]
    adam = torch.optim.Adam(parameters, lr=learning_rate)
    nearest_target = _Nearest(goal)
    best: Alignment | None = None
    for _ in range(iterations):
        with torch.enable_grad():
            translation, six, scale = (each.requires_grad_() for each in parameters)
            rotation = starts @ _matrix_of(six)
            moved = (scale[:, None] * source) @ rotation + translation[:, None]  # [24, P, 3]
            losses = _squared_chamfer(moved, goal, nearest_target)
            adam.zero_grad()
            losses.mean().backward()
        adam.step()
        loss, index = losses.detach().min(0)
        if best is None or float(loss) < best.loss:
            chosen = [each[index].detach().clone() for each in (scale, rotation, translation)]
            best = Alignment(chosen[0], chosen[1], chosen[2], float(loss))
    assert best is not None
    return best


def axis_rotations() -> Tensor:
    """The rotations [24, 3, 3] that the alignment starts from: R_x(a) R_y(e) R_z(r) of the published list of angles.

    The list has two rotations twice, and so 22 of the 24 axis-aligned ones.
    """
    quarter = math.pi / 2
    angles = [(a, 0, r) for a in range(4) for r in range(4)]
    angles += [(a, e, r) for a in range(2) for e in (1, -1) for r in range(2)]
    cos, sin = (
        getattr(torch.tensor(angles, dtype=torch.float64) * quarter, name)() for name in ("cos", "sin")
    )
    one, zero = torch.ones(len(angles), dtype=torch.float64), torch.zeros(len(angles), dtype=torch.float64)
    x = [one, zero, zero, zero, cos[:, 0], -sin[:, 0], zero, sin[:, 0], cos[:, 0]]
    y = [cos[:, 1], zero, sin[:, 1], zero, one, zero, -sin[:, 1], zero, cos[:, 1]]
    z = [cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2], zero, zero, zero, one]
    turns = [torch.stack(each, -1).unflatten(-1, (3, 3)) for each in (x, y, z)]
    return (turns[0] @ turns[1] @ turns[2]).round().float()


def chamfer_distance(
    predicted: Tensor, target: Tensor, *, queries: int = CHAMFER_QUERIES, seed: int = SEED
) -> float:
    """Symmetric Chamfer distance of two point clouds, in their unit, at least 0; 0 for the same set of points.

        mean_q min_p ‖x̂_p − x_q‖ + mean_p min_q ‖x̂_p − x_q‖

    Args:
        predicted: points x̂_p, [P, 3].
        target: points x_q, [Q, 3].
        queries: the means are over at most so many points of either cloud, drawn at random; the nearest points are
            those of the whole clouds. 0 takes all.
        seed: of numpy's legacy generator for `predicted`; `target` has `seed` + 1, as published.
    """
    check_tensors("chamfer_distance", "P 3", predicted=predicted)
    check_tensors("chamfer_distance", "Q 3", target=target)
    check_finite("chamfer_distance", predicted=predicted, target=target)
    queries = integer(queries, "chamfer_distance: queries", 0)
    seed = integer(seed, "chamfer_distance: seed", 0, 2**32 - 2)
    clouds = (predicted, target)
    queried = []
    for cloud, own_seed in zip(clouds, (seed, seed + 1), strict=True):
        chosen = torch.arange(len(cloud))
        if 0 < queries < len(cloud):
            chosen = torch.from_numpy(np.random.RandomState(own_seed).permutation(len(cloud))[:queries])
        queried.append(cloud[chosen.to(cloud.device)])
    total = 0.0
    for cloud, points in zip(clouds, reversed(queried), strict=True):
        total += float((cloud[_Nearest(cloud)(points)] - points).double().norm(dim=-1).mean())
    return total


def chamfer_3d(
    predicted: Tensor, target: Tensor, *, icp_points: int = ICP_POINTS, iterations: int = ICP_ITERATIONS
) -> float:
    """CD-3D, geometric accuracy per frame: the mean over frames of the Chamfer distance after aligning each frame.

    Args:
        predicted: points of the predicted surface, [T, P, 3]; `sample_surface` draws them.
        target: points of the true one, [T, Q, 3].
        icp_points: at most so many points of either cloud, the same in all frames, are aligned (`align`).
        iterations: of the alignment.

    Returns:
        At least 0, in the unit of the points (the benchmark's objects fill [−1, 1]³).
    """
    _check_clouds("chamfer_3d", predicted, target)
    pairs = zip(_subset(predicted, icp_points), _subset(target, icp_points), strict=True)
    aligned = [
        align(a, b, iterations=iterations).apply(frame)
        for frame, (a, b) in zip(predicted, pairs, strict=True)
    ]
    return float(np.mean([chamfer_distance(a, b) for a, b in zip(aligned, target, strict=True)]))


def chamfer_4d(predicted: Tensor, target: Tensor, alignment: Alignment | None = None, *,
               icp_points: int = ICP_POINTS, iterations: int = ICP_ITERATIONS) -> float:  # fmt: skip
    """CD-4D, consistency in space and time: as CD-3D, with the first frame's alignment for all frames.

    Args:
        predicted: points of the predicted surface, [T, P, 3].
        target: points of the true one, [T, Q, 3].
        alignment: of the first frames, from `align_first`; None computes it.
        icp_points: see `chamfer_3d`.
        iterations: of the alignment.
    """
    _check_clouds("chamfer_4d", predicted, target)
    alignment = _given(alignment, "chamfer_4d", predicted, target, icp_points, iterations)
    moved = alignment.apply(predicted)
    return float(np.mean([chamfer_distance(a, b) for a, b in zip(moved, target, strict=True)]))


def motion_chamfer(predicted: Tensor, target: Tensor, alignment: Alignment | None = None, *,
                   icp_points: int = ICP_POINTS, iterations: int = ICP_ITERATIONS) -> float:  # fmt: skip
    """CD-M, fidelity of the motion: points are matched in the first frame and compared in all frames.

        mean_q mean_t ‖x̂_{n(q)}(t) − x_q(t)‖ + mean_p mean_t ‖x̂_p(t) − x_{m(p)}(t)‖

    with n(q) the nearest predicted point of x_q(0), and m(p) the nearest true point of x̂_p(0).

    Args:
        predicted: points of the predicted surface, [T, P, 3], each the same surface point in all frames
            (`sample_surface` with `synchronized`).
        target: points of the true one, [T, Q, 3], tracked alike.
        alignment: of the first frames, from `align_first`; None computes it.
        icp_points: see `chamfer_3d`.
        iterations: of the alignment.

    Returns:
        At least 0, in the unit of the points.
    """
    _check_clouds("motion_chamfer", predicted, target)
    alignment = _given(alignment, "motion_chamfer", predicted, target, icp_points, iterations)
    moved = alignment.apply(predicted)
    to_predicted, to_target = _Nearest(moved[0])(target[0]), _Nearest(target[0])(moved[0])
    forward = (moved[:, to_predicted] - target).double().norm(dim=-1).mean()
    backward = (target[:, to_target] - moved).double().norm(dim=-1).mean()
    return float(forward + backward)


def align_first(
    predicted: Tensor, target: Tensor, *, icp_points: int = ICP_POINTS, iterations: int = ICP_ITERATIONS
) -> Alignment:
    """The alignment of the first frames of two animated point clouds, [T, P, 3] and [T, Q, 3], for CD-4D and CD-M."""
    _check_clouds("align_first", predicted, target)
    first, goal = _subset(predicted[:1], icp_points)[0], _subset(target[:1], icp_points)[0]
    return align(first, goal, iterations=iterations)


def _check_clouds(function: str, predicted: Tensor, target: Tensor) -> None:
    check_floats(function, predicted=predicted, target=target)
    frames = check_tensors(function, "T P 3", predicted=predicted)["T"]
    if check_tensors(function, "T Q 3", target=target)["T"] != frames:
        raise ValueError(
            f"{function}: target: expected {frames} frames as predicted, got {list(target.shape)}"
        )
    check_finite(function, predicted=predicted, target=target)


def _given(alignment: Alignment | None, function: str, predicted: Tensor, target: Tensor, icp_points: int,
           iterations: int) -> Alignment:  # fmt: skip
    if alignment is None:
        return align_first(predicted, target, icp_points=icp_points, iterations=iterations)
    instance(alignment, Alignment, f"{function}: alignment")
    return alignment


def _subset(clouds: Tensor, count: int, seed: int = SEED) -> Tensor:
    """At most `count` points of clouds [T, P, 3], the same in all frames."""
    count = integer(count, "icp_points", 1)
    if clouds.shape[1] <= count:
        return clouds
    chosen = np.random.RandomState(seed).permutation(clouds.shape[1])[:count]
    return clouds[:, torch.from_numpy(chosen).to(clouds.device)]


def _matrix_of(six: Tensor) -> Tensor:
    """Rotations [N, 3, 3] from the 6D representation [N, 6]: two rows, orthonormalised, and their cross product."""
    first = F.normalize(six[:, :3], dim=-1)
    second = F.normalize(six[:, 3:] - (first * six[:, 3:]).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], 1)


def _squared_chamfer(moved: Tensor, goal: Tensor, nearest_goal: _Nearest) -> Tensor:
    """The objective of `align` for clouds [N, P, 3], [N]; the choice of the nearest points has no gradient."""
    fixed = moved.detach()
    to_goal = nearest_goal(fixed.flatten(0, 1)).unflatten(0, moved.shape[:2])
    to_moved = torch.stack([_Nearest(cloud)(goal) for cloud in fixed])[..., None].expand(-1, -1, 3)
    forward = (moved - goal[to_goal]).square().sum(-1).mean(1)
    backward = (moved.gather(1, to_moved) - goal).square().sum(-1).mean(1)
    return forward + backward


class _Nearest:
    """Finds the nearest of some points: a KD-tree on a CPU, brute force on other devices."""

    def __init__(self, points: Tensor) -> None:
        self._points, self._tree = points, None
        if points.device.type == "cpu":
            from scipy.spatial import cKDTree

            self._tree = cKDTree(points.detach().numpy())

    def __call__(self, queries: Tensor) -> Tensor:
        """Indices [N] of the points nearest to queries [N, 3]."""
        if self._tree is not None:
            return torch.from_numpy(self._tree.query(queries.detach().numpy())[1])
        chunks = queries.split(_CHUNK)
        return torch.cat([torch.cdist(chunk, self._points).argmin(-1) for chunk in chunks])
