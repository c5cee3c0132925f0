"""Selecting clips by the rating of their motion (column `quality`, given by `factory.clips.quality`)."""

from __future__ import annotations

import numpy as np

from factory.dataset.reader import ClipDataset

QUALITIES = ("any", "ok", "high")


def selected_clips(clips: ClipDataset, quality: str) -> np.ndarray:
    """Which clips have at least a rating, bool [clips].

    Args:
        clips: of a dataset.
        quality: one of QUALITIES; see `TrainingClips`.

    Raises:
        ValueError: no clip has it.
    """
    selected = np.array([_rated(quality, value) for value in clips.table(["quality"])["quality"].to_pylist()])
    if not selected.any():
        raise ValueError(
            f"none of the {len(selected)} clips of {clips.url} is rated {quality!r} or better; quality "
            f'"any" takes all of them'
        )
    return selected


def _rated(least: str, rating: str | None) -> bool:
    """Whether a rating (column `quality`) reaches `least`, one of QUALITIES."""
    if least == "any":
        return True
    return rating == "high" or (least == "ok" and rating in ("ok", "", None))
