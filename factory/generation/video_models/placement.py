"""Presets for cards of 16, 24, 48 and 80 GB: weights on the card or streamed, tiling, weights in eight bits."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class CardPreset:
    """How a pipeline is placed on a card.

    Attributes:
        gb: memory of the card.
        resident_gb: weights up to this size stay on the card; larger models are streamed from the CPU layer by layer.
        tiling: decode the video in tiles. slicing: decode one video of a batch at a time.
        eight_bit: hold the weights of the transformer in float8 (e4m3) and compute in the usual type.
    """

    gb: int
    resident_gb: float
    tiling: bool
    slicing: bool
    eight_bit: bool


PRESETS: tuple[CardPreset, ...] = (
    CardPreset(16, resident_gb=6, tiling=True, slicing=True, eight_bit=True),
    CardPreset(24, resident_gb=10, tiling=True, slicing=True, eight_bit=False),
    CardPreset(48, resident_gb=30, tiling=True, slicing=False, eight_bit=False),
    CardPreset(80, resident_gb=60, tiling=False, slicing=False, eight_bit=False),
)
_NO_CARD = CardPreset(0, resident_gb=float("inf"), tiling=False, slicing=False, eight_bit=False)
_DENOISERS = ("transformer", "transformer_2", "unet")


def preset_for(card_gb: float | None, device: torch.device) -> CardPreset:
    """The preset of the largest card that is not larger than this one; a smaller card gets the smallest preset.

    Args:
        card_gb: memory to use; None for that of the device. On the CPU without a number, nothing is changed.
    """
    if card_gb is None:
        if device.type != "cuda":
            return _NO_CARD
        # Cards have a little less than their name says, e.g. 23.6 GiB.
        card_gb = torch.cuda.get_device_properties(device).total_memory / 1e9 * 1.02
    fitting = [preset for preset in PRESETS if preset.gb <= card_gb]
    return fitting[-1] if fitting else PRESETS[0]


def weights_gb(pipeline: Any) -> float:
    """Size of all weights of a pipeline, in GB."""
    modules = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    return sum(each.numel() * each.element_size() for module in modules for each in module.parameters()) / 1e9


def apply_preset(pipeline: Any, preset: CardPreset, device: torch.device) -> bool:
    """Place a pipeline on a device.

    Returns:
        Whether its weights are streamed from the CPU.
    """
    vae = pipeline.vae
    if preset.tiling:
        with contextlib.suppress(NotImplementedError):  # SVD decodes a few frames at a time instead
            vae.enable_tiling()
    if preset.slicing:
        with contextlib.suppress(NotImplementedError):  # one video at a time anyway
            vae.enable_slicing()
    if preset.eight_bit:
        for name in _DENOISERS:
            module = getattr(pipeline, name, None)
            if module is not None:
                module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=module.dtype)
    streamed = weights_gb(pipeline) > preset.resident_gb
    if streamed:
        # Leaf by leaf with a stream: the next layer's weights are copied while this one computes.
        pipeline.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
            use_stream=device.type == "cuda",
        )
    else:
        pipeline.to(device)
    return streamed
