"""Classify triangles as solid, mixed (in need of blending or masking) or invisible.

Exporters set alpha mode BLEND on whole models for the sake of a few feathers. Testing the texels that each triangle can
touch, once per asset, allows solid triangles to be drawn without blending and sorting, and invisible ones to be skipped
and to be ignored when a clip is framed.
"""

from __future__ import annotations

from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np

from renderers import fixed
from renderers.gltf import Asset, Primitive, Texture

SOLID, MIXED, INVISIBLE = 0, 1, 2
SOLID_ALPHA = 0.99  # a blended fragment with at least this alpha hides what is behind it
FAINTEST_ALPHA = 0.5 / 255.0  # fragments with less alpha are invisible
_BORDER = 2  # texels beyond a triangle's own that filtering may read


_OPACITIES: WeakKeyDictionary[Asset, list[np.ndarray]] = WeakKeyDictionary()


def triangle_opacity(asset: Asset) -> list[np.ndarray]:
    """Return, per primitive, uint8 [F]: SOLID, MIXED or INVISIBLE.

    Remembered while the asset exists: a clip is planned and drawn with it, and so are the next clips of the asset.
    """
    if asset not in _OPACITIES:
        tables: dict[tuple, _TexelCounts] = {}
        opacities = [_primitive_opacity(asset, primitive, tables) for primitive in asset.primitives]
        for opacity in opacities:
            opacity.flags.writeable = False
        _OPACITIES[asset] = opacities
    return list(_OPACITIES[asset])


def visible_vertices(asset: Asset) -> np.ndarray:
    """Return the sorted indices of the vertices that a visible triangle uses."""
    used = [
        np.unique(p.triangles[opacity != INVISIBLE])
        for p, opacity in zip(asset.primitives, triangle_opacity(asset), strict=True)
    ]
    return np.unique(np.concatenate(used)) if used else np.empty(0, np.int64)


def _primitive_opacity(asset: Asset, primitive: Primitive, tables: dict[tuple, _TexelCounts]) -> np.ndarray:
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
        solid, visible = _classify_by_texture(asset, primitive, texture, tables[key])
    return np.where(visible, np.where(solid, SOLID, MIXED), INVISIBLE).astype(np.uint8)


class _TexelCounts:
    """Summed-area tables of non-solid and of visible texels."""

    def __init__(self, not_solid: np.ndarray, visible: np.ndarray) -> None:
        self.height, self.width = visible.shape
        self.not_solid, self.visible = _summed(not_solid), _summed(visible)


def _summed(texels: np.ndarray) -> np.ndarray:
    """Summed-area table [H + 1, W + 1]: sums over all texels above and left of a corner."""
    # Images have at most 2^28 texels (`gltf.Limits`).
    table = np.zeros((texels.shape[0] + 1, texels.shape[1] + 1), np.int32)
    np.cumsum(texels, axis=1, dtype=np.int32, out=table[1:, 1:])
    for above, row in pairwise(table[1:]):  # np.cumsum goes down one column after the other
        row += above
    return table


def _classify_by_texture(
    asset: Asset, primitive: Primitive, texture: Texture, counts: _TexelCounts
) -> tuple[np.ndarray, np.ndarray]:
    """Return (solid, visible), bool [F], from the texels in the bounding box of each triangle's texture coordinates."""
    uv = asset.texcoords[:, min(texture.texcoord, asset.texcoords.shape[1] - 1)]
    uv = fixed.transformed(uv, texture.transform[:2, :2], texture.transform[:2, 2])
    corners = uv[primitive.triangles].astype(np.float64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    tile = np.floor(low)  # shift repeats to the first tile; a box that crosses tiles counts all texels
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
