"""How near to the truth any fit can come to videos whose views are warped differently (`benchmarks.animate.warped`).

Nothing has to be matched here: every surface point is known to appear where the warp shows it, and the point of space
nearest to these places is computed, linearised about the true one. What then remains is the disagreement of the views
itself. A prior knows the true motion but for one rigid motion of each neighbourhood of the nodes of a graph: many small
ones or a single one, the whole model. Directions that no view shows are right, so that the figures are too low rather
than too high.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

from zoo.animate3d import kernels
from zoo.animate3d.graph import Graph, make_graph
from zoo.animate3d.solver import Problem
from zoo.animate3d.views import Canvas

NEIGHBOURHOODS = (150, 40, 12, 4, 1)  # numbers of nodes
_HIDDEN = 0.01  # units behind what is drawn at its pixel: a point is hidden
_BLIND = 1e-4  # of the largest singular value: directions that no view shows


def shifts(field: np.ndarray, places: np.ndarray) -> np.ndarray:
    """By how much a field [2, H, W] (down, right) moves what is at pixels [n, 2] (x, y) of a picture: [n, 2].

    Warped pixels show what the field points at, so that p + field(p) = place. Pixel centres are at halves.
    """
    moved = places.copy()
    for _ in range(30):
        found = [map_coordinates(each, moved.T[::-1] - 0.5, order=1, mode="nearest") for each in field]
        moved = places - np.stack(found[::-1], -1)
    return moved - places


def projected(
    points: np.ndarray, extrinsics: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels [V, n, 2] of points [n, 3], their derivatives [V, n, 2, 3], and depths [V, n]."""
    camera = np.einsum("vij,nj->vni", extrinsics[:, :, :3], points) + extrinsics[:, None, :, 3]
    image = np.einsum("vij,vnj->vni", intrinsics, camera)
    places = image[..., :2] / image[..., 2:]
    turned = intrinsics @ extrinsics[:, :, :3]
    slopes = (turned[:, None, :2] - places[..., None] * turned[:, None, 2:]) / image[..., 2, None, None]
    return places, slopes, camera[..., 2]


def solved(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The shortest x of all that solve A x = b best: [..., n] of [..., n, n] and [..., n]."""
    return np.einsum("...ij,...j->...i", np.linalg.pinv(A, rcond=_BLIND, hermitian=True), b)


def triangulated(slopes: np.ndarray, moved: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """By how much points are off [n, 3] if pictures move them by [V, n, 2] in the views [V, n] that see them."""
    A = np.einsum("vnai,vnaj,vn->nij", slopes, slopes, seen)
    return solved(A, np.einsum("vnai,vna,vn->ni", slopes, moved, seen))


def rigidly(
    points: np.ndarray, graph: Graph, slopes: np.ndarray, moved: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """The same if the neighbourhood of each node is off by a small rigid motion, blended as the graph does: [n, 3]."""
    off, weights = np.zeros(points.shape), np.zeros((len(points), len(graph.centres)))
    np.put_along_axis(weights, graph.point_nodes, graph.point_weights, 1)
    for weight in weights.T:
        near = weight > 1e-6
        share, centre = weight[near], np.average(points[near], axis=0, weights=weight[near])
        x, y, z = (points[near] - centre).T
        none, one = np.zeros(len(x)), np.ones(len(x))
        # Displacement of a point by (ω, τ): ω × x + τ.
        basis = np.array(
            [[none, z, -y, one, none, none], [-z, none, x, none, one, none], [y, -x, none, none, none, one]]
        )
        lines = np.einsum("vnai,ijn->vnaj", slopes[:, near], basis)
        weighted = seen[:, near] * share
        A = np.einsum("vnai,vnaj,vn->ij", lines, lines, weighted)
        step = solved(A, np.einsum("vnai,vna,vn->i", lines, moved[:, near], weighted))
        off[near] += share[:, None] * np.einsum("ijn,j->ni", basis, step)
    return off


def visible(problem: Problem, points: np.ndarray, places: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Whether surface points, given their pixels and depths, are seen in each view: bool [V, n]."""
    level = problem.views.level(1.0, 1)
    V, H, W = level.targets.shape[1:4]
    canvas = Canvas(V, H, W)
    canvas.draw(problem.surface, points, problem.appearance.colors(problem.surface), level)
    at = np.floor(places * kernels.SUPER).astype(int)
    inside = ((at >= 0) & (at < kernels.SUPER * np.array([W, H]))).all(-1)
    columns, rows = np.moveaxis(np.where(inside[..., None], at, 0), -1, 0)
    return inside & (depths < canvas.depth[np.arange(V)[:, None], rows, columns] + _HIDDEN)


def floors(
    problem: Problem, points: np.ndarray, fields: np.ndarray, frames: Sequence[int]
) -> dict[str, np.ndarray]:
    """For each prior, by how much points are off in the mean of some frames: pixels at the model's centre, [n].

    Without a prior, points count in frames in which two views see them, and are NaN if there are none.

    Args:
        points: the true surface points in unit space, [T, n, 3].
        fields: of `benchmarks.animate.disturbances`.
    """
    views, surface = problem.views, problem.surface
    graphs = {count: make_graph(surface, count) for count in NEIGHBOURHOODS}
    sums, alone, counted = {count: np.zeros(len(surface.points)) for count in graphs}, 0.0, 0
    for frame in frames:
        places, slopes, depths = projected(points[frame], views.extrinsics, views.intrinsics)
        moved = np.stack([shifts(*each) for each in zip(fields, places, strict=True)])
        seen = visible(problem, points[frame], places, depths)
        known = seen.sum(0) > 1
        alone = alone + known * np.linalg.norm(triangulated(slopes, moved, seen), axis=-1)
        counted = counted + known
        for count, graph in graphs.items():
            off = rigidly(points[frame], graph, slopes, moved, seen)
            sums[count] += np.linalg.norm(off, axis=-1) / len(frames)
    result = {"each point, seen in two views": alone / np.where(counted > 0, counted, np.nan)}
    result |= {
        f"{count} rigid neighbourhoods" if count > 1 else "the whole rigid": each
        for count, each in sums.items()
    }
    return {prior: off * views.scale for prior, off in result.items()}
