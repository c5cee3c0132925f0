"""Prompt tokens of a small MV-VDM: one per clause, with the part of the video that the clause describes.

A network trained on a few hundred captions learns "sits" and "looks left", but does not generalise to "sits and looks
left" if that is embedded as a whole: in a sentence embedding it is a point of its own, close to many others. As two
tokens, the prompt is made of parts that the network has seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

ALL_ALONG, FIRST, LATER = PARTS = range(3)  # parts of the video; without "then", a prompt describes all of it


def clauses(sentence: str) -> list[tuple[str, int]]:
    """Split a sentence into clauses.

    Args:
        sentence: for example "sits and nods, then barks".

    Returns:
        Clauses and the part of the video that each describes: [("sits", FIRST), ("nods", FIRST), ("barks", LATER)].
        An empty sentence is one empty clause.
    """
    moments = re.split(r",?\s+(?:and\s+)?then\s+", sentence.strip())
    parts = [ALL_ALONG] if len(moments) == 1 else [FIRST] + [LATER] * (len(moments) - 1)
    return [
        (clause, part)
        for moment, part in zip(moments, parts, strict=True)
        for clause in re.split(r",?\s+and\s+|,\s+", moment)
    ]


def encode_sentences(sentences: Sequence[str], encoder: str) -> Tensor:
    """Encode sentences with one token per clause.

    A token is the clause's embedding, a unit vector scaled by √E, so that its entries are about 1 like those of CLIP's
    tokens, followed by the one-hot encoding of its part of the video.

    Args:
        sentences: B of them.
        encoder: name of a language model of `zoo.text_encoder` with embeddings of dimension E.

    Returns:
        [B, L, E + 3], L the largest number of clauses; sentences of fewer clauses are padded with zeros.
    """
    tokens = [
        torch.stack([_token(clause, part, encoder) for clause, part in clauses(sentence)])
        for sentence in sentences
    ]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)


def _token(clause: str, part: int, encoder: str) -> Tensor:
    embedding = _embedding(clause, encoder)
    return torch.cat([embedding * len(embedding) ** 0.5, torch.eye(len(PARTS))[part]])


@lru_cache(maxsize=4096)  # in training, clauses recur at every step
def _embedding(clause: str, encoder: str) -> Tensor:
    from zoo.text_encoder import load_text_encoder

    return load_text_encoder(encoder)([clause])[0]
