"""The `Creature` class, returned by the modules in `kinds`, and the conversion of sentences to motion.

A sentence such as "hops forward twice and looks left, then nods" is split into phrases of the species' phrase book.
Phrases joined by " and " play simultaneously; those joined by ", then " play one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from factory.sources.creatures.body import Body, Mesh
from factory.sources.creatures.motion import SECONDS, TIMES, Gesture, Take, sequence, together

Morph = Callable[[Mesh], np.ndarray]
"""A morph target: maps a mesh in the rest pose to position offsets [N, 3] in metres."""


def sentences(text: str) -> tuple[str, ...]:
    """Split a text into sentences at semicolons; line breaks count as spaces."""
    return tuple(" ".join(sentence.split()) for sentence in text.split(";"))


@dataclass(frozen=True)
class Creature:
    """An individual: its body, its gestures by phrase, and its morph targets by name."""

    body: Body
    phrases: dict[str, Gesture]
    morphs: dict[str, Morph] = field(default_factory=dict)

    def act(self, sentence: str) -> Take:
        """Convert a sentence to a take.

        Raises:
            KeyError: a phrase is not in the phrase book of this species.
        """
        take = Take(self.body.skeleton, list(self.morphs))
        parts = [[phrase.strip() for phrase in part.split(" and ")] for part in sentence.split(", then ")]
        for phrase in (phrase for part in parts for phrase in part):
            if phrase not in self.phrases:
                known = ", ".join(sorted(self.phrases))
                raise KeyError(f"{sentence!r}: no gesture is called {phrase!r}; expected one of: {known}")
        gesture = sequence(*(together(*(self.phrases[phrase] for phrase in part)) for part in parts))
        gesture(take, TIMES / SECONDS)
        return take
