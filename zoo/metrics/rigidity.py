"""Tearing of a deformed surface: points whose neighbours of the reference pose have moved away."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.arguments import integer, number
from zoo.metrics.checks import check_finite, check_tensors

NEIGHBOURS = 6  # nearest points in the reference pose
STRETCH = 1.5  # a point is torn off if its neighbours are more than this many times as far away
CHUNK = 2048  # rows per block of the distance matrix


def nearest_neighbours(points: Tensor, count: int = NEIGHBOURS) -> Tensor:
    """Indices of the `count` nearest other points of each point [N, 3], int64 [N, count], nearest first.

    Fewer columns are returned if there are fewer other points.
    """
    check_tensors("nearest_neighbours", "N 3", points=points)
    count = min(integer(count, "nearest_neighbours: count", 1), len(points) - 1)
    rows = []
    for start in range(0, len(points), CHUNK):
        apart = torch.cdist(points[start : start + CHUNK], points)
        # Excluded by index: a point that coincides with others is not always the first of its own row.
        apart.diagonal(start).fill_(torch.inf)
        rows.append(apart.topk(count, largest=False).indices)
    return torch.cat(rows)


def torn_share(
    positions: Tensor, reference: Tensor, *, neighbours: int = NEIGHBOURS, stretch: float = STRETCH
) -> Tensor:
    """Share of points that are torn off their neighbourhood, per frame.

    With the neighbours j ∈ 𝒩_i of point i in the reference pose, point i is torn off in frame t if

        median_j ( ‖x_j(t) − x_i(t)‖ / ‖x_j(0) − x_i(0)‖ ) > stretch.

    It is 0 for rigid motions, and near 0 for bending, which stretches few neighbourhoods as a whole. It does not depend
    on the scale of the points. Unlike an energy, it does not grow with the size of a motion, and it counts single stray
    points, which an average hides.

    Args:
        positions: points x_i(t), [T, N, 3].
        reference: the same points in the reference pose, [N, 3].
        neighbours: number of neighbours, at least 1.
        stretch: threshold, at least 0.

    Returns:
        [T] in [0, 1]; 0 where there are fewer than two points.
    """
    sizes = check_tensors("torn_share", "T N 3", positions=positions)
    check_tensors("torn_share", "N 3", reference=reference)
    if len(reference) != sizes["N"]:
        raise ValueError(
            f"torn_share: expected one reference for each of {sizes['N']} points, got {len(reference)}"
        )
    check_finite("torn_share", positions=positions, reference=reference)
    stretch = number(stretch, "torn_share: stretch", 0.0)
    if sizes["N"] < 2:
        return positions.new_zeros(sizes["T"])
    return torn_points(positions, reference, neighbours=neighbours, stretch=stretch).float().mean(-1)


def torn_points(
    positions: Tensor, reference: Tensor, *, neighbours: int = NEIGHBOURS, stretch: float = STRETCH
) -> Tensor:
    """The points that `torn_share` counts, bool [T, N], for at least two points; its arguments are not checked."""
    nearest = nearest_neighbours(reference, neighbours)
    return torch.cat([median_stretch(frame[None], reference, nearest) > stretch for frame in positions])


def median_stretch(positions: Tensor, reference: Tensor, nearest: Tensor) -> Tensor:
    """How many times as far away as in the reference pose a point's neighbours are, in the median, [T, N].

    It is differentiable; arguments are not checked.

    Args:
        positions: points, [T, N, 3].
        reference: the same points in the reference pose, [N, 3].
        nearest: `nearest_neighbours` of the reference, [N, J].
    """
    ratios = _distances(positions, nearest) / _distances(reference, nearest).clamp(min=1e-9)
    middle = [(nearest.shape[1] - 1) // 2, nearest.shape[1] // 2]
    return ratios.sort(dim=-1).values[..., middle].mean(-1)


def _distances(points: Tensor, nearest: Tensor) -> Tensor:
    """Distances [..., N, J] of points [..., N, 3] from their neighbours [N, J]. Their gradient at 0 is finite."""
    squared = (points[..., nearest, :] - points[..., :, None, :]).square().sum(-1)
    return squared.clamp(min=1e-24).sqrt()
