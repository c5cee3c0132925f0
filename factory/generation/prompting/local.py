"""A chat model that runs here: any causal language model that transformers loads."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from factory.generation.prompting.chat import LARGEST_ANSWER, Answer, ChatWriter, Messages
from factory.generation.prompting.files import PromptFiles
from renderers.arguments import integer, number
from zoo.errors import OptionError
from zoo.hub_access import check_pretrained

_INSTALL = "pip install 'menagerie4d[generation]'"


class LocalChat(ChatWriter):
    """A causal language model by name. Remote code is never run.

    Args:
        name: name on the hub, or folder.
        files: the prompt files; None for the packaged ones.
        batch: sentences asked for in one request.
        temperature: of the sampling; 0 takes the most probable token.
        max_new_tokens: limit of an answer.
        device: e.g. "cuda"; None for a GPU if there is one.

    Raises:
        OptionError: the model does not exist or cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        *,
        files: PromptFiles | None = None,
        batch: int = 40,
        temperature: float = 0.8,
        max_new_tokens: int = 1680,
        device: str | None = None,
    ) -> None:
        super().__init__(files, batch)
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise OptionError(f"language model {name}: needs transformers ({error}): {_INSTALL}") from None
        from zoo.seeds import untouched  # imports torch

        check_pretrained(name, "language model")
        self.name, self.temperature = name, number(temperature, "temperature", 0, 10)
        self.max_new_tokens = integer(max_new_tokens, "max_new_tokens", 1)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        local = Path(name).is_dir()
        dtype: Any = "auto" if self.device.type == "cuda" else torch.float32
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=local)
            with untouched():
                self._model: Any = AutoModelForCausalLM.from_pretrained(
                    name, dtype=dtype, local_files_only=local
                )
        except (OSError, ValueError, KeyError) as error:
            raise OptionError(
                f"language model {name}: cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from None
        self._model.to(self.device).eval()  # type: ignore[arg-type]
        self.origin = f"local:{Path(name).name if local else name}"

    def fingerprint(self) -> dict[str, str]:
        """Name and configuration of the model; a folder's weights enter by their sizes."""
        config = self._model.config.to_json_string()
        size = sum(each.numel() for each in self._model.parameters())
        return {
            "writer": "local",
            "model": self.origin,
            "config": hashlib.sha256(f"{config}{size}".encode()).hexdigest(),
            "temperature": str(self.temperature),
            "batch": str(self.batch),
            "max_new_tokens": str(self.max_new_tokens),
            "files": self.files.digest(),
        }

    def complete(self, messages: Messages, seed: int, counts: Counter[str]) -> Answer | None:
        """Generate one answer. The seed makes it reproducible on one machine; the global generator is left alone."""
        import torch

        counts["requests"] += 1
        tokens = self._tokenizer(self._prompt(messages), return_tensors="pt", add_special_tokens=False)
        prompt = tokens["input_ids"].to(self.device)
        room = getattr(self._model.config, "max_position_embeddings", None)
        length = prompt.shape[1]
        if not length:  # transformers loads some tokenizers without their vocabulary
            raise OptionError(
                f"language model {self.name}: its tokenizer gives no tokens; its files are incomplete"
            )
        if room is not None and length >= room:
            counts["prompt_too_long"] += 1
            return None
        limit = self.max_new_tokens if room is None else min(self.max_new_tokens, room - length)
        sampling = (
            {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        )
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            output = self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=limit,
                pad_token_id=self._tokenizer.pad_token_id or 0,
                eos_token_id=self._tokenizer.eos_token_id,
                **sampling,
            )[0, length:]
        ended = bool((output == self._tokenizer.eos_token_id).any())
        text = self._tokenizer.decode(output, skip_special_tokens=True)
        if len(text) > LARGEST_ANSWER:
            return Answer("", "oversized")
        return Answer(text, "stop" if ended else "length")

    def _prompt(self, messages: Messages) -> str:
        """The messages in the model's chat template, or one after the other for a model without one."""
        if getattr(self._tokenizer, "chat_template", None):
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return "\n".join(each["content"].strip() for each in messages) + "\n"
