"""Text head: finds the latent that a sentence describes, and how well any trained motion fits the sentence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.arguments import instance, integer, shown
from zoo.dimo.rephrase import rephrase
from zoo.errors import SentenceWarning, UnsupportedError
from zoo.text_encoder import MINILM, load_text_encoder

PHRASINGS = 24  # paraphrases per sentence in training
NOISE = 0.3  # expected norm of the Gaussian noise added to the unit embeddings in training
SHARPNESS = 3.0  # inverse softmax temperature at inference: ambiguous sentences select few motions
# A sentence fits if its similarity to a phrasing of a trained motion is at least FITS. Of 150 independently written
# paraphrases for three models, 8 % are below it; of 20 sentences about other things, 12 % are above (docs/motions.md).
FITS, COMPARED = 0.5, 4  # paraphrases per trained sentence that a sentence is compared with
KINDS = ("retrieval", "projection")


@dataclass(frozen=True)
class TextMatch:
    """How well the trained motions fit a sentence.

    Attributes:
        sentence: as given.
        nearest: sentence of the trained motion whose latent is nearest to the one found.
        confidence: largest cosine similarity of the sentence's embedding with those of the trained sentences and of
            some paraphrases, -1..1; below `FITS`, nothing that was trained fits the sentence.
    """

    sentence: str
    nearest: str
    confidence: float

    @property
    def fits(self) -> bool:
        """Whether a trained motion fits the sentence."""
        return self.confidence >= FITS

    def warn(self, model: str) -> None:
        """Issue a `SentenceWarning` on behalf of the caller's caller if no trained motion of the model fits."""
        if not self.fits:
            warnings.warn(
                f"{model}: no trained motion fits {self.sentence!r} (confidence {self.confidence:.2f}; a sentence that "
                f"fits has {FITS} or more); the nearest is {self.nearest!r}, see .sentences",
                SentenceWarning,
                stacklevel=3,
            )


class TextHead(nn.Module):
    """MLP from a sentence embedding to a latent, in one of two ways.

    "retrieval": the network gives weights [M] of the training motions, whose weighted mean is the latent. It is a
    convex combination of the trained latents, so the decoder is never evaluated far from them. Deviation from the
    paper, but more accurate (docs/motions.md). "projection": the network gives the latent's coordinates (methods §4.7);
    regression shrinks ambiguous sentences towards the mean of all motions.
    """

    def __init__(
        self, encoder: str, width: int, outputs: int, hidden: int = 128, kind: str = "retrieval"
    ) -> None:
        super().__init__()
        self.encoder = encoder
        if kind not in KINDS:
            raise ValueError(f"TextHead: kind: expected {' or '.join(KINDS)}, got {shown(kind)}")
        self.kind = kind
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, outputs)
        )

    @staticmethod
    def from_state(encoder: str, state: dict[str, Tensor], kind: str = "retrieval") -> TextHead:
        """Build the head from its `state_dict()`; layer sizes are read from the tensors' shapes."""
        hidden, width = state["network.0.weight"].shape
        head = TextHead(encoder, width, len(state["network.3.weight"]), hidden, kind)
        head.load_state_dict(state)
        return head.requires_grad_(False).eval()

    def to_json(self) -> dict[str, str]:
        """What `from_state` needs besides the tensors. The kind is left out where it is that of version 0.1."""
        return {"encoder": self.encoder} | ({} if self.kind == "retrieval" else {"kind": self.kind})

    def forward(self, embeddings: Tensor) -> Tensor:
        """Weights [S, M] of sentence embeddings [S, E], each row with sum 1; latents [S, Z] if `kind` is projection."""
        outputs = self.network(embeddings)
        return outputs if self.kind == "projection" else (SHARPNESS * outputs).softmax(-1)

    @torch.no_grad()
    def shares(self, sentence: str) -> Tensor:
        """Weights [M] of one sentence.

        Raises:
            UnsupportedError: a head of kind "projection" has none.
        """
        instance(sentence, str, "TextHead.shares: sentence")
        if self.kind == "projection":
            raise UnsupportedError(
                "TextHead.shares: this head predicts a latent, not weights of the trained motions; use TextHead.latent"
            )
        return self(load_text_encoder(self.encoder)([sentence]))[0]

    @torch.no_grad()
    def latent(self, sentence: str, mu: Tensor) -> Tensor:
        """Latent [Z] of a sentence, given the latents [M, Z] of the trained motions."""
        instance(sentence, str, "TextHead.latent: sentence")
        if self.kind == "retrieval":
            return self.shares(sentence).to(mu) @ mu
        return self(load_text_encoder(self.encoder)([sentence]))[0].to(mu)

    def match(self, sentence: str, trained: Sequence[str], nearest: str) -> TextMatch:
        """Compare a sentence with those of the trained motions; the first call takes about a second of CPU time."""
        phrasings = _embedded_phrasings(self.encoder, tuple(trained))
        similarity = load_text_encoder(self.encoder)([sentence]) @ phrasings.T
        return TextMatch(sentence, nearest, float(similarity.max()))


