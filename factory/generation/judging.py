"""Judge videos (thin stand-in)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the judges."""

    least_motion: float = 0.5
    most_border: float = 0.02
    least_area: float = 0.3
    most_area: float = 3.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Thresholds:
        return cls(**data)


@dataclass(frozen=True)
class Verdict:
    """Scores."""

    scores: dict[str, float | None]
    failed: tuple[str, ...]
    unmeasured: tuple[str, ...]


def judge_views(
    frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None, thresholds: Thresholds
) -> Verdict:
    difference = np.abs(frames.astype(np.int16) - frames[:, :1]).mean(-1)
    area = masks.sum((2, 3)) / np.maximum(masks[:, :1].sum((2, 3)), 1)
    border = np.mean([masks[..., 0, :], masks[..., -1, :], masks[..., 0], masks[..., -1]])
    scores: dict[str, float | None] = {
        "motion": float(difference[masks | masks[:, :1]].mean()),
        "border": float(border),
        "least area": float(area.min()),
        "most area": float(area.max()),
        "vlm": None,
    }
    failed = []
    if scores["motion"] < thresholds.least_motion:
        failed.append("motion")
    if scores["border"] > thresholds.most_border:
        failed.append("border")
    if scores["least area"] < thresholds.least_area or scores["most area"] > thresholds.most_area:
        failed.append("area")
    return Verdict(scores, tuple(failed), ("vlm",))


def judge_video(
    frames: np.ndarray, masks: np.ndarray, still: np.ndarray | None, thresholds: Thresholds
) -> Verdict:
    return judge_views(frames[None], masks[None], None if still is None else still[None], thresholds)
