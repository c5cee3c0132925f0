"""Candidates from a chat model: the requests, and the reading of its answers.

As in DIMO (section 3.1), a structured "meta" prompt first describes the object and its initial state; the model is then
asked for motions that may follow. Answers are untrusted: the JSON is validated, asked for once more if it is invalid,
and each sentence is cleaned. Everything that is not used is counted.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from factory.generation.prompting.files import MetaPrompt, PromptFiles
from factory.generation.prompting.prompts import WrittenSentences
from factory.generation.prompting.sentences import clean_category, clean_sentence, clean_sentences, same_words
from renderers.arguments import integer

LARGEST_ANSWER = 64 << 10  # characters of one answer that are read
_MOST_FRUITLESS = 3  # requests in a row without a new sentence
_MOST_AVOIDED = 60  # sentences that a request lists as known
_SYSTEM = "You propose motions of one object for a video model. You answer with JSON only."
_REPAIR = (
    "This answer is not the JSON object that was asked for: {reason}. "
    "Answer again with that JSON object and nothing else."
)
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_Model = TypeVar("_Model", bound=BaseModel)
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """One answer of a chat model.

    Attributes:
        text: its content, at most `LARGEST_ANSWER` characters.
        finish: "stop", "length" (cut off), "content_filter" (refused), or "oversized" (longer than is read).
    """

    text: str
    finish: str = "stop"


class Motions(BaseModel):
    """The answer that is asked for. Items are checked one by one afterwards, so that one bad item costs only itself."""

    model_config = ConfigDict(extra="ignore")
    motions: list[Any] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, data: Any) -> Any:
        """Accept a list without the object around it."""
        return {"motions": data} if isinstance(data, list) else data


class ChatWriter(ABC):
    """What all chat models share. A subclass implements `complete` and `fingerprint`.

    Args:
        files: the prompt files; None for the packaged ones.
        batch: sentences asked for in one request.
    """

    origin: str  # recorded with each prompt

    def __init__(self, files: PromptFiles | None = None, batch: int = 40) -> None:
        self.files = files or PromptFiles()
        self.batch = integer(batch, "batch", 1, 200)

    @abstractmethod
    def complete(self, messages: Messages, seed: int, counts: Counter[str]) -> Answer | None:
        """Answer messages of the form {"role": …, "content": …}; None if the model refuses this request.

        Args:
            counts: to which requests, retries and so on are added.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, str]: ...

    def write(self, category: str, count: int, seed: int) -> WrittenSentences:
        """Ask for batches of motions until there are `count` distinct ones or the model has no new ones."""
        category, count, seed = clean_category(category), integer(count, "count", 1), integer(seed, "seed", 0)
        counts: Counter[str] = Counter()
        meta = self._meta_prompt(category, seed, counts)
        sentences: list[str] = []
        known: set[str] = set()
        fruitless = 0
        while len(known) < count and fruitless < _MOST_FRUITLESS:
            wanted = min(self.batch, count - len(known))
            request = self._request(category, meta, wanted, sentences)
            # A new seed per request: a model that repeats itself with equal seeds would never go on.
            items = self._motions(request, seed + counts["batches"], counts)
            counts["batches"] += 1
            most = 2 * self.batch
            counts["surplus"] += max(0, len(items) - most)
            cleaned, rejected = clean_sentences(items[:most], category)
            counts += rejected
            new = {same_words(each) for each in cleaned} - known
            fruitless = 0 if new else fruitless + 1
            known |= new
            sentences += cleaned
        return WrittenSentences(tuple(sentences), self.origin, {key: n for key, n in counts.items() if n})

    def _request(self, category: str, meta: MetaPrompt, count: int, known: Sequence[str]) -> str:
        return self.files.fill(
            "request.txt",
            category=category,
            appearance=meta.appearance,
            expression=meta.expression or "none",
            state=meta.initial_state,
            count=count,
            rubric=self.files.fill("rubric.txt", category=category).strip(),
            avoid="; ".join(known[-_MOST_AVOIDED:]) or "none yet",
        )

    def _meta_prompt(self, category: str, seed: int, counts: Counter[str]) -> MetaPrompt:
        """From the user's file, else from the model, else from the category's kind of body."""
        if (known := self.files.meta_prompt(category)) is not None:
            return known
        fallback = self.files.body_prompt(category)
        request = self.files.fill("meta_request.txt", category=category)
        meta = self._ask(request, MetaPrompt, seed, counts)
        if meta is None or any(
            text and clean_sentence(text[:150])[1] not in ("", "camera")
            for text in (meta.appearance, meta.expression, meta.initial_state)
        ):
            counts["meta_prompt_from_vocabulary"] += 1
            return fallback
        counts["meta_prompt_from_model"] += 1
        return meta

    def _motions(self, request: str, seed: int, counts: Counter[str]) -> list[Any]:
        answer = self._ask(request, Motions, seed, counts)
        return answer.motions if answer is not None else []

    def _ask(self, request: str, model: type[_Model], seed: int, counts: Counter[str]) -> _Model | None:
        """One request, and one more if the answer is invalid. None if that is invalid too."""
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": request}]
        for attempt in range(2):
            answer = self.complete(messages, seed, counts)
            if answer is None:
                counts["refused"] += 1
                return None
            counts["answers"] += 1
            if answer.finish in ("content_filter", "oversized"):
                counts["blocked" if answer.finish == "content_filter" else "oversized"] += 1
                return None
            if answer.finish == "length":
                counts["truncated"] += 1
            try:
                parsed = model.model_validate(read_json(answer.text))
            except (ValidationError, ValueError) as error:
                counts["empty_answers" if not answer.text.strip() else "malformed"] += 1
                reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
                messages = [
                    *messages[:2],
                    {"role": "assistant", "content": answer.text[:2000]},
                    {"role": "user", "content": _REPAIR.format(reason=reason)},
                ]
                continue
            counts["repaired"] += attempt
            return parsed
        counts["given_up"] += 1
        return None


def read_json(text: str) -> Any:
    """The first JSON object or list in an answer, which may have thoughts, prose or a code fence around it.

    Raises:
        ValueError: there is none.
    """
    text = _THOUGHTS.sub("", text[:LARGEST_ANSWER])
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(20):  # each attempt may read the whole text
        match = re.compile(r"[{\[]").search(text, position)
        if match is None:
            break
        try:
            return decoder.raw_decode(text, match.start())[0]
        except ValueError:
            position = match.end()
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None
    raise ValueError("it has no JSON object")
