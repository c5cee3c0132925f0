"""Sentences that describe motions of one object, for image-to-video models.

`plan_prompts` takes candidates from a writer (the packaged vocabulary, a chat endpoint or a local language model),
removes duplicates, and clusters the rest by meaning down to the number of sentences that is wanted.

Names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.generation.prompting.chat import ChatWriter
    from factory.generation.prompting.endpoint import ChatEndpoint, ChatError
    from factory.generation.prompting.files import PromptFiles
    from factory.generation.prompting.local import LocalChat
    from factory.generation.prompting.plan import plan_prompts
    from factory.generation.prompting.prompts import (
        MotionPrompt,
        PromptError,
        PromptPlan,
        PromptWriter,
        WrittenSentences,
    )
    from factory.generation.prompting.vocabulary import Vocabulary

_HOME = {
    "ChatEndpoint": "factory.generation.prompting.endpoint",
    "ChatError": "factory.generation.prompting.endpoint",
    "ChatWriter": "factory.generation.prompting.chat",
    "LocalChat": "factory.generation.prompting.local",
    "MotionPrompt": "factory.generation.prompting.prompts",
    "PromptError": "factory.generation.prompting.prompts",
    "PromptFiles": "factory.generation.prompting.files",
    "PromptPlan": "factory.generation.prompting.prompts",
    "PromptWriter": "factory.generation.prompting.prompts",
    "Vocabulary": "factory.generation.prompting.vocabulary",
    "WrittenSentences": "factory.generation.prompting.prompts",
    "plan_prompts": "factory.generation.prompting.plan",
}
__all__ = [
    "ChatEndpoint",
    "ChatError",
    "ChatWriter",
    "LocalChat",
    "MotionPrompt",
    "PromptError",
    "PromptFiles",
    "PromptPlan",
    "PromptWriter",
    "Vocabulary",
    "WrittenSentences",
    "plan_prompts",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
