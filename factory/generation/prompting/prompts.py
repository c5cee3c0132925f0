"""Motion prompts, plans of them, and the interface of the writers that propose candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from zoo.errors import ZooError


class PromptError(ZooError):
    """No plan of motion prompts can be made; the message says why and what to do."""


@dataclass(frozen=True)
class MotionPrompt:
    """One motion of the object, as a sentence without its subject.

    Attributes:
        text: e.g. "hops forward twice"; it continues "The kangaroo".
        heldout: whether the motion is kept out of training.
        origin: the writer that proposed it, e.g. "vocabulary:biped".
    """

    text: str
    heldout: bool
    origin: str

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "heldout": self.heldout, "origin": self.origin}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MotionPrompt:
        return cls(str(data["text"]), bool(data["heldout"]), str(data["origin"]))


@dataclass(frozen=True)
class PromptPlan:
    """The motion prompts of one object.

    Attributes:
        prompts: distinct sentences, in a fixed order.
        counts: numbers of candidates, duplicates, rejected sentences by reason, requests and so on.
        digest: SHA-256 over everything that determined the plan: arguments, writer, prompt files, text encoder and
            candidates. Equal digests mean equal prompts.
        encoder: the text encoder that measured the sentences' similarity.
    """

    prompts: tuple[MotionPrompt, ...]
    counts: dict[str, int]
    digest: str = ""
    encoder: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "prompts": [each.to_json() for each in self.prompts],
            "counts": dict(self.counts),
            "digest": self.digest,
            "encoder": self.encoder,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PromptPlan:
        return cls(
            tuple(MotionPrompt.from_json(each) for each in data["prompts"]),
            {str(key): int(value) for key, value in data["counts"].items()},
            str(data.get("digest", "")),
            str(data.get("encoder", "")),
        )


@dataclass(frozen=True)
class WrittenSentences:
    """What a writer returns.

    Attributes:
        sentences: sanitised candidates, in the order in which they were proposed; duplicates are allowed.
        origin: recorded with each prompt.
        counts: what happened on the way, e.g. requests, retries, malformed answers, rejected sentences by reason.
    """

    sentences: tuple[str, ...]
    origin: str
    counts: dict[str, int] = field(default_factory=dict)


class PromptWriter(Protocol):
    """Proposes sentences for motions."""

    def fingerprint(self) -> dict[str, str]:
        """Everything but the arguments of `write` that determines its sentences. Never a key or a password."""
        ...

    def write(self, category: str, count: int, seed: int) -> WrittenSentences:
        """Propose about `count` candidates; fewer if there are no more.

        Args:
            category: the object in a word or two, e.g. "otter".
            count: number of candidates wanted.
            seed: of any random choice.
        """
        ...
