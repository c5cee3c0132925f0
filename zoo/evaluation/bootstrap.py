"""Confidence intervals of means over clips: the percentile bootstrap (Efron & Tibshirani 1993, §13.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderers.arguments import array, integer, number

CHUNK = 1000  # resamples drawn at once


def interval(
    values: Sequence[float] | np.ndarray, *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of the mean of values, resampled with replacement.

    Args:
        values: one per clip, [N].
        samples: number of resamples.
        seed: of the resampling; the same values and seed give the same interval.
        level: confidence.

    Returns:
        The quantiles (1 − level) / 2 and (1 + level) / 2 of the resampled means. For one value, that value twice.
    """
    data = array(values, "interval: values", ("N",))
    if not len(data):
        raise ValueError("interval: values: expected at least one, got none")
    samples = integer(samples, "interval: samples", 1)
    level = number(level, "interval: level", 0.0, 1.0)
    generator = np.random.default_rng(integer(seed, "interval: seed", 0))
    means = []
    for start in range(0, samples, CHUNK):
        drawn = generator.integers(0, len(data), (min(CHUNK, samples - start), len(data)))
        means.append(data[drawn].mean(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
