"""The reflection model of `renderers.meshes.specular` in NumPy."""

from __future__ import annotations

import numpy as np

from renderers.meshes.specular import LOBE, MEAN_ALBEDO


def lobe_terms(cosine: np.ndarray, roughness: np.ndarray) -> np.ndarray:
    """Evaluate the fits: A, B and the two factors of the mean direction, [..., 4].

    Args:
        cosine: between normal and view, 0-1.
        roughness: of glTF, LEAST_ROUGHNESS-1.
    """
    terms = np.polynomial.polynomial.polyval2d(cosine, roughness, np.array(LOBE))
    return np.moveaxis(terms, 0, -1)


def albedo(cosine: np.ndarray, roughness: float, f0: float) -> np.ndarray:
    """Share of the light that a surface reflects from its facets, with all reflections between them.

    Args:
        cosine: between normal and view, 0-1.
        roughness: of glTF, LEAST_ROUGHNESS-1.
        f0: reflectance at normal incidence.
    """
    a, b = np.moveaxis(lobe_terms(cosine, np.full_like(cosine, roughness))[..., :2].clip(0.0), -1, 0)
    excess = np.maximum(a + b, 1.0)  # the fit exceeds 1 by up to 2 % for smooth surfaces
    a, b = a / excess, b / excess
    once = np.maximum(a + b, 0.05)
    mean = np.polynomial.polynomial.polyval(roughness, MEAN_ALBEDO)
    fresnel = f0 * 20.0 / 21.0 + 1.0 / 21.0
    further = fresnel * mean / (1.0 - fresnel * (1.0 - mean))
    return (f0 * a + b) * (1.0 + further * (1.0 - once) / once)
