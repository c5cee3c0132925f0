"""Types and ranges of the fields of a configuration dataclass, stated in its annotations and checked when it is made.

    @dataclass(frozen=True)
    class Plan:
        steps: Count
        rate: Positive = 1e-4
        precision: Annotated[str, OneOf("fp32", "bf16")] = "fp32"

        def __post_init__(self) -> None:
            check_fields(self)

The same annotations check a single value before it enters a dataclass, such as an option of the command line.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from renderers.arguments import flag, integer, number, shown


@dataclass(frozen=True)
class Range:
    """Bounds of a number.

    Attributes:
        low, high: included.
        above, below: excluded.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = (
            ("at least", self.low),
            ("more than", self.above),
            ("at most", self.high),
            ("less than", self.below),
        )
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


@dataclass(frozen=True, init=False)
class OneOf:
    """The values that a text may have."""

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        object.__setattr__(self, "values", values)


Count = Annotated[int, Range(low=1)]
Whole = Annotated[int, Range(low=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(low=0)]
Fraction = Annotated[float, Range(low=0, high=1)]
_FIELD_TYPES: dict[type, dict[str, Any]] = {}  # dataclass → its fields; evaluating annotations takes a while


def check_fields(config: Any) -> None:
    """Check every field of a frozen dataclass against its annotation; for its `__post_init__`.

    NumPy's numbers become Python's and lists become tuples, so that the configuration can be hashed and written as
    JSON. Integers in fields of type float stay integers: hashes of configurations depend on it.

    Raises:
        TypeError, ValueError: the message names the class and the field.
    """
    for name, hint in field_types(type(config)).items():
        before = getattr(config, name)
        value = checked_value(before, hint, f"{type(config).__name__}.{name}")
        if value is not before:
            object.__setattr__(config, name, value)


def field_types(kind: type) -> dict[str, Any]:
    """Field → annotation with its ranges, of a dataclass."""
    if kind not in _FIELD_TYPES:
        hints = typing.get_type_hints(kind, include_extras=True)
        _FIELD_TYPES[kind] = {each.name: hints[each.name] for each in dataclasses.fields(kind)}
    return _FIELD_TYPES[kind]


def checked_value(value: Any, hint: Any, name: str) -> Any:
    """Return a value as a field of this annotation holds it.

    Args:
        value: of any type.
        hint: int, float, bool, str, a dataclass, a tuple of these, or one of them or None; numbers and texts may be
            `Annotated` with a `Range` or `OneOf`.
        name: what to call it in the message.

    Raises:
        TypeError: it has another type.
        ValueError: it is out of its range, not finite, or a tuple of another length.
    """
    hint, limits = _unwrapped(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and types.NoneType in options:
            return None
        return checked_value(value, next(each for each in options if each is not types.NoneType), name)
    if typing.get_origin(hint) is tuple:
        return _checked_tuple(value, typing.get_args(hint), name)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _checked_dataclass(value, hint, name)
    if hint is bool:
        return flag(value, name)
    if hint is str:
        return _checked_text(value, limits, name)
    if hint not in (int, float):
        return value
    result = integer(value, name) if hint is int else number(value, name)
    if any(result not in limit for limit in limits):
        raise ValueError(f"{name}: expected {' and '.join(map(str, limits))}, got {result:g}")
    return value if type(value) is int else result


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type of an annotation, and its ranges."""
    if typing.get_origin(hint) is Annotated:
        return hint.__origin__, hint.__metadata__
    return hint, ()


def _checked_text(value: Any, limits: tuple[Any, ...], name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {shown(value)}")
    for limit in limits:
        if value not in limit.values:
            raise ValueError(f"{name}: expected one of {', '.join(limit.values)}, got {value!r}")
    return value


def _checked_tuple(value: Any, hints: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name}: expected a tuple, such as {_example(hints)}, got {shown(value)}")
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise ValueError(f"{name}: expected {len(hints)} values, got {shown(value)}")
    result = tuple(
        checked_value(each, hint, f"{name}[{i}]")
        for i, (each, hint) in enumerate(zip(value, hints, strict=True))
    )
    if isinstance(value, tuple) and all(a is b for a, b in zip(result, value, strict=True)):
        return value
    return result


def _example(hints: tuple[Any, ...]) -> str:
    """A tuple of these types, for a message: (1, 1)."""
    hints = (hints[0],) * 2 if hints[-1] is Ellipsis else hints
    parts = []
    for hint in hints:
        kind, _ = _unwrapped(hint)
        is_tuple = typing.get_origin(kind) is tuple
        parts.append(
            _example(typing.get_args(kind))
            if is_tuple
            else {int: "1", float: "0.1", bool: "True"}.get(kind, "…")
        )
    return f"({', '.join(parts)})"


def _checked_dataclass(value: Any, kind: type, name: str) -> Any:
    """An instance of a dataclass, made from a dictionary of its fields if that is given, as JSON does."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {shown(value)}")
    if unknown := sorted(map(str, value.keys() - field_types(kind).keys())):
        raise ValueError(f"{name}: {kind.__name__} has no field {unknown[0]!r}")
    return kind(**value)
