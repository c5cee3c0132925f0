"""Base colour and emission of an asset at its vertices."""

from __future__ import annotations

import numpy as np

from renderers.gltf import Asset, Material, Texture

_SMALLEST_FOOTPRINT = 1.5  # texels; textures are not reduced below it


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """Decode sRGB values in 0-1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Encode linear values, clipped to 0-1, as sRGB."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def vertex_albedo(
    asset: Asset, positions: np.ndarray, triangles: np.ndarray, footprint: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample materials at the vertices.

    Args:
        asset: gives materials, texture coordinates and vertex colours.
        positions: float [N, 3].
        triangles: int [F, 3], all triangles.
        footprint: the length that a sample is the mean of, in the unit of `positions`.
    Returns:
        base colour [N, 3] and emission [N, 3], linear, and opacity [N].
    """
    base = asset.colors.astype(np.float64).copy()
    emission = np.zeros((len(base), 3))
    for primitive in asset.primitives:
        material, own = asset.materials[primitive.material], primitive.vertices
        base[own] *= np.asarray(material.base_color)
        emission[own] = np.asarray(material.emissive)
        corners = primitive.triangles.astype(np.int64)
        for texture, target, channels in (
            (material.base_color_texture, base, 4),
            (material.emissive_texture, emission, 3),
        ):
            if texture is None:
                continue
            uv = _coordinates(asset, texture)
            image = _reduced(texture, uv, positions, corners, footprint)
            target[own] *= _sample(image, uv[own], texture)[:, :channels]
    opacity = base[:, 3].copy()
    for primitive in asset.primitives:
        material, own = asset.materials[primitive.material], primitive.vertices
        opacity[own] = _opacity(material, opacity[own])
    return base[:, :3], emission, opacity


def _opacity(material: Material, alpha: np.ndarray) -> np.ndarray:
    if material.alpha_mode == "OPAQUE":
        return np.ones_like(alpha)
    return (alpha >= material.alpha_cutoff).astype(float) if material.alpha_mode == "MASK" else alpha


def _coordinates(asset: Asset, texture: Texture) -> np.ndarray:
    uv = asset.texcoords[:, texture.texcoord].astype(np.float64)
    return uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]


def _reduced(
    texture: Texture, uv: np.ndarray, positions: np.ndarray, triangles: np.ndarray, footprint: float
) -> np.ndarray:
    """The linear image, box-filtered so that one texel is about as large as `footprint` on the surface."""
    image = texture.image.astype(np.float64) / 255
    image[..., :3] = to_linear(image[..., :3])
    height, width = image.shape[:2]
    a, b, c = (positions[triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    p, q, r = (uv[triangles[:, i]] * (width, height) for i in range(3))
    texels = np.abs((q - p)[:, 0] * (r - p)[:, 1] - (q - p)[:, 1] * (r - p)[:, 0]).sum()
    if area <= 0 or not np.isfinite(texels):
        return image
    factor = footprint * np.sqrt(texels / area) / _SMALLEST_FOOTPRINT
    while factor >= 2 and min(image.shape[:2]) >= 4:
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 4).mean((1, 3))
        factor /= 2
    return image


def _sample(image: np.ndarray, uv: np.ndarray, texture: Texture) -> np.ndarray:
    """Interpolate an image [H, W, 4] bilinearly at texture coordinates [n, 2] (0, 0 = top left corner)."""
    height, width = image.shape[:2]
    x, y = np.nan_to_num(uv).T * np.array([[width], [height]]) - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    columns = [_wrap(left + i, width, texture.wrap_s) for i in (0, 1)]
    rows = [_wrap(top + i, height, texture.wrap_t) for i in (0, 1)]
    upper = image[rows[0], columns[0]] * (1 - fx) + image[rows[0], columns[1]] * fx
    lower = image[rows[1], columns[0]] * (1 - fx) + image[rows[1], columns[1]] * fx
    return upper * (1 - fy) + lower * fy


def _wrap(index: np.ndarray, size: int, mode: str) -> np.ndarray:
    if mode == "clamp":
        return np.clip(index, 0, size - 1)
    if mode == "mirror":
        index = index % (2 * size)
        return np.where(index < size, index, 2 * size - 1 - index)
    return index % size
