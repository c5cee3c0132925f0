"""The precision of a DIMO's weights: how they are stored, and conversion to other types.

Large matrices of the decoder and of the text head are stored as 8-bit integers (`zoo.precision`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.dimo.model import DIMO
from zoo.precision import SCALE, Storage, quantise, unpack

# Stored in half precision or less, without a visible difference in renders. Key points stay in single precision: the
# decoder encodes them at up to 2⁹ radians per metre, where half-precision rounding would cause jitter.
HALVED = ("log_scales", "quats", "opacity_logits", "colors", "decoder.", "network.")
# Layers whose weights may be stored as int8. Not the root motion and the output layers: they are 2 % of the weights,
# but as int8 they move the key points by 0.5 mm in the mean, all others together by 0.1 (docs/dimo-experiments.md).
MATRICES = ("decoder.trunk.", "decoder.offset_head.0.", "decoder.rotation_head.0.", "network.")
# Also stored in half precision beside int8, but computed in single: centres within 0.5 m are off by 0.12 mm at most.
HALVED_IN_FILES = ("means", "log_var")


def pack(state: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Convert a `state_dict()` of a `DIMO` or a `TextHead` to the types in which it is stored, on the CPU.

    Args:
        state: name → tensor.
        storage: of the weights in `MATRICES`. With "float16", indices are int32, as in version 0.1; otherwise the
            smallest type that holds them.
    """
    packed = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            packed[name] = tensor.to(torch.int32 if storage == "float16" else _smallest_type(tensor))
        elif storage == "int8" and name.startswith(MATRICES) and tensor.ndim == 2:
            packed[name], packed[name + SCALE] = quantise(tensor)
        else:
            half = name.startswith(HALVED) or (storage == "int8" and name in HALVED_IN_FILES)
            packed[name] = (tensor.half() if half else tensor).contiguous()
    return packed


def _smallest_type(indices: Tensor) -> torch.dtype:
    largest = int(indices.max()) if indices.numel() else 0
    return next(each for each in (torch.uint8, torch.int16, torch.int32) if largest <= torch.iinfo(each).max)


def round_weights(module: nn.Module, storage: Storage) -> None:
    """Round the weights of a `DIMO` or a `TextHead` to the precision in which they are stored, in place."""
    module.load_state_dict(unpack(pack(module.state_dict(), storage)))


@torch.no_grad()
def convert(model: DIMO, dtype: torch.dtype) -> DIMO:
    """Convert a model in place: `HALVED` to `dtype`, all other parameters to at least single precision."""
    single = torch.promote_types(dtype, torch.float32)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtype if name.startswith(HALVED) else single)
    return model


def same_weights(a: DIMO, b: DIMO) -> bool:
    """Whether two models have the same weights, on any devices.

    Tensors of different precision are not compared. Latents and positions always have single precision.
    """
    if a is b:
        return True
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        tensor.shape == second[name].shape
        and (tensor.dtype != second[name].dtype or torch.equal(tensor.cpu(), second[name].cpu()))
        for name, tensor in first.items()
    )


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a type without "torch."."""
    return str(dtype).removeprefix("torch.")
