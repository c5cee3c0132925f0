"""Which split an asset belongs to: a function of its content alone, so that a growing dataset never leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

FRACTIONS: Mapping[str, float] = {"train": 0.98, "validation": 0.01, "test": 0.01}


def assign_split(asset_sha256: str, fractions: Mapping[str, float] = FRACTIONS) -> str:
    """The split of all clips of an asset, and of every copy of the same file under another name.

    Args:
        asset_sha256: content address of the asset, any stable text.
        fractions: split → part of the assets; in sum 1.
    """
    if abs(sum(fractions.values()) - 1.0) > 1e-9 or min(fractions.values()) < 0:
        raise ValueError(f"assign_split: fractions must be >= 0 and add up to 1, got {dict(fractions)}")
    position = int.from_bytes(hashlib.sha256(b"split:" + asset_sha256.encode()).digest()[:8]) / 2**64
    for split, fraction in fractions.items():
        position -= fraction
        if position < 0:
            return split
    return list(fractions)[-1]  # rounding left a position of almost exactly 1
