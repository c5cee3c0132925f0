"""The precision of a DIMO's weights: what is stored in half precision, and conversion to other types."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.dimo.model import DIMO

# Stored in half precision, without a visible difference in renders. Positions stay in single precision: the decoder
# encodes them at up to 2⁹ radians per metre, where half-precision rounding would cause jitter.
HALVED = ("log_scales", "quats", "opacity_logits", "colors", "decoder.")


@torch.no_grad()
def round_weights(model: DIMO) -> None:
    """Round the weights in `HALVED` to half precision, in place."""
    for name, tensor in model.state_dict().items():
        if name.startswith(HALVED):
            tensor.copy_(tensor.half())


@torch.no_grad()
def convert(model: DIMO, dtype: torch.dtype) -> DIMO:
    """Convert a model in place: `HALVED` to `dtype`, all other parameters to at least single precision."""
    single = torch.promote_types(dtype, torch.float32)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtype if name.startswith(HALVED) else single)
    return model


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a type without "torch."."""
    return str(dtype).removeprefix("torch.")


def packed(name: str, tensor: Tensor) -> Tensor:
    """Convert a tensor to its stored type: half precision for the names in `HALVED`, int32 for indices."""
    if not tensor.is_floating_point():
        return tensor.int().cpu()
    return (tensor.half() if name.startswith(HALVED) else tensor).cpu().contiguous()
