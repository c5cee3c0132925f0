"""Distributions of colours, and their distance."""

from __future__ import annotations

import numpy as np

from factory.generation.judging.flow import opencv

QUANTILES = np.linspace(0.02, 0.98, 49)  # of the distributions of colours
LIGHTNESS_WEIGHT = 0.4  # of L* against a* and b*: shading changes when an object turns, hue less


def color_quantiles(colors: np.ndarray) -> np.ndarray:
    """Quantiles [49, 3] of L*, a*, b* of colours uint8 [N, 3]."""
    cv2 = opencv()
    lab = cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return np.quantile(lab, QUANTILES, axis=0)


def color_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two distributions from `color_quantiles`, CIELAB units."""
    return float(np.linalg.norm(np.abs(a - b).mean(0) * (LIGHTNESS_WEIGHT, 1, 1)))
