"""A tokenizer of transformers' own class whose tokens are the 256 bytes, built without a file."""

from __future__ import annotations

from typing import Any

END = "<|endoftext|>"  # token 0
SIZE = 257
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_tokenizer(chat: bool = False) -> Any:
    """A Qwen2Tokenizer without merges; with `chat`, it has a chat template."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocabulary = {END: 0, **{byte: index + 1 for index, byte in enumerate(sorted(ByteLevel.alphabet()))}}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], unk_token=END, eos_token=END, pad_token=END)
    if chat:
        tokenizer.chat_template = _TEMPLATE
    return tokenizer
