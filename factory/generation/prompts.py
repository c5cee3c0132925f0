"""Sentences for an object, from the writer that the user chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from factory.generation.jobs import StillObject, WriterChoice
from factory.generation.prompting import (
    ChatEndpoint,
    LocalChat,
    MotionPrompt,
    PromptPlan,
    PromptWriter,
    Vocabulary,
    plan_prompts,
)
from factory.generation.still import StillCache
from factory.generation.video_folder import VideoFolder
from factory.generation.video_sources import animation_sentences, front_picture


def write_prompts(
    writer: WriterChoice, still: StillObject, root: Path, motions: int, heldout: int, seed: int
) -> PromptPlan:
    """At most `motions` sentences, `heldout` of them not for training.

    Args:
        root: the output; a chat endpoint's answers are kept below it.

    Raises:
        ZooError: the writer cannot be used, or has too few sentences.
    """
    if writer.kind == "file":
        return _listed(list(writer.sentences), motions, heldout, "file")
    if writer.kind == "videos":
        sentences = list(VideoFolder.open(still.record.location).sentences)
        return _listed(sentences, motions, heldout, "videos")
    if writer.kind == "animations":
        return _listed(animation_sentences(StillCache().asset(still)), motions, heldout, "animations")
    return plan_prompts(still.category, motions, heldout, seed, _writer(writer, still, root))


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


def writer_fingerprint(writer: WriterChoice) -> dict[str, Any]:
    """Everything about a writer that its sentences depend on; part of the key of a plan.

    Raises:
        OptionError: the vocabulary has no such kind of body.
    """
    values = writer.to_json()
    del values["url"]  # the same model behind another address
    if writer.kind == "vocabulary":
        return values | {"fingerprint": Vocabulary(writer.name or None).fingerprint()}
    return values


def _writer(writer: WriterChoice, still: StillObject, root: Path) -> PromptWriter:
    if writer.kind == "endpoint":
        image, _ = front_picture(StillCache(), still)
        folder = root / "generated" / still.name / "answers"
        return ChatEndpoint(writer.url or None, writer.name, folder=folder, image=image)
    if writer.kind == "local":
        return LocalChat(writer.name)
    return Vocabulary(writer.name or None)
