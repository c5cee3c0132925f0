"""`decide`: compare scores with thresholds. It is cheap, so that changed thresholds need no new measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from factory.generation.judging.thresholds import Thresholds
from renderers.arguments import instance, number


@dataclass(frozen=True)
class Verdict:
    """Whether a video is kept, and why not.

    Attributes:
        scores: measure → score, None where it could not be measured.
        failed: measures whose score is beyond its threshold, in the order of `Thresholds`.
        unmeasured: measures without a score. They do not count against the video.
    """

    scores: dict[str, float | None]
    failed: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether no measure failed."""
        return not self.failed

    def to_json(self) -> dict[str, Any]:
        """Return the scores and the decision as JSON values."""
        return {
            "scores": dict(self.scores),
            "failed": list(self.failed),
            "unmeasured": list(self.unmeasured),
            "kept": self.kept,
        }


def decide(scores: Mapping[str, float | None], thresholds: Thresholds) -> Verdict:
    """Compare scores with thresholds.

    Args:
        scores: of `measure_video` or `measure_views`, or their JSON. NaN counts as not measured, as None does.
        thresholds: a score equal to its limit passes.

    Raises:
        TypeError, ValueError: a score is no number, or infinite.
    """
    instance(thresholds, Thresholds, "decide: thresholds")
    checked: dict[str, float | None] = {}
    for name, score in scores.items():
        missing = score is None or (isinstance(score, float) and math.isnan(score))
        checked[name] = None if missing else number(score, f"decide: scores[{name!r}]")
    failed = []
    for field in fields(Thresholds):
        side, _, name = field.name.partition("_")
        limit, value = getattr(thresholds, field.name), checked.get(name)
        if limit is None or value is None:
            continue
        if (value < limit) if side == "min" else (value > limit):
            failed.append(name)
    unmeasured = tuple(name for name, score in checked.items() if score is None)
    return Verdict(checked, tuple(failed), unmeasured)
