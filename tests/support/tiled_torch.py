"""A tiled splatting rasteriser in plain torch, tuned: the fastest option without compiled kernels.

It is the baseline for `renderers.gaussians.cpu` in the speed tests and in benchmarks/splats.py, with the same images
and gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.gaussians import reference
from renderers.gaussians.types import Scene

TILE = 8  # fastest for small images; 12 is faster from 256² upwards


def draw(scene: Scene, tile: int = TILE) -> Tensor:
    """Return rgb [S, C, H, W, D] over black of a validated scene with colours."""
    means2d, conics, depths, opacities, radii = reference.project(scene)
    S, C, _ = scene.shape
    colors = scene.colors[:, None].expand(*scene.shape, -1)
    images = [
        _draw_image(
            *(v[s, c] for v in (means2d, conics, depths, opacities, radii, colors)),
            scene.width,
            scene.height,
            tile,
        )
        for s in range(S)
        for c in range(C)
    ]
    return torch.stack(images).reshape(S, C, scene.height, scene.width, -1)


def _draw_image(
    means2d: Tensor, conics: Tensor, depths: Tensor, opacities: Tensor, radii: Tensor, colors: Tensor,
    width: int, height: int, tile: int,
) -> Tensor:  # fmt: skip
    tiles_x, tiles_y = -(-width // tile), -(-height // tile)
    with torch.no_grad():
        seen = (radii > 0).all(-1).nonzero()[:, 0]
        seen = seen[torch.argsort(depths[seen], stable=True)]
        limits = torch.tensor([tiles_x, tiles_y])
        low = ((means2d[seen] - radii[seen]) / tile).floor().long().clamp_min(0)
        high = ((means2d[seen] + radii[seen]) / tile).ceil().long().minimum(limits)
        spans = (high - low).clamp_min(0)
        counts = spans.prod(-1)
        splat = torch.repeat_interleave(torch.arange(len(seen)), counts)
        local = torch.arange(len(splat)) - (counts.cumsum(0) - counts)[splat]
        tile_of = (
            (low[splat, 1] + local // spans[splat, 0]) * tiles_x + low[splat, 0] + local % spans[splat, 0]
        )
        order = torch.argsort(tile_of, stable=True)
        lists = seen[splat[order]].split(torch.bincount(tile_of, minlength=tiles_x * tiles_y).tolist())
    ys, xs = torch.meshgrid(torch.arange(tile) + 0.5, torch.arange(tile) + 0.5, indexing="ij")
    parts = []
    for index, ids in enumerate(lists):
        px = xs.reshape(-1, 1) + index % tiles_x * tile
        py = ys.reshape(-1, 1) + index // tiles_x * tile
        parts.append(_blend(px, py, means2d[ids], conics[ids], opacities[ids], colors[ids]))
    grid = torch.stack(parts).reshape(tiles_y, tiles_x, tile, tile, -1).transpose(1, 2)
    return grid.reshape(tiles_y * tile, tiles_x * tile, -1)[:height, :width]


def _blend(
    px: Tensor, py: Tensor, means: Tensor, conics: Tensor, opacities: Tensor, colors: Tensor
) -> Tensor:
    dx, dy = means[:, 0] - px, means[:, 1] - py
    sigma = dx * (0.5 * conics[:, 0] * dx + conics[:, 1] * dy) + 0.5 * conics[:, 2] * dy * dy
    alpha = (opacities * torch.exp(-sigma)).clamp_max(reference.ALPHA_MAX)
    alpha = alpha * (alpha >= reference.ALPHA_MIN)
    after = torch.exp(torch.cumsum(torch.log1p(-alpha), 1))
    weight = alpha * after / (1 - alpha) * (after > reference.TRANSMITTANCE_MIN)
    return weight @ colors
