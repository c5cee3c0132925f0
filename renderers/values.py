"""Equality, hash and repr of dataclasses and named tuples whose fields are arrays or tensors.

The methods that Python generates compare fields with `==`, which raises for arrays of several elements, and print them
whole.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

Class = TypeVar("Class", bound=type)
_LONGEST, _WHOLE = (
    60,
    180,
)  # characters of a field's text in a repr; of all fields before the rest is left out


def by_value(cls: Class) -> Class:
    """Class decorator: `==` compares the content of arrays, `hash` agrees with it, and `repr` is one line.

    Two values are equal if all fields are: arrays and tensors in shape, type, device and every element (NaN equals
    NaN), networks in class and weights. A repr in the class body is kept. Dataclasses are declared with eq=False and
    repr=False.
    """
    replaced: dict[str, Any] = {"__eq__": _equal, "__ne__": _unequal, "__hash__": _hash}
    if "__repr__" not in vars(cls) or issubclass(cls, tuple):
        replaced["__repr__"] = describe
    for name, method in replaced.items():
        setattr(cls, name, method)
    return cls


def describe(value: Any) -> str:
    """One line: the class, and each field that is not None, with arrays as their type and shape."""
    shown = [(name, each) for name, each in _fields(value, shown=True) if each is not None]
    text = ""
    for number, (name, each) in enumerate(shown):
        if len(text) > _WHOLE:
            text += f", and {len(shown) - number} more"
            break
        text += f"{', ' * bool(text)}{name}={_short(each)}"
    return f"{type(value).__name__}({text})"


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, see `by_value`; for containers, in all their elements."""
    if a is b:
        return True
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and _same_array(a, b)
    if _is_tensor(a) or _is_tensor(b):
        return _is_tensor(a) and _is_tensor(b) and _same_tensor(a, b)
    if type(a) is not type(b):
        return (
            bool(a == b) if isinstance(a, int | float | str) and isinstance(b, int | float | str) else False
        )
    if _is_module(a):
        return same(getattr(a, "config", None), getattr(b, "config", None)) and same(
            dict(a.state_dict()), dict(b.state_dict())
        )
    if is_dataclass(a):  # with the generated == or by_value's
        return all(same(mine, theirs) for (_, mine), (_, theirs) in zip(_fields(a), _fields(b), strict=True))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(each, b[key]) for key, each in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return a == b or (a != a and b != b)
    return bool(a == b)


def _equal(self: Any, other: object) -> bool:
    if isinstance(other, np.ndarray) or _is_tensor(other):
        return False  # they would compare with each element
    if type(other) is not type(self):
        return NotImplemented
    mine, theirs = (tuple(each for _, each in _fields(value)) for value in (self, other))
    return self is other or same(mine, theirs)


def _unequal(self: Any, other: object) -> bool:
    equal = _equal(self, other)
    return equal if equal is NotImplemented else not equal


def _hash(self: Any) -> int:
    return hash((type(self).__qualname__, *(_key(each) for _, each in _fields(self))))


def _fields(value: Any, shown: bool = False) -> list[tuple[str, Any]]:
    """Names and values of the fields that are compared, or of those that are shown."""
    if is_dataclass(value):
        chosen = [each for each in fields(value) if (each.repr if shown else each.compare)]
        return [(each.name, getattr(value, each.name)) for each in chosen]
    return list(zip(value._fields, value, strict=True))


def _key(value: Any) -> object:
    """Something hashable that equal values share."""
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return tuple(value.shape)
    if isinstance(value, str | int | bytes):
        return value
    return len(value) if isinstance(value, list | tuple | Mapping) else None


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _same_tensor(a: Any, b: Any) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.device != b.device or a.is_meta:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # without torch there are no tensors; this module does not import it
    return torch is not None and isinstance(value, torch.Tensor)


def _is_module(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if _is_tensor(value):
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{device}"
    if _is_module(value):
        return type(value).__name__
    text = " ".join(repr(value).split())
    if len(text) <= _LONGEST:
        return text
    if is_dataclass(value):
        return f"{type(value).__name__}(…)"
    if isinstance(value, list | tuple | Mapping | bytes):
        return f"<{len(value)} {'bytes' if isinstance(value, bytes) else 'entries'}>"
    return f"{text[: _LONGEST - 1]}…"
