"""Fit the polynomials of `renderers.meshes.specular`: `python -m benchmarks.specular` prints them.

The integrals are computed by stratified sampling of the visible normals (Heitz 2018, "Sampling the GGX Distribution of
Visible Normals"), whose weights are G2 / G1 times the Fresnel term.
"""

from __future__ import annotations

import numpy as np

from renderers.meshes.specular import DEGREE_COSINE, DEGREE_ROUGHNESS, LEAST_ROUGHNESS


def lobe(cosine: float, roughness: float, side: int = 128) -> tuple[float, float, float, float]:
    """Integrate the GGX lobe over all directions of light.

    Args:
        cosine: between normal and direction of view, > 0.
        roughness: of glTF; alpha is its square.
        side: side² samples.

    Returns:
        A and B, so that Schlick's Fresnel term gives the albedo f0 * A + B; then the mean direction of the lobe as
        multiples of the normal and of the tangential part of the mirrored direction of view.
    """
    alpha = roughness**2
    sine = np.sqrt(1.0 - cosine**2)
    view = np.array([sine, 0.0, cosine])
    normals = _visible_normals(view, alpha, side)
    view_half = normals @ view
    light = 2.0 * view_half[:, None] * normals - view
    smith, smith_view = _smith(light[:, 2], alpha), _smith(cosine, alpha)
    weight = np.where(light[:, 2] > 0.0, (1.0 + smith_view) / (1.0 + smith_view + smith), 0.0)
    fresnel = (1.0 - np.clip(view_half, 0.0, 1.0)) ** 5
    albedo, edge = weight.mean(), (weight * fresnel).mean()
    mean = (weight[:, None] * light).mean(axis=0) / albedo
    return albedo - edge, edge, mean[2], -mean[0] / sine


def _visible_normals(view: np.ndarray, alpha: float, side: int) -> np.ndarray:
    """Unit half vectors [side², 3], distributed as the normals that are visible from `view`."""
    middles = (np.arange(side) + 0.5) / side
    u1, u2 = (grid.ravel() for grid in np.meshgrid(middles, middles))
    stretched = view * np.array([alpha, alpha, 1.0])
    stretched /= np.linalg.norm(stretched)
    across = np.array([-stretched[1], stretched[0], 0.0]) / np.hypot(stretched[0], stretched[1])
    along = np.cross(stretched, across)
    radius, angle = np.sqrt(u1), 2.0 * np.pi * u2
    t1 = radius * np.cos(angle)
    share = 0.5 * (1.0 + stretched[2])
    t2 = (1.0 - share) * np.sqrt(1.0 - t1**2) + share * radius * np.sin(angle)
    t3 = np.sqrt(np.maximum(0.0, 1.0 - t1**2 - t2**2))
    half = t1[:, None] * across + t2[:, None] * along + t3[:, None] * stretched
    half = np.column_stack([alpha * half[:, 0], alpha * half[:, 1], np.maximum(0.0, half[:, 2])])
    return half / np.linalg.norm(half, axis=1, keepdims=True)


def _smith(cosine: np.ndarray | float, alpha: float) -> np.ndarray:
    """Smith's Lambda of GGX."""
    tangent2 = 1.0 / np.maximum(np.asarray(cosine), 1e-9) ** 2 - 1.0
    return 0.5 * (np.sqrt(1.0 + alpha**2 * tangent2) - 1.0)


def fit(rows: int = 32, columns: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients [cosine power, roughness power, 4] and those of the mean albedo, one per power.

    Errors are weighted with the cosine, as the pixels of a sphere are.
    """
    roughness, cosine = np.linspace(LEAST_ROUGHNESS, 1.0, rows), np.linspace(0.02, 0.999, columns)
    values = np.array([[lobe(c, r) for c in cosine] for r in roughness])
    r, c = np.meshgrid(roughness, cosine, indexing="ij")
    powers = [(i, j) for i in range(DEGREE_COSINE + 1) for j in range(DEGREE_ROUGHNESS + 1)]
    terms = np.stack([(c**i * r**j).ravel() for i, j in powers], axis=1)
    weight = np.sqrt(c + 0.02).ravel()[:, None]
    solved, *_ = np.linalg.lstsq(terms * weight, values.reshape(-1, 4) * weight, rcond=None)
    albedo = values[..., 0] + values[..., 1]
    mean = 2.0 * np.trapezoid(albedo * cosine, cosine, axis=1) / (cosine[-1] ** 2 - cosine[0] ** 2)
    average = np.polynomial.polynomial.polyfit(roughness, mean, DEGREE_ROUGHNESS)
    return solved.reshape(DEGREE_COSINE + 1, DEGREE_ROUGHNESS + 1, 4), average


def main() -> None:
    coefficients, average = fit()
    print("LOBE = (")
    for row in coefficients:
        print("    (")
        for cell in row:
            print("        (" + ", ".join(f"{value:.4f}" for value in cell) + "),")
        print("    ),")
    print(")")
    print("MEAN_ALBEDO = (" + ", ".join(f"{value:.5f}" for value in average) + ")")


if __name__ == "__main__":
    main()
