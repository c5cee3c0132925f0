"""Assign assets to splits by content hash, so that no asset changes split when the dataset grows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cluster.arguments import number, text

FRACTIONS: Mapping[str, float] = {"train": 0.98, "validation": 0.01, "test": 0.01}


def assign_split(asset_sha256: str, fractions: Mapping[str, float] = FRACTIONS) -> str:
    """Return the split of an asset. All its clips, and copies of the file under other names, get the same split.

    Args:
        asset_sha256: content address of the asset; any stable string.
        fractions: split → fraction of the assets, each >= 0 and summing to 1.

    Raises:
        ValueError: a fraction is negative or the fractions do not sum to 1.
    """
    text(asset_sha256, "assign_split: asset_sha256")
    if not isinstance(fractions, Mapping) or not fractions:
        raise TypeError(
            f"assign_split: fractions: expected names of splits with fractions, got {fractions!r}"
        )
    for split, fraction in fractions.items():
        number(fraction, f"assign_split: fractions: {text(split, 'assign_split: fractions')}", float("-inf"))
    if abs(sum(fractions.values()) - 1.0) > 1e-9 or min(fractions.values()) < 0:
        raise ValueError(f"assign_split: fractions must be >= 0 and add up to 1, got {dict(fractions)}")
    position = int.from_bytes(hashlib.sha256(b"split:" + asset_sha256.encode()).digest()[:8]) / 2**64
    for split, fraction in fractions.items():
        position -= fraction
        if position < 0:
            return split
    return list(fractions)[-1]  # rounding errors can leave position >= 0 after the last split
