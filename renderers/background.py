"""The background argument of every function that composites or renders over a colour.

A background is a grey or an RGB colour, sRGB-encoded: floats in 0..1 or integers in 0..255, told apart by their type.
Both give the same pixels: `(1.0, 1.0, 1.0)` is `(255, 255, 255)`, and `(127 / 255,) * 3` is `(127, 127, 127)`.
Integers that are all 0 or 1, such as `(1, 1, 1)`, would be white as floats and black as bytes. They are refused, except
for `(0, 0, 0)`, which is black in both, and for arrays and tensors of type uint8, which are always 0..255.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from renderers.arguments import shown

if TYPE_CHECKING:
    from torch import Tensor

Background: TypeAlias = "float | Sequence[float] | np.ndarray | Tensor"
EXPECTED = "a grey or RGB as floats in 0..1, such as (1.0, 1.0, 1.0), or as integers in 0..255"


def background_color(background: Any, name: str = "background") -> tuple[float, float, float]:
    """Return a background as RGB in 0..1.

    Args:
        background: a number or three of them; see the module's docstring.
        name: what to call it in the message.

    Raises:
        TypeError: it is not a number or three numbers, or mixes integers and floats.
        ValueError: it does not have one or three values, one is NaN or out of range, or it is ambiguous.
    """
    values, are_bytes = _values(background, name)
    r, g, b = (value / 255 for value in values) if are_bytes else values
    return r, g, b


def background_bytes(background: Any, name: str = "background") -> tuple[int, int, int]:
    """Return a background as RGB in 0..255, floats rounded to nearest; otherwise as `background_color`."""
    values, are_bytes = _values(background, name)
    r, g, b = (int(value) if are_bytes else int(np.rint(255 * value)) for value in values)
    return r, g, b


def background_array(background: np.ndarray, name: str = "background") -> np.ndarray:
    """Return colours [..., D] of any shape as floats in 0..1: integers are divided by 255, floats are returned as is.

    Raises:
        TypeError: the array has another type.
        ValueError: integers are out of 0..255, or ambiguous.
    """
    if background.dtype.kind == "f":
        return background
    if background.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected {EXPECTED}, got {shown(background)}")
    if background.size:
        _check_range((background.min(), background.max()), True, background, name)
        if background.dtype != np.uint8 and background.max() == 1:
            raise ValueError(_ambiguous(background, name))
    return background / 255


def _values(background: Any, name: str) -> tuple[list[float], bool]:
    """Return three numbers, and whether they are in 0..255."""
    expected = f"{name}: expected {EXPECTED}, got {shown(background)}"
    exact = str(getattr(background, "dtype", "")).removeprefix("torch.") == "uint8"
    if hasattr(background, "detach"):
        try:
            background = background.detach().cpu().tolist()
        except (RuntimeError, NotImplementedError):  # a meta tensor has no values
            raise ValueError(expected) from None
    elif isinstance(background, np.ndarray | np.generic):
        background = background.tolist()
    if isinstance(background, numbers.Number):
        background = [background]
    if not isinstance(background, list | tuple | Sequence) or isinstance(background, str | bytes):
        raise TypeError(expected)
    values = [value.item() if isinstance(value, np.generic) else value for value in background]
    if len(values) not in (1, 3):
        raise ValueError(expected)
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise TypeError(expected)
    integers = sum(isinstance(value, int) for value in values)
    if 0 < integers < len(values):
        floats = ", ".join(f"{float(value):g}" if value % 1 else f"{float(value):.1f}" for value in values)
        raise TypeError(
            f"{name}: expected either floats in 0..1 or integers in 0..255, got a mix, {shown(background)}; "
            f"write ({floats}) if these are floats"
        )
    _check_range(values, bool(integers), background, name)
    if integers and not exact and max(values) == 1:
        raise ValueError(_ambiguous(background, name))
    return (values if len(values) == 3 else values * 3), bool(integers)


def _check_range(values: Sequence[float], integers: bool, background: Any, name: str) -> None:
    if not all(0 <= value <= (255 if integers else 1) for value in values):  # also false for NaN
        raise ValueError(f"{name}: expected {EXPECTED}, got {shown(background)}")


def _ambiguous(background: Any, name: str) -> str:
    return (
        f"{name}: {shown(background)} is ambiguous, it could be floats in 0..1 or integers in 0..255: write 1.0 "
        f"instead of 1 for full intensity, or an array of type uint8 for 1/255"
    )
