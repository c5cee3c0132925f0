"""Models that are hard to animate: very large ones and surfaces that are no manifold, from the file to the result."""

from __future__ import annotations

import numpy as np
import pytest
from graph_motions import graph_motion, grid

from zoo.animate3d import Animation, animate, cameras_around, load_model
from zoo.errors import ModelError

pytestmark = pytest.mark.slow


def sheet(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A bulging patch of size² vertices."""
    vertices, _, _, triangles = grid(size)
    return vertices * [1.0, 1.0, 2.0], triangles


def followed(model, frames: int = 4, side: int = 64) -> tuple[Animation, Animation]:
    """A model that follows the videos of a known motion, and the truth."""
    truth = Animation(model, graph_motion(model.asset, nodes=4, frames=frames, seconds=0.3), "wave")
    cameras = cameras_around(model.asset, [0.0, 90.0, 180.0, 270.0], size=side)
    videos = truth.render(cameras, background=None, backend="cpu")
    return animate(model, videos=videos, cameras=cameras, fps=10), truth


def test_more_than_two_million_vertices_end_in_a_sentence():
    with pytest.raises(ModelError, match="vertices, expected at most"):
        load_model(sheet(1420), name="sheet")


def flaps() -> tuple[np.ndarray, np.ndarray]:
    """Four sheets that share one edge loop, a triangle twice, one without area, and two that touch in a point."""
    vertices, triangles = sheet(7)
    turned = [vertices @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) for c, s in ((1, 0), (0, 1), (-1, 0))]
    merged, owner = np.unique(np.concatenate(turned).round(6), axis=0, return_inverse=True)
    faces = owner.reshape(-1)[np.concatenate([triangles + i * len(vertices) for i in range(3)])]
    first, tip = faces[0], len(merged)
    merged = np.concatenate([merged, [[1.2, 0.2, 0.0], [1.2, -0.2, 0.0], [1.4, 0.3, 0.2], [1.4, -0.1, 0.2]]])
    extra = [first, [first[0], first[0], first[1]], [0, tip, tip + 1], [tip, tip + 2, tip + 3]]
    return merged, np.concatenate([faces, extra])


def test_a_surface_that_is_no_manifold(tmp_path):
    """It follows its videos, starts as the still model, and does not tear more than the truth.

    The most stretched edge of all is left out: one of a triangle of two pixels that hangs by a single point.
    """
    model = load_model(flaps(), name="flaps")
    result, truth = followed(model, side=96)
    moved, expected = result.vertices(), truth.vertices()
    assert np.isfinite(moved).all()
    assert np.abs(moved[0] - model.vertices()).max() < 1e-6 * model.diagonal()
    error = np.linalg.norm(moved - expected, axis=-1).mean()
    assert error < 0.5 * np.linalg.norm(expected - expected[0], axis=-1).mean()
    assert result.edge_stretch() < 1.05 * truth.edge_stretch()
    assert result.error() < 1e-3 and result.save(tmp_path / "flaps.glb").stat().st_size > 0
