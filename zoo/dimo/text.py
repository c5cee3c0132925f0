"""Text head: predicts from a sentence's embedding a weighted mean of the training motions' latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderers.arguments import instance, integer
from zoo.dimo.rephrase import rephrase
from zoo.text_encoder import MINILM, load_text_encoder

PHRASINGS = 24  # paraphrases per sentence in training
NOISE = 0.3  # expected norm of the Gaussian noise added to the unit embeddings in training
SHARPNESS = 3.0  # inverse softmax temperature at inference: ambiguous sentences select few motions


class TextHead(nn.Module):
    """MLP from a sentence embedding to weights [M] of the training motions; their weighted mean is the latent.

    The result is a convex combination of the trained latents, so the decoder is never evaluated far from them.
    Deviation from the paper, which regresses the latent's coordinates (methods §4.7): regression shrinks ambiguous
    sentences towards the mean of all motions.
    """

    def __init__(self, encoder: str, width: int, motions: int, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, motions)
        )

    @staticmethod
    def from_state(encoder: str, state: dict[str, Tensor]) -> TextHead:
        """Build the head from its `state_dict()`; layer sizes are read from the tensors' shapes."""
        hidden, width = state["network.0.weight"].shape
        head = TextHead(encoder, width, len(state["network.3.weight"]), hidden)
        head.load_state_dict(state)
        return head.requires_grad_(False).eval()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Weights [S, M] of sentence embeddings [S, E]; each row sums to 1."""
        return (SHARPNESS * self.network(embeddings)).softmax(-1)

    @torch.no_grad()
    def shares(self, sentence: str) -> Tensor:
        """Weights [M] of one sentence."""
        instance(sentence, str, "TextHead.shares: sentence")
        return self(load_text_encoder(self.encoder)([sentence]))[0]


def train_text_head(
    sentences: Sequence[str],
    paraphrases: Sequence[Sequence[str]] | None = None,
    *,
    name: str = MINILM,
    steps: int = 1000,
    seed: int = 0,
) -> TextHead:
    """Train a text head by cross-entropy on paraphrases (methods §4.7; about ten seconds on one CPU core).

    Args:
        sentences: one per motion, in the model's order, [M].
        paraphrases: further phrasings of each sentence; None = generate them with `rephrase`.
        name: name of the language model, see `zoo.text_encoder`.
        steps: number of AdamW steps at learning rate 1e-3; a batch has four phrasings of every motion.
        seed: seed of initialisation, batches, noise and paraphrases.

    Raises:
        ValueError: the number of paraphrase lists differs from the number of sentences.
    """
    steps, seed = integer(steps, "train_text_head: steps", 0), integer(seed, "train_text_head: seed", 0)
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
    phrasings = [[sentence, *others] for sentence, others in zip(sentences, paraphrases, strict=True)]
    embedded = load_text_encoder(name)([phrase for group in phrasings for phrase in group])
    groups = embedded.split([len(group) for group in phrasings])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = TextHead(name, embedded.shape[1], len(sentences)).train()
        adam = torch.optim.AdamW(head.network.parameters(), 1e-3, weight_decay=1e-2)
        labels = torch.arange(len(groups)).repeat_interleave(4)
        for _ in range(steps):
            batch = torch.cat([group[torch.randint(len(group), (4,))] for group in groups])
            # Divided by √E, so that the expected norm of the noise is about NOISE for any embedding size E.
            batch = batch + NOISE * torch.randn_like(batch) / batch.shape[1] ** 0.5
            loss = F.cross_entropy(head.network(batch), labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return head.requires_grad_(False).eval()
