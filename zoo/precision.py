"""Large weights stored as 8-bit integers.

Like MXINT8 (OCP Microscaling Formats specification 1.0), blocks of 32 columns share a power of two as their scale;
unlike it, no element saturates and the scale is stored in half precision. A value is an integer of at most 7 bits times
a power of two, so it is exact in float16, bfloat16 and float32, and rounding rounded weights again changes nothing.

In a file, the scales of the tensor `name` are the tensor `name` + `SCALE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import RepositoryError
from zoo.weights import ADVICE, check_kind

Storage = Literal["int8", "float16"]  # of a model's large weights; version 0.1 stored them as float16
STORAGES = get_args(Storage)
SCALE = ".scale"  # appended to the name of a tensor that is stored as int8
BLOCK = 32  # columns that share a scale
LARGEST = 127
SMALLEST_EXPONENT = -24  # of a power of two in float16


def quantise(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Round weights to 8-bit integers with one scale for each `BLOCK` columns of a row.

    The scale is the smallest power of two from 2⁻²⁴ with which no integer exceeds `LARGEST`. A block with NaN or
    infinity has such a scale, which `zoo.weights.check_weights` refuses.

    Args:
        weights: [rows, …]; all further dimensions together are the columns.

    Returns:
        int8 [rows, …] and scales float16 [rows, blocks]; the last block may be shorter.
    """
    matrix = weights.float().flatten(1)
    rows, columns = matrix.shape
    blocks = F.pad(matrix, (0, -columns % BLOCK)).reshape(rows, -1, BLOCK)
    largest = blocks.abs().amax(-1)
    exponent = (torch.frexp(largest).exponent - 7).clamp(min=SMALLEST_EXPONENT)
    exponent = torch.where(largest > 0, exponent, SMALLEST_EXPONENT)  # as of values that are rounded to 0
    scale = torch.ldexp(torch.ones_like(largest), exponent)
    scale = torch.where((largest / scale).round() > LARGEST, 2 * scale, scale)
    scale = torch.where(largest.isfinite(), scale, largest)
    integers = (blocks / scale[..., None]).nan_to_num(0.0).round().clamp(-LARGEST, LARGEST)
    integers = integers.to(torch.int8).reshape(rows, -1)[:, :columns]
    return integers.reshape(weights.shape).contiguous(), scale.half()


def dequantise(integers: Tensor, scale: Tensor) -> Tensor:
    """The weights [rows, …] in single precision that `quantise` returned as integers and scales."""
    matrix = integers.float().flatten(1)
    return (matrix * scale.float().repeat_interleave(BLOCK, 1)[:, : matrix.shape[1]]).reshape(integers.shape)


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file: those with a scale in single precision, all others as they are."""
    scales = {name + SCALE for name in packed}
    return {
        name: dequantise(tensor, packed[name + SCALE]) if name + SCALE in packed else tensor
        for name, tensor in packed.items()
        if name not in scales
    }


def check_scales(file: Path, part: str, state: Mapping[str, Tensor]) -> None:
    """Refuse scales that do not fit the integers that they belong to, or are not positive numbers.

    Args:
        file: for messages.
        part: the part of the model whose tensors `state` has; their names in the file begin with it.

    Raises:
        RepositoryError: one sentence with the file and the tensor.
    """
    for name, scale in state.items():
        weights = state.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
        if weights is None:
            continue
        if weights.dtype != torch.int8 or weights.ndim < 2:
            raise RepositoryError(
                f"{file}: the tensor {f'{part}.{name}'!r} belongs to a tensor of {weights.dtype} "
                f"{list(weights.shape)}, expected a matrix of int8; {ADVICE}"
            )
        check_kind(scale, True, file, f"{part}.{name}")
        expected = [len(weights), -(-weights[0].numel() // BLOCK)]
        if list(scale.shape) != expected:
            raise RepositoryError(
                f"{file}: the tensor {f'{part}.{name}'!r} is {list(scale.shape)}, expected {expected}: one scale for "
                f"each {BLOCK} columns of a row; {ADVICE}"
            )
        if not (scale.isfinite() & (scale > 0)).all():
            raise RepositoryError(
                f"{file}: the tensor {f'{part}.{name}'!r} has values that are not positive numbers, expected scales of "
                f"a matrix of int8; {ADVICE}"
            )
