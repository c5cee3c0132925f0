"""The precision of a DIMO's weights: how they are stored, and conversion to other types.

Large matrices of the decoder and of the text head are stored as 8-bit integers. Like MXINT8 (OCP Microscaling Formats
specification 1.0), blocks of 32 columns share a power of two as their scale; unlike it, no element saturates and
the scale is stored in half precision. A value is an integer of at most 7 bits times a power of two, so it is exact in
float16, bfloat16 and float32, and rounding rounded weights again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.dimo.model import DIMO

Storage = Literal["int8", "float16"]  # of the matrices; version 0.1 stored them as float16
STORAGES = get_args(Storage)

# Stored in half precision or less, without a visible difference in renders. Key points stay in single precision: the
# decoder encodes them at up to 2⁹ radians per metre, where half-precision rounding would cause jitter.
HALVED = ("log_scales", "quats", "opacity_logits", "colors", "decoder.", "network.")
# Layers whose weights may be stored as int8. Not the root motion and the output layers: they are 2 % of the weights,
# but as int8 they move the key points by 0.5 mm in the mean, and all others together by 0.1 mm (docs/dimo.md).
MATRICES = ("decoder.trunk.", "decoder.offset_head.0.", "decoder.rotation_head.0.", "network.")
SCALE = ".scale"  # appended to the name of a matrix that is stored as int8
# Also stored in half precision beside int8, but computed in single: centres within 0.5 m are off by 0.12 mm at most.
HALVED_IN_FILES = ("means", "log_var")
BLOCK = 32  # columns that share a scale
LARGEST = 127
SMALLEST_EXPONENT = -24  # of a power of two in float16


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to 8-bit integers with one scale for each `BLOCK` columns of a row.

    The scale is the smallest power of two from 2⁻²⁴ with which no integer exceeds `LARGEST`. A block with NaN or
    infinity has such a scale, which `zoo.weights.check_weights` refuses.

    Args:
        matrix: [rows, columns].

    Returns:
        int8 [rows, columns] and scales float16 [rows, blocks]; the last block may be shorter.
    """
    rows, columns = matrix.shape
    blocks = F.pad(matrix.float(), (0, -columns % BLOCK)).reshape(rows, -1, BLOCK)
    largest = blocks.abs().amax(-1)
    exponent = (torch.frexp(largest).exponent - 7).clamp(min=SMALLEST_EXPONENT)
    exponent = torch.where(largest > 0, exponent, SMALLEST_EXPONENT)  # as of values that are rounded to 0
    scale = torch.ldexp(torch.ones_like(largest), exponent)
    scale = torch.where((largest / scale).round() > LARGEST, 2 * scale, scale)
    scale = torch.where(largest.isfinite(), scale, largest)
    integers = (blocks / scale[..., None]).nan_to_num(0.0).round().clamp(-LARGEST, LARGEST)
    return integers.to(torch.int8).reshape(rows, -1)[:, :columns].contiguous(), scale.half()


def dequantise(integers: Tensor, scale: Tensor) -> Tensor:
    """The matrix [rows, columns] in single precision that `quantise` returned as integers and scales."""
    return integers.float() * scale.float().repeat_interleave(BLOCK, 1)[:, : integers.shape[1]]


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


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The `state_dict()` of what `pack` returned; the tensors that are not int8 with a scale stay as they are."""
    return {
        name: dequantise(tensor, packed[name + SCALE]) if name + SCALE in packed else tensor
        for name, tensor in packed.items()
        if not name.endswith(SCALE)
    }


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


def dtype_name(dtype: torch.dtype) -> str:
    """Name of a type without "torch."."""
    return str(dtype).removeprefix("torch.")
