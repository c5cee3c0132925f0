"""Command-line overrides of a configuration: `--set joint.steps=100`."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

from renderers.fields import checked_value, field_types

Config = TypeVar("Config")
Changes = dict[str, Any]  # field → new value, or the changes of the dataclass in it
_LITERALS = (int, float, bool, str, tuple, list, type(None))


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """A copy of a configuration with overrides such as "key_points=64" or "joint.steps=100".

    All overrides are applied together, so values that only fit each other may be given in any order. Of two values for
    one field, the last is taken.

    Args:
        config: a frozen dataclass; its fields may be dataclasses.
        overrides: dotted field name, "=", Python literal. What is not a literal is taken as a string.
    Raises:
        ValueError: a field does not exist, a value has another type than the field or is out of its range, or the
            values do not fit each other.
    """
    changes: Changes = {}
    overrides = list(overrides)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ValueError(f"--set {override}: expected NAME=VALUE, such as joint.steps=100")
        try:
            _add_change(changes, config, path.split("."), _literal(text), path)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--set {override}: {error}") from None
    try:
        return _replaced(config, changes)
    except ValueError as error:
        raise ValueError(f"{' '.join(f'--set {each}' for each in overrides)}: {error}") from None


def _literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # a string, or deeper than Python reads
        return text
    return value if isinstance(value, _LITERALS) else text


def _add_change(changes: Changes, config: Any, path: Sequence[str], value: Any, name: str) -> None:
    """Check one override and add it to the changes. `name`: the whole dotted path, for errors.

    Raises:
        TypeError, ValueError: the field does not exist, or cannot have this value.
    """
    types = field_types(type(config))
    field, rest = path[0], path[1:]
    if field not in types:
        similar = _similar(field, config, name.removesuffix(".".join(path)))
        advice = f"; similar: {', '.join(similar)}" if similar else ""
        raise ValueError(f"{type(config).__name__} has no {field!r}, only {', '.join(types)}{advice}")
    before = getattr(config, field)
    if is_dataclass(before):
        _add_change(changes.setdefault(field, {}), before, rest or [""], value, name)
    elif rest:
        raise ValueError(f"{type(config).__name__}.{field} has no fields here, it is {before!r}")
    else:
        changes[field] = checked_value(value, types[field], name)


def _similar(field: str, config: Any, prefix: str) -> list[str]:
    """Dotted names below a configuration whose last part is similar to `field`."""
    names = {prefix + path: path.rpartition(".")[2] for path in _dotted(config)}
    close = difflib.get_close_matches(field, set(names.values()), n=3)
    return [name for each in close for name, last in names.items() if last == each][:4]


def _dotted(config: Any) -> Iterator[str]:
    """Names of all values of a configuration, such as "joint.steps"."""
    for field in field_types(type(config)):
        value = getattr(config, field)
        yield from (f"{field}.{name}" for name in _dotted(value)) if is_dataclass(value) else (field,)


def _replaced(config: Any, changes: Changes) -> Any:
    inner = {
        name: _replaced(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(config, **inner)
