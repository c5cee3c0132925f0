"""Checks of numeric arguments that all public functions share, so that they accept and refuse the same values."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def integer(value: Any, name: str, low: int | None = None, high: int | None = None) -> int:
    """Return an integer argument as a Python int.

    Accepted are Python and numpy integers and integer arrays and tensors of one element without dimensions. Floats are
    refused even if they are whole (5.0), as Python, numpy and torch do, and so are booleans.

    Args:
        value: the argument.
        name: what to call it in the message, e.g. "Motion.save: resolution".
        low, high: bounds, included; None is unbounded.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is out of bounds.
    """
    expected = f"{name}: expected an integer{_bounds(low, high)}"
    if getattr(value, "ndim", 0) or _is_boolean(value):
        raise TypeError(f"{expected}, got {shown(value)}")
    try:
        result = operator.index(value)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # the last two are torch's
        advice = f"; write {int(value)}" if isinstance(value, float) and value.is_integer() else ""
        raise TypeError(f"{expected}, got {shown(value)}{advice}") from None
    if (low is not None and result < low) or (high is not None and result > high):
        raise ValueError(f"{expected}, got {result}")
    return result


def number(
    value: Any, name: str, low: float | None = None, high: float | None = None, *, above: float | None = None
) -> float:
    """Return a real, finite argument as a Python float: an int, a float, or a numpy or torch scalar of these.

    Args:
        value: the argument.
        name: what to call it in the message.
        low, high: bounds, included; None is unbounded.
        above: bound that the value must exceed.

    Raises:
        TypeError: it is not a number.
        ValueError: it is NaN, infinite or out of bounds.
    """
    bounds = f" above {above:g}" if above is not None else ""
    bounds += f"{' and' if bounds else ''} at most {high:g}" if bounds and high is not None else ""
    expected = f"{name}: expected a finite number{bounds or _bounds(low, high)}"
    if getattr(value, "ndim", 0) or isinstance(value, str | bytes) or _is_boolean(value):
        raise TypeError(f"{expected}, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{expected}, got {shown(value)}") from None
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        raise TypeError(f"{expected}, got {shown(value)}") from None
    inside = (low is None or result >= low) and (high is None or result <= high)
    if not math.isfinite(result) or not inside or (above is not None and result <= above):
        raise ValueError(f"{expected}, got {shown(value)}")
    return result


def flag(value: Any, name: str) -> bool:
    """Return a boolean argument: True, False, or numpy's.

    Raises:
        TypeError: it is neither.
    """
    if not _is_boolean(value):
        raise TypeError(f"{name}: expected True or False, got {shown(value)}")
    return bool(value)


def shown(value: Any) -> str:
    """A short description of an argument for a message: its value if that is short, else its type and shape."""
    shape = getattr(value, "shape", None)
    if shape is not None and hasattr(value, "dtype"):
        name = "tensor" if hasattr(value, "detach") else "array"
        return f"{value!r}" if not len(shape) and name == "array" else f"a {name} {value.dtype} {list(shape)}"
    written = repr(value)
    kind = type(value).__name__
    return f"{written} ({kind})" if len(written) <= 60 and "\n" not in written else f"a value of type {kind}"


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if isinstance(low, float) else f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"


def array(
    value: Any, name: str, shape: Sequence[int | str] | None = None, *, finite: bool = True
) -> np.ndarray:
    """Return an argument of real numbers as a float64 array.

    Args:
        value: an array, a tensor on the CPU, or nested sequences.
        name: what to call it in the message.
        shape: expected size of each dimension, or a letter for any; begins with "..." for any dimensions before. None
            is any shape.
        finite: whether NaN and infinity are refused.

    Raises:
        TypeError: it does not consist of real numbers.
        ValueError: it has another shape, or is not finite.
    """
    import numpy as np  # not at the top: `import zoo` needs no numpy

    written = "" if shape is None else f" [{', '.join(map(str, shape))}]"
    expected = f"{name}: expected numbers{written}"
    try:
        result = np.asarray(value)
        if result.dtype.kind not in "iuf":
            raise TypeError
        result = np.asarray(result, np.float64)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ):  # ragged sequences, tensors that need gradients, …
        raise TypeError(f"{expected}, got {shown(value)}") from None
    if shape is not None:
        sizes = tuple(shape[1:]) if shape[:1] == ("...",) else tuple(shape)
        given = result.shape[max(result.ndim - len(sizes), 0) :] if len(sizes) < len(shape) else result.shape
        fits = len(given) == len(sizes)
        if not fits or any(isinstance(a, int) and a != b for a, b in zip(sizes, given, strict=True)):
            raise ValueError(f"{expected}, got {list(result.shape)}")
    if finite and not np.isfinite(result).all():
        raise ValueError(f"{expected}, all finite, got {shown(value)} with NaN or infinity")
    return result


def instance(value: Any, kinds: type | tuple[type, ...], name: str) -> None:
    """Check the class of an argument.

    Raises:
        TypeError: it is of another class.
    """
    if not isinstance(value, kinds):
        names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
        raise TypeError(f"{name}: expected {' or '.join(names)}, got {shown(value)}")
