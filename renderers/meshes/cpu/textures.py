"""Textures for the kernels: all mipmap levels of all images in one array of RGBA texels.

Colours stay encoded as in the file. Levels are means of encoded colours, as the pixels of an image are means of encoded
samples. Where the texture is looked up once per sample, its levels are means of nearly linear light, as for OpenGL.
"""

from __future__ import annotations

import numpy as np

from renderers.gltf import Texture
from renderers.meshes.cpu.kernel_code import load_kernels
from renderers.meshes.cpu.layout import HEIGHT, LEVELS, MAX_LEVELS, OFFSETS, WIDTH, WRAPS

kernels = load_kernels()

_MAX_SIDE = 2048  # texels; larger textures are halved, since images of this size cannot show more


class TextureStore:
    """Collects the textures of an asset, each stored once, and packs them for the kernels."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, bool, str, str, bool], int] = {}
        self._textures: list[tuple[Texture, bool]] = []

    def add(self, texture: Texture, squared: bool) -> int:
        """Return the number of a texture; with `squared` its levels are means of nearly linear light."""
        key = (id(texture.image), squared, texture.wrap_s, texture.wrap_t, texture.nearest)
        if key not in self._numbers:
            self._numbers[key] = len(self._textures)
            self._textures.append((texture, squared))
        return self._numbers[key]

    def pack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return samplers int64 [T, OFFSETS + MAX_LEVELS], texels and alphas uint32 [...] (`layout.Materials`)."""
        samplers = np.zeros((max(len(self._textures), 1), OFFSETS + MAX_LEVELS), np.int64)
        images, size = [], 0
        for row, (texture, _) in zip(samplers, self._textures, strict=False):
            image = _shrink(texture.image)
            images.append(image)
            height, width = image.shape[:2]
            levels = max(height, width).bit_length()
            row[:OFFSETS] = (
                width,
                height,
                levels,
                WRAPS[texture.wrap_s],
                WRAPS[texture.wrap_t],
                texture.nearest,
            )
            for level in range(levels):
                row[OFFSETS + level] = size
                size += (max(width >> level, 1) + 2) * (max(height >> level, 1) + 2)
        texels = np.zeros(size + 1, np.uint32)  # two texels are read at once
        for row, image, (_, squared) in zip(samplers, images, self._textures, strict=False):
            _fill(texels, row, image, squared)
        transparent = [row for row, (_, squared) in zip(samplers, self._textures, strict=False) if squared]
        alphas = np.zeros(len(texels) if transparent else 1, np.uint32)
        for row in transparent:
            for level, offset in enumerate(row[OFFSETS : OFFSETS + row[LEVELS]].tolist()):
                width, height = max(int(row[WIDTH]) >> level, 1), max(int(row[HEIGHT]) >> level, 1)
                kernels.pack_alphas(texels, offset, width, height, alphas)
        return samplers, texels, alphas


def _fill(texels: np.ndarray, sampler: np.ndarray, image: np.ndarray, squared: bool) -> None:
    """Write all levels of one texture."""
    width, height, levels, wrap_s, wrap_t = (int(value) for value in sampler[:5])
    offsets = [int(offset) for offset in sampler[OFFSETS : OFFSETS + levels]]
    level = texels[offsets[0] :][: (height + 2) * (width + 2)].reshape(height + 2, width + 2)
    level[1:-1, 1:-1] = image.view("<u4")[..., 0]
    for n, offset in enumerate(offsets):
        w, h = max(width >> n, 1), max(height >> n, 1)
        kernels.fill_border(texels, offset, w, h, wrap_s, wrap_t)
        if n + 1 < levels:
            kernels.halve_level(texels, offset, w, h, offsets[n + 1], squared)


def _shrink(image: np.ndarray) -> np.ndarray:
    """Halve an image with a box filter (like a mipmap) until its longer side is at most _MAX_SIDE."""
    while max(image.shape[:2]) > _MAX_SIDE:
        tall, wide = image.shape[0] > 1, image.shape[1] > 1
        h, w = image.shape[0] // 2 * 2 if tall else 1, image.shape[1] // 2 * 2 if wide else 1
        part = image[:h, :w]
        if tall:
            part = (part[0::2].astype(np.uint16) + part[1::2] + 1) // 2
        if wide:
            part = (part[:, 0::2].astype(np.uint16) + part[:, 1::2] + 1) // 2
        image = part.astype(np.uint8)
    return np.array(image, np.uint8, order="C")
