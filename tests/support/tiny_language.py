"""A small GPT-2 of transformers' own class that writes one answer whatever it is asked."""

from __future__ import annotations

from pathlib import Path

import torch
from byte_tokenizer import byte_tokenizer


def save_answering_model(folder: Path, pieces: list[str]) -> Path:
    """Save a causal language model whose next token depends on the last one only, and its tokenizer.

    Its blocks and positions add nothing, so that a hidden state is that of the last token's embedding. The output layer
    is solved for: after the end of a chat prompt, the pieces of the answer, then the end.

    Args:
        pieces: of the answer, all different; each becomes a token.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = byte_tokenizer(chat=True)
    tokenizer.add_tokens(pieces)
    size = len(tokenizer)
    config = GPT2Config(
        vocab_size=size, n_positions=8192, n_embd=32, n_layer=1, n_head=2, eos_token_id=0, bos_token_id=0,
        pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    start = tokenizer("assistant: ")["input_ids"][-1]
    chain = torch.tensor([start, *tokenizer.convert_tokens_to_ids(pieces), tokenizer.eos_token_id])
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        model.transformer.wpe.weight.zero_()
        model.transformer.wte.weight.normal_(generator=torch.Generator().manual_seed(0))
        states = model.transformer.ln_f(model.transformer.wte.weight[chain[:-1]])
        targets = torch.nn.functional.one_hot(chain[1:], size).float()
        model.lm_head.weight.copy_(torch.linalg.lstsq(states, 40 * targets).solution.T)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
