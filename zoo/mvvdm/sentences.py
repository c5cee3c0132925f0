"""What a small MV-VDM hears: a sentence clause by clause, each with the part of the video that it is about.

A network that has seen a few hundred sentences knows what "sits" and "looks left" are, but not that "sits and looks
left" is both of them: to a language model that is one more sentence, near many others. So each clause is a token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

ALL_ALONG, FIRST, LATER = PARTS = range(3)  # of the video; one that is told in one part is all along


def clauses(sentence: str) -> list[tuple[str, int]]:
    """Clauses and the part of the video that each is about: "sits and nods, then barks" → sits and nods are `FIRST`,
    barks is `LATER`. A sentence without words is one clause.
    """
    moments = re.split(r",?\s+(?:and\s+)?then\s+", sentence.strip())
    parts = [ALL_ALONG] if len(moments) == 1 else [FIRST] + [LATER] * (len(moments) - 1)
    return [
        (clause, part)
        for moment, part in zip(moments, parts, strict=True)
        for clause in re.split(r",?\s+and\s+|,\s+", moment)
    ]


def encode_sentences(sentences: Sequence[str], encoder: str) -> Tensor:
    """Sentences as one token a clause, [B, L, E + 3]; L is the largest number of clauses, and places left over are 0.

    A token is the clause as a language model (`zoo.text_encoder`) knows its sense, a unit vector made as long as √E, so
    that its numbers are about 1, as those of CLIP's tokens; and a 1 in the place of its part of the video.
    """
    told = [clauses(sentence) for sentence in sentences]
    known = [[_token(*clause, encoder) for clause in each] for each in told]
    return torch.nn.utils.rnn.pad_sequence([torch.stack(each) for each in known], batch_first=True)


def _token(clause: str, part: int, encoder: str) -> Tensor:
    embedding = _embedding(clause, encoder)
    return torch.cat([embedding * len(embedding) ** 0.5, torch.eye(len(PARTS))[part]])


@lru_cache(maxsize=4096)  # in training the same clauses come again and again
def _embedding(clause: str, encoder: str) -> Tensor:
    from zoo.text_encoder import load_text_encoder

    return load_text_encoder(encoder)([clause])[0]
