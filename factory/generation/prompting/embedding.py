"""Similarity of sentences: near duplicates, and one sentence per cluster.

The encoder is MiniLM (the extra `text`). The test set is the 60 motions of the bundled kangaroo and 110 paraphrases of
them; a choice of 60 of these 170 sentences covers so many different motions, and their clusters have this purity:

    at random                         42    -
    letters and words ("words")       47  0.55
    wordllama 0.4                     46  0.58
    MiniLM                            49  0.64   without the words of direction: 41, 0.55
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence

import numpy as np

WORDS = "words"  # name of the encoder that needs no model
NEAR = (
    0.93  # cosine similarity of near duplicates; at 0.9, different motions of the vocabulary would be merged
)
DIRECTION_WEIGHT = 0.5  # of a word of direction beside a unit vector
_WORD_FEATURES = 4096
# Sentences that differ in one of these are different motions, however similar a language model finds them: with MiniLM,
# "hops to the left" and "hops to the right" have a similarity of 0.95.
_DIRECTIONS = {
    **{word: "left" for word in ("left", "leftward", "leftwards")},
    **{word: "right" for word in ("right", "rightward", "rightwards")},
    **{word: "up" for word in ("up", "upward", "upwards", "raises", "rises", "high")},
    **{word: "down" for word in ("down", "downward", "downwards", "lowers", "sinks", "low")},
    **{word: "forward" for word in ("forward", "forwards", "ahead")},
    **{word: "back" for word in ("back", "backward", "backwards")},
    **{word: "1" for word in ("once", "one")},
    **{word: "2" for word in ("twice", "two", "both")},
    **{word: "3" for word in ("three", "thrice")},
    **{
        word: word for word in ("front", "hind", "slowly", "quickly", "opens", "closes", "around", "sideways")
    },
}


def default_encoder() -> str:
    """The encoder that is used unless another is named: MiniLM if it is installed, else "words"."""
    from zoo.text_encoder import MINILM, WHEEL  # imports torch

    installed = all(map(importlib.util.find_spec, ("transformers", WHEEL)))
    return MINILM if installed else WORDS


def embed(sentences: Sequence[str], encoder: str) -> np.ndarray:
    """Embed S sentences as unit vectors, float64 [S, E].

    Args:
        encoder: name of a text encoder (see `zoo.text_encoder`), or "words" for counts of words and letters.
    """
    if encoder == WORDS:
        return _word_vectors(sentences)
    from zoo.text_encoder import load_text_encoder  # imports torch

    vectors = load_text_encoder(encoder)(list(sentences)).double().numpy()
    return vectors.round(5)  # so that sums in another order, in another batch, give the same clusters


def _word_vectors(sentences: Sequence[str]) -> np.ndarray:
    """Hashed counts of words and of groups of four letters."""
    vectors = np.zeros((len(sentences), _WORD_FEATURES))
    for row, sentence in zip(vectors, sentences, strict=True):
        text = f" {sentence.casefold()} "
        for feature in [*re.findall(r"\w+", text), *(text[k : k + 4] for k in range(len(text) - 3))]:
            row[
                int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=4).digest()) % _WORD_FEATURES
            ] += 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def directions(sentence: str) -> tuple[str, ...]:
    """The words of direction, number and speed in a sentence, in their order and in one spelling."""
    return tuple(_DIRECTIONS[word] for word in re.findall(r"\w+", sentence.casefold()) if word in _DIRECTIONS)


def near_duplicates(sentences: Sequence[str], vectors: np.ndarray, threshold: float = NEAR) -> list[int]:
    """Indices of the sentences to drop: each is similar to an earlier one and has the same words of direction.

    Args:
        vectors: [S, E] unit vectors.
    """
    signatures = [directions(sentence) for sentence in sentences]
    similar = vectors @ vectors.T >= threshold
    kept: list[int] = []
    dropped: list[int] = []
    for index, signature in enumerate(signatures):
        duplicate = any(similar[index, other] and signatures[other] == signature for other in kept)
        (dropped if duplicate else kept).append(index)
    return dropped


def representatives(sentences: Sequence[str], vectors: np.ndarray, count: int) -> list[int]:
    """One sentence per cluster: indices, ascending, of the `count` medoids of Ward's clustering.

    Args:
        vectors: [S, E] unit vectors, S ≥ count.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage

    if count >= len(vectors):
        return list(range(len(vectors)))
    names = sorted(set(_DIRECTIONS.values()))
    present = [[name in directions(sentence) for name in names] for sentence in sentences]
    features = np.concatenate([vectors, DIRECTION_WEIGHT * np.array(present, float)], 1)
    labels = cut_tree(linkage(features, "ward"), n_clusters=count)[:, 0]
    medoids = []
    for label in range(count):
        members = np.flatnonzero(labels == label)
        closeness = features[members] @ features[members].mean(0)
        medoids.append(int(members[np.argmax(closeness.round(9))]))  # the first of equals
    return sorted(medoids)
