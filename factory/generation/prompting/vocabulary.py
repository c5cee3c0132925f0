"""Candidates from the packaged vocabulary of motions by kind of body. No network and no language model is needed."""

from __future__ import annotations

from collections import Counter

import numpy as np

from factory.generation.prompting.files import PromptFiles
from factory.generation.prompting.prompts import WrittenSentences
from factory.generation.prompting.sentences import clean_category, clean_sentences, same_words
from renderers.arguments import integer
from zoo.errors import OptionError

_JOINTS = (" and ", ", then ")


class Vocabulary:
    """Writes motions that the vocabulary lists for a kind of body, then combinations with short gestures.

    Args:
        kind: kind of body, e.g. "quadruped"; None chooses it by the category, "any" if that is not listed.
        files: the prompt files; None for the packaged ones.

    Raises:
        OptionError: the vocabulary has no such kind.
    """

    def __init__(self, kind: str | None = None, files: PromptFiles | None = None) -> None:
        self.files = files or PromptFiles()
        if kind is not None and kind not in self.files.vocabulary:
            raise OptionError(
                f"kind of body {kind!r}: expected one of {', '.join(self.files.vocabulary)}, or None to choose it by "
                f"the category; {self.files.path('vocabulary.json')} lists them"
            )
        self.kind = kind

    def fingerprint(self) -> dict[str, str]:
        return {"writer": "vocabulary", "kind": self.kind or "", "files": self.files.digest()}

    def write(self, category: str, count: int, seed: int) -> WrittenSentences:
        """Return all motions of the kind in random order, then combinations with gestures, up to `count` sentences."""
        category, count = clean_category(category), integer(count, "count", 1)
        name = self.kind or self.files.kind_of(category)
        kind = self.files.vocabulary[name]
        rng = np.random.default_rng([integer(seed, "seed", 0), 1])
        motions, counts = clean_sentences(kind.motions, category)
        gestures, more = clean_sentences(kind.gestures, category)
        counts += Counter(more)
        sentences = [motions[k] for k in rng.permutation(len(motions))]
        # Combinations are less natural: at most a third, unless there are too few motions to choose from.
        most = max(len(motions) // 2, 2 * count // 5 - len(motions))
        if (missing := min(count - len(sentences), most)) > 0 and gestures:
            sentences += _combinations(motions, gestures, missing, rng)
        if self.kind is None and name == "any":
            counts["category_not_in_vocabulary"] = 1
        return WrittenSentences(tuple(sentences), f"vocabulary:{name}", dict(counts))


def _combinations(motions: list[str], gestures: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` different combinations "MOTION and GESTURE" or "MOTION, then GESTURE", or as many as exist."""
    simple = [motion for motion in motions if not any(joint in motion for joint in _JOINTS)]
    seen = {same_words(motion) for motion in motions}
    combined: list[str] = []
    for index in rng.permutation(len(simple) * len(gestures) * len(_JOINTS)):
        rest, joint = divmod(int(index), len(_JOINTS))
        motion, gesture = simple[rest // len(gestures)], gestures[rest % len(gestures)]
        sentence = f"{motion}{_JOINTS[joint]}{gesture}"
        # "looks left and looks right" is impossible, "nods and nods" is one motion
        if gesture.split()[0] in motion.split() or same_words(sentence) in seen:
            continue
        seen.add(same_words(sentence))
        combined.append(sentence)
        if len(combined) == count:
            break
    return combined
