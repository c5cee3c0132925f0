"""Blender imports creatures, and puts their vertices where we do. Skipped where `make blender` has not been run."""

from __future__ import annotations

import numpy as np
import pytest

from factory.sources import creatures
from renderers import gltf
from renderers.meshes import blender

pytestmark = [
    pytest.mark.blender,
    pytest.mark.slow,
    pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`"),
]

TIMES = [frame / 24 for frame in (0, 8, 15, 47)]
TOLERANCE = 1e-5  # of the bounding box's diagonal


@pytest.mark.parametrize("species", creatures.species())
def test_blender_agrees(species, tmp_path):
    path = tmp_path / "creature.glb"
    names = [motion.name for motion in creatures.motions(species)]
    path.write_bytes(creatures.build(species, 4, [names[3], names[55]]))
    asset = gltf.load(path)
    truth = blender.corner_positions(path, 1, TIMES)
    assert len(truth) == len(asset.primitives)
    diagonal = np.linalg.norm(np.ptp(asset.pose(1, 0.0).positions, axis=0))

    def farthest(late: float) -> float:
        return max(
            np.abs(
                asset.pose(1, time + late).positions[part.triangles] - truth[part.node, part.index][k]
            ).max()
            for k, time in enumerate(TIMES)
            for part in asset.primitives
        )

    assert farthest(0.0) / diagonal < TOLERANCE
    assert farthest(1 / 24) / diagonal > TOLERANCE  # one frame late must not pass
