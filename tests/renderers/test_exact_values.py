"""Small functions of the renderers against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_gltf import moving

from renderers import gltf
from renderers.meshes.clip import composite


@pytest.mark.parametrize("background", [(127, 127, 127), (255, 255, 255), (0, 10, 200)])
def test_compositing_rounds_to_the_nearest_level(background):
    """c·a + b·(1 − a) of all bytes c and alphas a, in double precision."""
    color, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    frames = np.stack([color, color, color, alpha], -1).astype(np.uint8)
    weight = alpha[..., None] / 255
    exact = color[..., None] * weight + np.array(background) * (1 - weight)
    found = composite(frames, background)
    assert found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 0.5 + 1e-9


def test_the_key_interval_is_the_median():
    """Keys 0.1 s apart with one long pause: the pause is no interval of a cycle."""
    times = [0.0, 0.1, 0.2, 0.3, 1.3]
    tiny = moving("translation", times, [[t, 0, 0] for t in times])
    (animation,) = gltf.load(tiny.glb()).animations
    assert animation.key_interval == pytest.approx(0.1, abs=1e-6)
    assert animation.duration == pytest.approx(1.3)
