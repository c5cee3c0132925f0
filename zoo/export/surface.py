"""A coloured triangle mesh around 3D Gaussians: where their summed density falls below a level."""

from __future__ import annotations

import numpy as np
import torch

from zoo.export.animation import Mesh

REACH = 2.5  # standard deviations after which a Gaussian adds nothing
MARGIN = 16  # cells around the object, and the furthest that one Gaussian reaches
THINNEST = 0.5  # cells; a flatter splat would slip between the samples
AT_ONCE = 1 << 20  # samples evaluated together, which bounds memory


def gaussian_surface(
    means: np.ndarray,
    rotations: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    *,
    detail: int = 128,
    level: float = 0.5,
) -> Mesh:
    """The surface of N Gaussians, by surface nets (Gibson 1998) on a grid.

    Args:
        means [N, 3], rotations [N, 3, 3], scales [N, 3], opacities [N], colors [N, 3] in 0..1.
        detail: cells along the longest side.
        level: summed density there; where nothing is that dense, half of the highest density.
    """
    low, high = np.percentile(means, [0.05, 99.95], axis=0)  # a stray splat must not make the cells large
    cell = max(float((high - low).max()), 1e-6) / detail
    inside = ((means >= low - MARGIN * cell / 2) & (means <= high + MARGIN * cell / 2)).all(1)
    scales = np.maximum(scales, THINNEST * cell)
    origin = low - 1.5 * MARGIN * cell - cell
    shape = tuple(np.ceil((high - low) / cell).astype(int) + 3 * MARGIN + 3)
    density, colour = _accumulate(
        (means[inside] - origin) / cell,
        rotations[inside],
        scales[inside] / cell,
        opacities[inside],
        colors[inside],
        shape,
    )
    for axis in range(3):  # closed at the border of the grid, whatever reaches beyond it
        np.moveaxis(density, axis, 0)[[0, -1]] = 0.0
    level = min(level, 0.5 * float(density.max()))
    filled = _filled(density, level)
    points, triangles = _surface_nets(filled, level)
    gradients = np.stack(np.gradient(density), -1)
    normals = -_sample(gradients, points)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    paint = _sample(colour, points) / np.maximum(_sample(density[..., None], points), 1e-9)
    return Mesh(origin + points * cell, normals, paint.clip(0, 1), triangles, material="splats")


def _accumulate(
    means: np.ndarray,
    rotations: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    shape,
) -> tuple[np.ndarray, np.ndarray]:
    """Density [X, Y, Z] and density times colour [X, Y, Z, 3] of Gaussians given in units of cells."""
    whiten = rotations.transpose(0, 2, 1) / scales[:, :, None]
    precisions = whiten.transpose(0, 2, 1) @ whiten
    nearest = np.rint(means)
    shift = means - nearest
    # (o − s)ᵀ P (o − s) at whole offsets o is a polynomial in o: for all Gaussians and offsets, one matrix product.
    linear = -2.0 * np.einsum("nij,nj->ni", precisions, shift)
    constant = np.einsum("nij,ni,nj->n", precisions, shift, shift)
    polynomial = np.concatenate([precisions.reshape(-1, 9), linear, constant[:, None]], 1)
    polynomial, paint, opacity = (
        torch.as_tensor(array, dtype=torch.float32)
        for array in (polynomial, np.concatenate([np.ones((len(means), 1)), colors], 1), opacities)
    )
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    places = torch.as_tensor(nearest.astype(np.int64) @ strides)
    total = torch.zeros(int(np.prod(shape)), 4)
    # Windows grow in steps, so that Gaussians of about one size are evaluated together.
    steps = np.arange(1, MARGIN + 1)
    reach = np.minimum(np.ceil(REACH * scales.max(1)), MARGIN)
    for half in steps:
        chosen = torch.as_tensor(np.flatnonzero(reach == half))
        window = np.arange(-half, half + 1)
        offsets = np.stack(np.meshgrid(window, window, window, indexing="ij"), -1).reshape(-1, 3)
        products = (offsets[:, :, None] * offsets[:, None, :]).reshape(-1, 9)
        powers = np.concatenate([products, offsets, np.ones((len(offsets), 1))], 1)
        powers, near = torch.as_tensor(powers.T, dtype=torch.float32), torch.as_tensor(offsets @ strides)
        for some in chosen.split(max(1, AT_ONCE // len(offsets))):
            weight = opacity[some, None] * (-0.5 * (polynomial[some] @ powers)).exp()
            index = (places[some, None] + near).reshape(-1)
            total.index_add_(0, index, (weight[..., None] * paint[some, None]).reshape(-1, 4))
    total = total.reshape(*shape, 4).double().numpy()
    return total[..., 0], total[..., 1:]


def _filled(density: np.ndarray, level: float) -> np.ndarray:
    """The density with what no path from outside reaches made solid: splats learn a skin, not what is under it."""
    free = density < level
    outside = np.zeros_like(free)
    outside[0] = free[0]
    count = -1
    while count != (count := int(outside.sum())):
        for axis in range(3):
            o, f = np.moveaxis(outside, axis, 0), np.moveaxis(free, axis, 0)
            for i in range(1, len(o)):  # sweeps carry far: a handful of rounds fill any shape
                o[i] |= o[i - 1] & f[i]
            for i in range(len(o) - 2, -1, -1):
                o[i] |= o[i + 1] & f[i]
    return np.where(free & ~outside, 2 * level, density)


def _surface_nets(density: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """One vertex in every cell that the surface crosses, [P, 3] in cells, and triangles [F, 3], outward.

    The vertex is the mean of the points where the cell's edges cross the level; every such edge makes a quad of the
    four cells around it. The border of the grid must be below the level.
    """
    inside = density >= level
    crossings, rings = [], []
    for axis in range(3):
        step = np.eye(3, dtype=int)
        start, end = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        edges = np.argwhere(inside[start] != inside[end])
        here, there = density[start][tuple(edges.T)], density[end][tuple(edges.T)]
        crossings.append(edges + ((level - here) / (there - here))[:, None] * step[axis])
        u, v = step[(axis + 1) % 3], step[(axis + 2) % 3]
        ring = np.stack([edges, edges - u, edges - u - v, edges - v], 1)
        # Counter-clockwise seen from +axis, which is outside where the edge begins inside.
        rings.append(np.where((here >= level)[:, None, None], ring, ring[:, ::-1]))
    crossings, rings = np.concatenate(crossings), np.concatenate(rings)
    flat = np.ravel_multi_index(tuple(np.moveaxis(rings, -1, 0)), density.shape)
    _, quads = np.unique(flat, return_inverse=True)
    quads = quads.reshape(flat.shape)
    counts = np.bincount(quads.ravel())
    points = [np.bincount(quads.ravel(), np.repeat(crossings[:, i], 4)) / counts for i in range(3)]
    return np.stack(points, 1), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _sample(grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Trilinear values [P, C] of a grid [X, Y, Z, C] at points in cells."""
    base = np.clip(np.floor(points).astype(int), 0, np.array(grid.shape[:3]) - 2)
    part = points - base
    value = np.zeros((len(points), grid.shape[3]))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(np.array(corner) == 1, part, 1 - part).prod(1)
        value += weight[:, None] * grid[tuple((base + corner).T)]
    return value
