"""Which triangles are solid, which need blending or masking, and which cannot be seen at all.

Exporters give whole models alpha mode BLEND for the sake of a few feathers. Looking up, per triangle, the part of
the alpha texture that it can touch sorts that out once per asset: solid triangles are drawn without tests and
sorting, and invisible ones neither cost time nor count when a clip is framed.
"""

from __future__ import annotations

import numpy as np

from renderers.gltf import Asset, Primitive, Texture

SOLID, MIXED, INVISIBLE = 0, 1, 2
SOLID_ALPHA = 0.99  # a blended fragment at least this opaque hides what is behind it
FAINTEST_ALPHA = 0.5 / 255.0
_BORDER = 2  # texels that filtering may reach beyond a triangle's own


def triangle_opacity(asset: Asset) -> list[np.ndarray]:
    """For each primitive uint8 [F]: SOLID, MIXED or INVISIBLE."""
    tables: dict[tuple, _TexelCounts] = {}
    return [_primitive_opacity(asset, primitive, tables) for primitive in asset.primitives]


def visible_vertices(asset: Asset) -> np.ndarray:
    """Sorted indices of the vertices some triangle that can be seen uses."""
    seen = [
        np.unique(p.triangles[opacity != INVISIBLE])
        for p, opacity in zip(asset.primitives, triangle_opacity(asset), strict=True)
    ]
    return np.unique(np.concatenate(seen)) if seen else np.empty(0, np.int64)


def _primitive_opacity(asset: Asset, primitive: Primitive, tables: dict) -> np.ndarray:
    material, triangles = asset.materials[primitive.material], primitive.triangles
    if material.alpha_mode == "OPAQUE":
        return np.zeros(len(triangles), np.uint8)
    masked = material.alpha_mode == "MASK"
    solid_at = material.alpha_cutoff if masked else SOLID_ALPHA
    visible_at = material.alpha_cutoff if masked else FAINTEST_ALPHA
    alpha = material.base_color[3] * asset.colors[:, 3][triangles]
    low, high = float(alpha.min()), float(alpha.max())
    texture = material.base_color_texture
    if texture is None:
        solid, visible = alpha.min(axis=1) >= solid_at, alpha.max(axis=1) >= visible_at
    else:
        key = (id(texture.image), low, high, solid_at, visible_at)
        if key not in tables:
            texels = texture.image[..., 3] / np.float32(255.0)
            tables[key] = _TexelCounts(texels * low < solid_at, texels * high >= visible_at)
        solid, visible = _texture_answers(asset, primitive, texture, tables[key])
    return np.where(visible, np.where(solid, SOLID, MIXED), INVISIBLE).astype(np.uint8)


class _TexelCounts:
    """Summed-area tables of the texels that are not solid, and of those that are visible."""

    def __init__(self, not_solid: np.ndarray, visible: np.ndarray) -> None:
        self.height, self.width = visible.shape
        self.not_solid, self.visible = _summed(not_solid), _summed(visible)


def _summed(texels: np.ndarray) -> np.ndarray:
    table = np.zeros((texels.shape[0] + 1, texels.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(texels, axis=0, dtype=np.int64), axis=1, out=table[1:, 1:])
    return table


def _texture_answers(
    asset: Asset, primitive: Primitive, texture: Texture, counts: _TexelCounts
) -> tuple[np.ndarray, np.ndarray]:
    """(solid, visible) bool [F] from the texels under each triangle's box of texture coordinates."""
    uv = asset.texcoords[:, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
    uv = uv @ texture.transform[:2, :2].T + texture.transform[:2, 2]
    corners = uv[primitive.triangles].astype(np.float64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    tile = np.floor(low)  # repeats are moved into the first tile; a box that crosses tiles counts all texels
    whole = np.any(high - tile > 1.0, axis=1) | ((texture.wrap_s, texture.wrap_t) != ("repeat", "repeat"))
    whole &= np.any((low < 0.0) | (high > 1.0), axis=1)
    size = np.array([counts.width, counts.height])
    tile = np.where(whole[:, None], 0.0, tile)
    first = np.clip(np.floor((low - tile) * size).astype(np.int64) - _BORDER, 0, size)
    last = np.clip(np.ceil((high - tile) * size).astype(np.int64) + _BORDER, 0, size)
    first[whole], last[whole] = 0, size

    def count(table: np.ndarray) -> np.ndarray:
        (x0, y0), (x1, y1) = first.T, last.T
        return table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0]

    return count(counts.not_solid) == 0, count(counts.visible) > 0
