"""A coloured triangle mesh around 3D Gaussians: the level set of their summed density."""

from __future__ import annotations

import numpy as np
import torch

from renderers.arguments import array, integer, number
from zoo.export.animation import Mesh

MOST_DETAIL = 1024  # cells along the longest side
CUTOFF = 2.5  # standard deviations, beyond which a Gaussian's density is ignored
MARGIN = 16  # cells around the object, and the largest radius in cells that one Gaussian contributes to
THINNEST = 0.5  # cells; thinner Gaussians are widened, since they would fall between the samples
SAMPLES_PER_BATCH = 1 << 20  # bounds memory


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
    """Extract the surface of N Gaussians with surface nets (Gibson 1998) on a regular grid.

    The density at x is Σ_n o_n exp(−½ (x − μ_n)ᵀ Σ_n⁻¹ (x − μ_n)), with opacity o_n. Cavities that cannot be reached
    from outside are filled.

    Args:
        means: float64 [N, 3], μ.
        rotations: float64 [N, 3, 3], from the Gaussian's axes to the world.
        scales: float64 [N, 3], standard deviations along the Gaussian's axes.
        opacities: float64 [N].
        colors: float64 [N, 3] in 0..1.
        detail: cells along the longest side.
        level: density of the surface; half of the highest density if that is lower.
    """
    detail = integer(detail, "gaussian_surface: detail", 1, MOST_DETAIL)
    level = number(level, "gaussian_surface: level", above=0.0)
    N = len(array(means, "gaussian_surface: means", ("N", 3)))
    if not N:
        raise ValueError("gaussian_surface: means: expected at least one Gaussian, got none")
    shapes = {"rotations": (N, 3, 3), "scales": (N, 3), "opacities": (N,), "colors": (N, 3)}
    for (name, shape), values in zip(shapes.items(), (rotations, scales, opacities, colors), strict=True):
        array(values, f"gaussian_surface: {name}", shape)
    low, high = np.percentile(means, [0.05, 99.95], axis=0)  # stray Gaussians must not enlarge the cells
    cell = max(float((high - low).max()), 1e-6) / detail
    inside = ((means >= low - MARGIN * cell / 2) & (means <= high + MARGIN * cell / 2)).all(1)
    scales = np.maximum(scales, THINNEST * cell)
    origin = low - 1.5 * MARGIN * cell - cell
    sides = np.ceil((high - low) / cell).astype(int) + 3 * MARGIN + 3
    density, weighted_color = _accumulate(
        (means[inside] - origin) / cell,
        rotations[inside],
        scales[inside] / cell,
        opacities[inside],
        colors[inside],
        (int(sides[0]), int(sides[1]), int(sides[2])),
    )
    for axis in range(3):  # close the surface at the border of the grid
        np.moveaxis(density, axis, 0)[[0, -1]] = 0.0
    level = min(level, 0.5 * float(density.max()))
    points, triangles = _surface_nets(_fill_cavities(density, level), level)
    gradients = np.stack(np.gradient(density), -1)
    normals = -_sample(gradients, points)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    color = _sample(weighted_color, points) / np.maximum(_sample(density[..., None], points), 1e-9)
    return Mesh(origin + points * cell, normals, color.clip(0, 1), triangles, material="splats")


