"""Textures for the kernels: all mipmap levels of all images in one array of 16-bit texels."""

from __future__ import annotations

import numpy as np

from renderers.gltf import Texture
from renderers.meshes.cpu.kernel_code import load_kernels
from renderers.meshes.cpu.layout import MAX_LEVELS, OFFSETS, WRAPS

kernels = load_kernels()

_MAX_SIDE = 2048  # texels; larger textures are halved, since images of this size cannot show more


def _stored_values(srgb: bool) -> np.ndarray:
    """Return uint16 [256]: what an 8-bit value is stored as, decoded to linear light if `srgb`."""
    codes = np.arange(256)
    if not srgb:
        return (codes * 257).astype(np.uint16)
    # Exact decimal values rounded to 16 bits: the power of another library may differ in the last bit only.
    value = codes / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 65535.0).astype(np.uint16)


class TextureStore:
    """Collects the textures of an asset, each stored once, and packs them for the kernels."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, bool, str, str, bool], int] = {}
        self._textures: list[tuple[Texture, bool]] = []

    def add(self, texture: Texture, srgb: bool) -> int:
        """Return the number of a texture; with `srgb` its colours are decoded to linear."""
        key = (id(texture.image), srgb, texture.wrap_s, texture.wrap_t, texture.nearest)
        if key not in self._numbers:
            self._numbers[key] = len(self._textures)
            self._textures.append((texture, srgb))
        return self._numbers[key]

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """Return samplers int64 [T, OFFSETS + MAX_LEVELS] and texels uint16 [...] (`layout.Materials`)."""
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
                size += 4 * (max(width >> level, 1) + 2) * (max(height >> level, 1) + 2)
        texels = np.empty(max(size, 4), np.uint16)
        for row, image, (_, srgb) in zip(samplers, images, self._textures, strict=False):
            _fill(texels, row, image, _stored_values(srgb))
        return samplers, texels


def _fill(texels: np.ndarray, sampler: np.ndarray, image: np.ndarray, curve: np.ndarray) -> None:
    """Write all levels of one texture."""
    width, height, levels, wrap_s, wrap_t = (int(value) for value in sampler[:5])
    offsets = [int(offset) for offset in sampler[OFFSETS : OFFSETS + levels]]
    kernels.fill_level(texels, offsets[0], image, curve)
    for level, offset in enumerate(offsets):
        w, h = max(width >> level, 1), max(height >> level, 1)
        kernels.fill_border(texels, offset, w, h, wrap_s, wrap_t)
        if level + 1 < levels:
            kernels.halve_level(texels, offset, w, h, offsets[level + 1])


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
