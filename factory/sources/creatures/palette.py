"""Colours: written as sRGB hex, kept as linear RGB, drawn for each creature from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
"""Linear RGB in 0–1, as glTF stores vertex colours."""

T = TypeVar("T")

WHITE = (0.92, 0.92, 0.92)
INK = (0.012, 0.010, 0.014)


def colour(hex_rgb: str) -> Colour:
    """Linear RGB of "#rrggbb"."""
    srgb = np.array([int(hex_rgb[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    red, green, blue = (float(channel) for channel in np.round(linear, 5))
    return red, green, blue


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """`first` with `amount` (0–1) of `second` stirred in."""
    red, green, blue = (float(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Genes:
    """What a seed decides. Seed 0 draws nothing: it is the species' portrait, every factor 1 and first choices."""

    def __init__(self, species: str, seed: int):
        self.portrait = seed == 0
        self._random = np.random.Generator(np.random.PCG64([*species.encode(), seed]))

    def vary(self, amount: float) -> float:
        """A factor within 1 ± `amount`."""
        draw = self._random.uniform(-amount, amount)
        return 1.0 if self.portrait else 1.0 + float(draw)

    def chance(self, probability: float, portrait: bool = True) -> bool:
        """True with `probability`; the portrait's answer is `portrait`."""
        draw = self._random.uniform()
        return portrait if self.portrait else bool(draw < probability)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`; the portrait takes the first."""
        draw = int(self._random.integers(len(options)))
        return options[0 if self.portrait else draw]

    def points(self, count: int, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
        """float [count, 3] uniform in a box: where spots go (the portrait has spots too)."""
        return self._random.uniform(low, high, (count, 3))

    def palette(self, options: Sequence[Sequence[str]], hue_deg: float = 0.0) -> tuple[Colour, ...]:
        """One of several palettes of hex colours, each colour nudged a little in lightness and tint.

        `hue_deg` also turns all hues together by up to that much: for things that come in any colour.
        """
        chosen = self.pick(options)
        turn = _hue(np.radians(hue_deg) * (self.vary(1.0) - 1.0))
        return tuple(self._nudged(turn @ colour(text)) for text in chosen)

    def _nudged(self, rgb: np.ndarray) -> Colour:
        light = self.vary(0.18)
        red, green, blue = (float(np.clip(channel * light * self.vary(0.13), 0, 1)) for channel in rgb)
        return red, green, blue


def _hue(angle: float) -> np.ndarray:
    """The rotation [3, 3] of linear RGB about its grey axis."""
    third, cosine, sine = 1 / 3, np.cos(angle), np.sin(angle) / np.sqrt(3)
    same, next_, last = (
        cosine + third * (1 - cosine),
        third * (1 - cosine) - sine,
        third * (1 - cosine) + sine,
    )
    return np.array([[same, next_, last], [last, same, next_], [next_, last, same]])
