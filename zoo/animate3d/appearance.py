"""`Appearance`: the colours of the surface under the light of the videos, calibrated on their first frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.animate3d.colors import to_linear, to_srgb
from zoo.animate3d.surface import Surface
from zoo.animate3d.views import Canvas, Views

_ROUNDS = 6  # of the correction per vertex
_RIDGE = 1e-3  # pulls the light towards a constant one, per pixel


@dataclass(frozen=True)
class Appearance:
    """Colour of a shading vertex = sRGB(albedo · Y(normal) · light + emission) + correction.

    Attributes:
        light: float64 [9, 3], spherical harmonics of degree 2 of irradiance / π, linear.
        correction: float32 [N, 3], sRGB-encoded values.
    """

    light: np.ndarray
    correction: np.ndarray

    def colors(self, surface: Surface, turn: np.ndarray | None = None) -> np.ndarray:
        """Colours float32 [N, 3]; `turn` [n, 3, 3] rotates the normals of each point."""
        normals = surface.normals
        if turn is not None:
            normals = np.einsum("nij,nj->ni", turn[surface.point_of], normals)
            normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        linear = surface.albedo * np.maximum(_harmonics(normals) @ self.light, 0) + surface.emission
        return (to_srgb(linear) + self.correction).astype(np.float32)


def calibrate(surface: Surface, views: Views) -> Appearance:
    """Fit light and correction so that the still model looks like the first frame of the videos."""
    level = views.level(0.5, 1)
    V, H, W = level.targets.shape[1:4]
    canvas = Canvas(V, H, W)
    plain = np.zeros((len(surface.albedo), 3), np.float32)
    canvas.draw(surface, surface.points, plain, level)
    target = views.frames[0]
    inside = (canvas.image[..., 3] > 0.99) & (target[..., 3] > 0.99)
    vertices, weights = _corners(surface, canvas, inside)
    colors = target[inside][:, :3].astype(np.float64)
    light = _fit_light(surface, vertices, weights, to_linear(colors))
    appearance = Appearance(light, plain)
    base, correction = appearance.colors(surface), plain.astype(np.float64)
    # Simultaneous iterative reconstruction: each vertex moves by the weighted mean residual of its pixels.
    total = np.bincount(vertices.ravel(), weights.ravel(), len(base))
    for _ in range(_ROUNDS):
        shown = np.einsum("pk,pkc->pc", weights, (base + correction)[vertices])
        residual = weights[..., None] * (colors - shown)[:, None]
        for channel in range(3):
            sums = np.bincount(vertices.ravel(), residual[..., channel].ravel(), len(base))
            correction[:, channel] += sums / np.maximum(total, 0.5)
    return Appearance(light, correction.astype(np.float32))


def _corners(surface: Surface, canvas: Canvas, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shading vertices int [P, 3] and weights [P, 3] of the surface at the chosen pixels."""
    view = np.nonzero(pixels)[0]
    width = canvas.face.shape[2]
    row, column = np.divmod(canvas.sample[pixels], width)
    first = canvas.weights[view, row, column].astype(np.float64)
    weights = np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1)
    return surface.shading_faces[canvas.face[view, row, column]], weights


def _fit_light(surface: Surface, vertices: np.ndarray, weights: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Least squares of linear colours [P, 3] over the 9 coefficients of each channel."""
    normals = np.einsum("pk,pkc->pc", weights, surface.normals[vertices])
    basis = _harmonics(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9))
    light = np.zeros((9, 3))
    for channel in range(3):
        albedo = np.einsum("pk,pk->p", weights, surface.albedo[vertices, channel])
        emitted = np.einsum("pk,pk->p", weights, surface.emission[vertices, channel])
        A = basis * albedo[:, None]
        ridge = (
            _RIDGE
            * max(len(A), 1)
            * np.r_[1e-3, np.ones(8)]
            * max(float((albedo**2).mean()) if len(A) else 1, 1e-6)
        )
        light[:, channel] = np.linalg.solve(A.T @ A + np.diag(ridge), A.T @ (colors[:, channel] - emitted))
    return light


def _harmonics(normals: np.ndarray) -> np.ndarray:
    """Real spherical harmonics of degree 0-2 without constant factors: [..., 9]."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], -1)
