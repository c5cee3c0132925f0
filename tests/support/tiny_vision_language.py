"""A tiny vision-language model of transformers' own classes, saved as a folder: no download, a second on one core."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers


def tokenizer(*special: str):
    """An untrained byte-level tokenizer: every byte is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


TEMPLATE = """{% for m in messages %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}\
{% else %}{{ marks[c.type] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}
{% endif %}"""


def template(**marks: str) -> str:
    return "{% set marks = " + json.dumps(marks) + " %}" + TEMPLATE


def lively(model):
    """Increase the weights so much that the caption depends on the frames."""
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5)
    return model


def save_tiny_llava(folder: Path, answer: str = "") -> Path:
    """Save a LLaVA with random weights, a class that takes single images.

    Args:
        answer: if given, the first character of every answer is that of this word.
    """
    torch.manual_seed(0)
    words = tokenizer("<image>")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=words.pad_token_id,
            eos_token_id=words.eos_token_id,
            bos_token_id=None,
        ),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    model = lively(transformers.LlavaForConditionalGeneration(config))
    if answer:
        _always(model, words.encode(answer)[0])
    model.save_pretrained(folder)
    transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template(image="<image>"),
    ).save_pretrained(folder)
    return folder


def _always(model: transformers.LlavaForConditionalGeneration, token: int) -> None:
    """Let the most probable token be this one.

    Without attention and MLPs, the state after the last token of a prompt is that token's embedding; here, all are 1.
    """
    language = model.model.language_model
    with torch.no_grad():
        for layer in language.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        language.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[token] = 1.0