@lru_cache(maxsize=16)
def _embedded_phrasings(encoder: str, sentences: tuple[str, ...]) -> Tensor:
    """Embeddings of the sentences and of COMPARED paraphrases each, [·, E]."""
    return load_text_encoder(encoder)([text for s in sentences for text in (s, *rephrase(s, COMPARED))])


def train_text_head(
    sentences: Sequence[str],
    paraphrases: Sequence[Sequence[str]] | None = None,
    *,
    latents: Tensor | None = None,
    name: str = MINILM,
    steps: int = 1000,
    seed: int = 0,
) -> TextHead:
    """Train a text head on paraphrases (about ten seconds on one CPU core).

    The loss is the cross-entropy of the motion's index, or with `latents` the mean squared error (methods §4.7).

    Args:
        sentences: one per motion, in the model's order, [M].
        paraphrases: further phrasings of each sentence; None = generate them with `rephrase`.
        latents: of the motions, [M, Z], for a head of kind "projection" as in the paper; None = "retrieval".
        name: name of the language model, see `zoo.text_encoder`.
        steps: number of AdamW steps at learning rate 1e-3; a batch has four phrasings of every motion.
        seed: seed of initialisation, batches, noise and paraphrases.

    Raises:
        ValueError: the number of paraphrase lists differs from the number of sentences.
    """
    steps, seed = integer(steps, "train_text_head: steps", 0), integer(seed, "train_text_head: seed", 0)
    phrasings = _phrasings(sentences, paraphrases, seed)
    if latents is not None:
        instance(latents, Tensor, "train_text_head: latents")
        if latents.ndim != 2 or len(latents) != len(sentences):
            raise ValueError(
                f"train_text_head: latents: expected [{len(sentences)}, Z], one per sentence, got {list(latents.shape)}"
            )
    embedded = load_text_encoder(name)([phrase for group in phrasings for phrase in group])
    groups = embedded.split([len(group) for group in phrasings])
    outputs, kind = (len(sentences), "retrieval") if latents is None else (latents.shape[1], "projection")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = TextHead(name, embedded.shape[1], outputs, kind=kind).train()
        adam = torch.optim.AdamW(head.network.parameters(), 1e-3, weight_decay=1e-2)
        labels = torch.arange(len(groups)).repeat_interleave(4)
        for _ in range(steps):
            batch = torch.cat([group[torch.randint(len(group), (4,))] for group in groups])
            # Divided by √E, so that the expected norm of the noise is about NOISE for any embedding size E.
            batch = batch + NOISE * torch.randn_like(batch) / batch.shape[1] ** 0.5
            predicted = head.network(batch)
            if latents is None:
                loss = F.cross_entropy(predicted, labels)
            else:
                loss = F.mse_loss(predicted, latents.detach().float().cpu()[labels])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return head.requires_grad_(False).eval()


def _phrasings(
    sentences: Sequence[str], paraphrases: Sequence[Sequence[str]] | None, seed: int
) -> list[list[str]]:
    """Each sentence with its paraphrases; arguments of `train_text_head`, checked."""
    if paraphrases is not None:
        instance(paraphrases, Sequence, "train_text_head: paraphrases")
    for group in [sentences, *(paraphrases or ())]:
        if (
            not isinstance(group, Sequence)
            or isinstance(group, str)
            or not all(isinstance(s, str) for s in group)
        ):
            raise TypeError(
                f"train_text_head: sentences and paraphrases: expected lists of strings, got {group!r}"
            )
    if not sentences:
        raise ValueError("train_text_head: sentences: expected at least one, got none")
    if paraphrases is None:
        paraphrases = [rephrase(sentence, PHRASINGS, seed) for sentence in sentences]
    if len(paraphrases) != len(sentences):
        raise ValueError(
            f"train_text_head: expected paraphrases for each of {len(sentences)} sentences, got {len(paraphrases)}"
        )
    return [[sentence, *others] for sentence, others in zip(sentences, paraphrases, strict=True)]
