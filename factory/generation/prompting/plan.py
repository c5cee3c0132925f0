"""From candidates to a plan: duplicates removed, clustered by meaning, some held out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np

from factory.generation.prompting.embedding import default_encoder, embed, near_duplicates, representatives
from factory.generation.prompting.prompts import MotionPrompt, PromptError, PromptPlan, PromptWriter
from factory.generation.prompting.sentences import clean_category, clean_sentences, same_words
from renderers.arguments import integer

CANDIDATES_PER_PROMPT = 5  # 300 candidates for DIMO's 60 motions
_MOST = 2000  # prompts of one object
_VERSION = 1  # of the algorithm; part of the digest


def plan_prompts(
    category: str, count: int, heldout: int, seed: int, writer: PromptWriter, *, encoder: str | None = None
) -> PromptPlan:
    """Plan the motions of one object.

    Args:
        category: the object in a word or two, e.g. "otter".
        count: number of prompts, those held out included. If there are fewer distinct candidates, the plan has fewer,
            and its counts have the difference as "missing".
        heldout: how many of them are held out.
        seed: of all random choices. With the same writer, files and answers, the same seed gives the same plan.
        writer: proposes candidates.
        encoder: text encoder that measures similarity; None for MiniLM, or "words" if that is not installed.

    Raises:
        OptionError, TypeError, ValueError: an argument has a wrong value.
        PromptError: the writer has no more sentences than are to be held out.
    """
    category = clean_category(category)
    count, seed = integer(count, "count", 1, _MOST), integer(seed, "seed", 0)
    heldout = integer(heldout, "heldout", 0, count - 1)
    encoder = encoder or default_encoder()

    written = writer.write(category, CANDIDATES_PER_PROMPT * count, seed)
    counts = Counter(written.counts)
    cleaned, rejected = clean_sentences(written.sentences, category)  # a writer may be anybody's
    counts.update(rejected)
    distinct = list({same_words(sentence): sentence for sentence in reversed(cleaned)}.values())[::-1]
    counts.update(candidates=len(written.sentences), duplicates=len(cleaned) - len(distinct))
    if len(distinct) <= heldout:
        raise PromptError(
            f"{category}: {len(distinct)} usable sentences of {len(written.sentences)} from {written.origin}, expected "
            f"more than the {heldout} to hold out; counts: {_listed(counts)}. Choose another writer, or Vocabulary()"
        )
    vectors = embed(distinct, encoder)
    dropped = set(near_duplicates(distinct, vectors))
    rest = [index for index in range(len(distinct)) if index not in dropped]
    chosen = [distinct[rest[k]] for k in representatives([distinct[k] for k in rest], vectors[rest], count)]
    if len(chosen) <= heldout:
        raise PromptError(
            f"{category}: only {len(chosen)} different motions among {len(distinct)} sentences from {written.origin}, "
            f"expected more than the {heldout} to hold out"
        )
    rng = np.random.default_rng([seed, 2])
    held = set(rng.permutation(len(chosen))[:heldout].tolist())
    counts.update(
        near_duplicates=len(dropped), kept=len(chosen), heldout=heldout, missing=count - len(chosen)
    )
    made_from = {
        "version": _VERSION, "category": category, "count": count, "heldout": heldout, "seed": seed,
        "encoder": encoder, "writer": writer.fingerprint(), "candidates": distinct,
    }  # fmt: skip
    return PromptPlan(
        tuple(MotionPrompt(text, k in held, written.origin) for k, text in enumerate(chosen)),
        {key: value for key, value in sorted(counts.items()) if value},
        hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest(),
        encoder,
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(counts.items()) if value)
