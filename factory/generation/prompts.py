"""Sentences for an object, from the writer that the user chose."""

from __future__ import annotations

from typing import Any

from cluster import StageError
from factory.generation.jobs import StillObject, WriterChoice
from factory.generation.prompting import MotionPrompt, PromptPlan, Vocabulary, plan_prompts
from factory.generation.still import StillCache
from factory.generation.video_sources import animation_sentences


def write_prompts(
    writer: WriterChoice, still: StillObject, motions: int, heldout: int, seed: int
) -> PromptPlan:
    """At most `motions` sentences, `heldout` of them not for training.

    Raises:
        StageError: the writer cannot be used.
    """
    if writer.kind == "file":
        return _listed(list(writer.sentences), motions, heldout, "file")
    if writer.kind == "animations":
        return _listed(animation_sentences(StillCache().asset(still)), motions, heldout, "animations")
    return plan_prompts(still.category, motions, heldout, seed, _writer(writer))


def _listed(sentences: list[str], motions: int, heldout: int, origin: str) -> PromptPlan:
    """Given sentences in their order, without repetitions; the held-out ones are spread evenly over them."""
    unique = list(dict.fromkeys(text.strip() for text in sentences if text.strip()))
    texts = unique[:motions]
    count = min(heldout, max(len(texts) - 2, 0))
    chosen = {len(texts) * (index + 1) // count - 1 for index in range(count)} if count else set()
    prompts = tuple(MotionPrompt(text, index in chosen, origin) for index, text in enumerate(texts))
    return PromptPlan(
        prompts,
        {"given": len(sentences), "duplicates": len(sentences) - len(unique), "kept": len(prompts)},
    )


def _writer(writer: WriterChoice) -> Any:
    if writer.kind == "vocabulary":
        return Vocabulary(writer.name or None)
    raise StageError(f"--prompts {writer.kind}: not available")
