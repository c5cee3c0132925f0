"""Colour conversion (sRGB hex to linear RGB) and the seeded random choices of a creature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from renderers import fixed

Colour = tuple[float, float, float]
"""Linear RGB in 0–1, as glTF stores vertex colours."""

T = TypeVar("T")

WHITE = (0.92, 0.92, 0.92)
INK = (0.012, 0.010, 0.014)


def colour(hex_rgb: str) -> Colour:
    """Convert sRGB "#rrggbb" to linear RGB."""
    srgb = np.array([int(hex_rgb[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, fixed.power((srgb + 0.055) / 1.055, 2.4))
    red, green, blue = (float(channel) for channel in np.round(linear, 5))
    return red, green, blue


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Interpolate linearly from `first` (`amount` = 0) to `second` (1)."""
    red, green, blue = (float(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Genes:
    """Random choices of a seed. Seed 0 is the portrait of the species: all factors are 1 and first options are taken.

    Each call advances the generator, for the portrait too, so the order of calls determines the results.
    """

    def __init__(self, species: str, seed: int):
        self.portrait = seed == 0
        self._random = np.random.Generator(np.random.PCG64([*species.encode(), seed]))

    def vary(self, amount: float) -> float:
        """Return a uniform random factor in 1 ± `amount`."""
        draw = self._random.uniform(-amount, amount)
        return 1.0 if self.portrait else 1.0 + float(draw)

    def chance(self, probability: float, portrait: bool = True) -> bool:
        """Return True with `probability`. The portrait returns `portrait`."""
        draw = self._random.uniform()
        return portrait if self.portrait else bool(draw < probability)

    def pick(self, options: Sequence[T]) -> T:
        """Choose one of `options` uniformly. The portrait takes the first."""
        draw = int(self._random.integers(len(options)))
        return options[0 if self.portrait else draw]

    def points(self, count: int, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        """Return uniform random points in a box, float [count, 3], used for spots. Also random for the portrait."""
        return self._random.uniform(low, high, (count, 3))

    def palette(self, options: Sequence[Sequence[str]], hue_deg: float = 0.0) -> tuple[Colour, ...]:
        """Choose one palette of hex colours and jitter the lightness and tint of each colour.

        `hue_deg` is the maximum common hue rotation, for species without typical colours.
        """
        chosen = self.pick(options)
        turn = _hue(np.radians(hue_deg) * (self.vary(1.0) - 1.0))
        return tuple(self._nudged(fixed.transformed(np.array(colour(text)), turn)) for text in chosen)

    def _nudged(self, rgb: np.ndarray) -> Colour:
        light = self.vary(0.18)
        red, green, blue = (float(np.clip(channel * light * self.vary(0.13), 0, 1)) for channel in rgb)
        return red, green, blue


def _hue(angle: float) -> np.ndarray:
    """Return the rotation matrix [3, 3] of linear RGB about the grey axis, for an angle in radians."""
    third, cosine, sine = 1 / 3, fixed.cos(angle), fixed.sin(angle) / np.sqrt(3)
    same, next_, last = (
        cosine + third * (1 - cosine),
        third * (1 - cosine) - sine,
        third * (1 - cosine) + sine,
    )
    return np.array([[same, next_, last], [last, same, next_], [next_, last, same]])
