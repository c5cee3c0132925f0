"""How far a motion stretches the edges of a mesh: a measure of tearing that needs no truth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_SHORTEST = 1e-6  # of the diagonal; shorter edges have no direction to be stretched in


def mesh_edges(triangles: np.ndarray) -> np.ndarray:
    """Return the edges int64 [E, 2] of triangles [F, 3], each once."""
    pairs = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64), axis=1)
    base = int(triangles.max(initial=0)) + 1
    codes = np.unique(pairs[:, 0] * base + pairs[:, 1])
    return np.stack([codes // base, codes % base], axis=1)


def edge_stretch(still: np.ndarray, frames: Iterable[np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Return the largest length of each edge over the frames, as a multiple of its length at rest.

    Args:
        still: [V, 3], vertices at rest.
        frames: of vertices [V, 3].
        edges: [E, 2]; those that have no length at rest are left out.
    """

    def lengths(vertices: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)

    rest = lengths(still)
    used = rest > _SHORTEST * float(np.linalg.norm(np.ptp(still, axis=0)))
    edges, rest = edges[used], rest[used]
    largest = np.ones(len(edges))
    for vertices in frames:
        np.maximum(largest, lengths(vertices) / rest, out=largest)
    return largest
