"""Checks of the tensors that the metrics compare: type, shape, device, and values where a metric would hide them."""

from __future__ import annotations

import torch
from torch import Tensor

from renderers.arguments import shown

_RANGE_TOLERANCE = 1e-3  # of values in 0..1: rounding of interpolation and compositing


def check_tensors(function: str, shape: str, **tensors: Tensor) -> dict[str, int]:
    """Check the type and the shape of tensors, and that they are on one device.

    Args:
        function: named in the message.
        shape: expected sizes, e.g. "V T 3 H W": numbers, or letters that stand for the same size in all tensors. A
            leading "..." stands for any dimensions, the same in all tensors.
        tensors: by name.

    Returns:
        The size of each letter.

    Raises:
        TypeError: an argument is not a tensor of real numbers.
        ValueError: one has another shape or another device, or no values.
    """
    letters = shape.split()
    leading = letters[0] == "..."
    letters = letters[1:] if leading else letters
    sizes: dict[str, int] = {}
    first = next(iter(tensors.values()))
    for name, tensor in tensors.items():
        expected = f"{function}: {name}: expected a tensor [{shape.replace(' ', ', ')}]"
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            raise TypeError(f"{expected}, got {shown(tensor)}")
        given = tensor.shape[tensor.ndim - len(letters) :] if leading else tensor.shape
        fits = len(given) == len(letters) and (not leading or tensor.ndim == first.ndim)
        for letter, size in zip(letters, given, strict=False):
            fits &= size == (int(letter) if letter.isdecimal() else sizes.setdefault(letter, size))
        if leading and fits:
            fits = tensor.shape[: tensor.ndim - len(letters)] == first.shape[: tensor.ndim - len(letters)]
        if not fits:
            agreed = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
            raise ValueError(f"{expected} with {agreed or 'equal shapes'}, got {list(tensor.shape)}")
        if tensor.device != first.device or tensor.device.type == "meta":
            raise ValueError(f"{expected} on one device with values, got {tensor.device} and {first.device}")
        if not tensor.numel():
            raise ValueError(f"{expected}, got an empty one, {list(tensor.shape)}")
    return sizes


def check_floats(function: str, **tensors: Tensor) -> None:
    """Check that tensors have floats, as images in 0..1 do, and not integers.

    Raises:
        TypeError: one has other numbers.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not torch.is_floating_point(tensor):
            raise TypeError(f"{function}: {name}: expected a tensor of floats, got {shown(tensor)}")


def check_finite(function: str, **tensors: Tensor) -> None:
    """Check that tensors have no NaN and no infinity, which comparisons would silently take for a value.

    Raises:
        ValueError: one has.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{function}: {name}: expected finite values, got {shown(tensor)} with NaN or infinity"
            )


def check_videos(function: str, shape: str = "V T 3 H W", least: int = 1, **videos: Tensor) -> dict[str, int]:
    """Check videos or images: floats in 0..1 without NaN, of one shape and on one device.

    Args:
        function: named in the message.
        shape: as for `check_tensors`.
        least: number of frames T.
        videos: by name.

    Returns:
        The size of each letter.

    Raises:
        TypeError: one does not have floats.
        ValueError: one has another shape or device, fewer frames, or values outside 0..1.
    """
    check_floats(function, **videos)
    sizes = check_tensors(function, shape, **videos)
    for name, video in videos.items():
        if sizes.get("T", least) < least:
            raise ValueError(
                f"{function}: {name}: expected at least {least} frames, got a tensor {list(video.shape)}"
            )
        low, high = (float(each) for each in video.aminmax())
        if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):  # NaN fails as well
            raise ValueError(
                f"{function}: {name}: expected values in 0..1 without NaN, got {low:g} to {high:g}"
            )
    return sizes
