"""Prompts (thin stand-in)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MotionPrompt:
    text: str
    heldout: bool
    origin: str


@dataclass(frozen=True)
class PromptPlan:
    prompts: tuple[MotionPrompt, ...]
    counts: dict[str, int]


@dataclass(frozen=True)
class Vocabulary:
    kind: str | None = None


PromptWriter = Any


def plan_prompts(category: str, count: int, heldout: int, seed: int, writer: PromptWriter) -> PromptPlan:
    import numpy as np

    from factory.sources import creatures

    species = category if category in creatures.species() else "fox"
    texts = [motion.sentence for motion in creatures.motions(species)]
    order = np.random.default_rng(seed).permutation(len(texts))[:count]
    prompts = [
        MotionPrompt(texts[k], index >= len(order) - heldout, "vocabulary") for index, k in enumerate(order)
    ]
    return PromptPlan(tuple(prompts), {"written": len(prompts), "kept": len(prompts)})