def _accumulate(
    means: np.ndarray,
    rotations: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    shape: tuple[int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Density [X, Y, Z] and density times colour [X, Y, Z, 3] of Gaussians given in units of cells.

    With P = Σ⁻¹, and the mean at a grid point plus a subcell shift s, the exponent at a whole offset o from the grid
    point is (o − s)ᵀ P (o − s) = oᵀ P o − 2 (P s)ᵀ o + sᵀ P s: a polynomial in o, so that one matrix product
    evaluates all Gaussians at all offsets.
    """
    whiten = rotations.transpose(0, 2, 1) / scales[:, :, None]
    precisions = whiten.transpose(0, 2, 1) @ whiten
    nearest = np.rint(means)
    shift = means - nearest
    linear = -2.0 * np.einsum("nij,nj->ni", precisions, shift)
    constant = np.einsum("nij,ni,nj->n", precisions, shift, shift)
    coefficients = _float32(np.concatenate([precisions.reshape(-1, 9), linear, constant[:, None]], 1))
    values = _float32(
        np.concatenate([np.ones((len(means), 1)), colors], 1)
    )  # 1 accumulates the density itself
    opacity = _float32(opacities)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    cells = torch.as_tensor(nearest.astype(np.int64) @ strides)
    total = torch.zeros(int(np.prod(shape)), 4)
    # Gaussians with the same window size in cells are evaluated together.
    window_sizes = np.minimum(np.ceil(CUTOFF * scales.max(1)), MARGIN)
    for half in range(1, MARGIN + 1):
        members = torch.as_tensor(np.flatnonzero(window_sizes == half))
        window = np.arange(-half, half + 1)
        offsets = np.stack(np.meshgrid(window, window, window, indexing="ij"), -1).reshape(-1, 3)
        products = (offsets[:, :, None] * offsets[:, None, :]).reshape(-1, 9)
        monomials = _float32(np.concatenate([products, offsets, np.ones((len(offsets), 1))], 1).T)
        neighbours = torch.as_tensor(offsets @ strides)
        for batch in members.split(max(1, SAMPLES_PER_BATCH // len(offsets))):
            weight = opacity[batch, None] * (-0.5 * (coefficients[batch] @ monomials)).exp()
            index = (cells[batch, None] + neighbours).reshape(-1)
            total.index_add_(0, index, (weight[..., None] * values[batch, None]).reshape(-1, 4))
    grid = total.reshape(*shape, 4).double().numpy()
    return grid[..., 0], grid[..., 1:]


def _float32(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float32)


def _fill_cavities(density: np.ndarray, level: float) -> np.ndarray:
    """The density, raised above the level where no path from outside leads: Gaussians are trained on the skin only."""
    free = density < level
    outside = np.zeros_like(free)
    outside[0] = free[0]
    count = -1
    while count != (count := int(outside.sum())):
        for axis in range(3):
            o, f = np.moveaxis(outside, axis, 0), np.moveaxis(free, axis, 0)
            # A sweep crosses the whole grid, so a few rounds fill any shape.
            for i in range(1, len(o)):
                o[i] |= o[i - 1] & f[i]
            for i in range(len(o) - 2, -1, -1):
                o[i] |= o[i + 1] & f[i]
    return np.where(free & ~outside, 2 * level, density)


def _surface_nets(density: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [P, 3] in units of cells, one in every cell that the surface crosses, and outward triangles [F, 3].

    The vertex is the mean of the points where the cell's edges cross the level. Every crossed edge gives a quad of
    the four cells around it. The density must be below the level at the border of the grid.
    """
    inside = density >= level
    crossings_by_axis, rings_by_axis = [], []
    for axis in range(3):
        step = np.eye(3, dtype=int)
        start, end = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        edges = np.argwhere(inside[start] != inside[end])
        first, second = density[start][tuple(edges.T)], density[end][tuple(edges.T)]
        crossings_by_axis.append(edges + ((level - first) / (second - first))[:, None] * step[axis])
        u, v = step[(axis + 1) % 3], step[(axis + 2) % 3]
        ring = np.stack([edges, edges - u, edges - u - v, edges - v], 1)
        # Counter-clockwise seen from +axis, which is outside if the edge starts inside.
        rings_by_axis.append(np.where((first >= level)[:, None, None], ring, ring[:, ::-1]))
    crossings, rings = np.concatenate(crossings_by_axis), np.concatenate(rings_by_axis)
    flat = np.ravel_multi_index(tuple(np.moveaxis(rings, -1, 0)), density.shape)
    _, quads = np.unique(flat, return_inverse=True)
    quads = quads.reshape(flat.shape)
    counts = np.bincount(quads.ravel())
    points = [np.bincount(quads.ravel(), np.repeat(crossings[:, i], 4)) / counts for i in range(3)]
    return np.stack(points, 1), np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _sample(grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Trilinear interpolation of a grid [X, Y, Z, C] at points [P, 3] in units of cells: values [P, C]."""
    base = np.clip(np.floor(points).astype(int), 0, np.array(grid.shape[:3]) - 2)
    fraction = points - base
    value = np.zeros((len(points), grid.shape[3]))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(np.array(corner) == 1, fraction, 1 - fraction).prod(1)
        value += weight[:, None] * grid[tuple((base + corner).T)]
    return value
