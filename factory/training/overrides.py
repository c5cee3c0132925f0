"""Command-line overrides of a configuration: `--set joint.steps=100`."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Config = TypeVar("Config")


def apply_overrides(config: Config, overrides: Iterable[str]) -> Config:
    """A copy of a configuration with overrides such as "key_points=64" or "joint.steps=100".

    Args:
        config: a frozen dataclass; its fields may be dataclasses.
        overrides: dotted field name, "=", Python literal. What is not a literal is taken as a string.
    Raises:
        ValueError: a field does not exist, or the value's type is not the field's.
    """
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"--set {override}: expected NAME=VALUE, such as joint.steps=100")
        value: Any = text
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            pass  # a string
        config = _replaced(config, path.split("."), value, override)
    return config


def _replaced(config: Any, path: Sequence[str], value: Any, override: str) -> Any:
    """`config` with the field at `path` replaced. `override`: as the user wrote it, for errors."""
    names = [option.name for option in fields(config)]
    if path[0] not in names:
        raise ValueError(
            f"--set {override}: {type(config).__name__} has no {path[0]!r}, only {', '.join(names)}"
        )
    before = getattr(config, path[0])
    if is_dataclass(before):
        value = _replaced(before, path[1:] or [""], value, override)
    elif path[1:] or not _same_type(before, value):
        raise ValueError(f"--set {override}: expected something like {path[0]}={before!r}")
    return replace(config, **{path[0]: value})


def _same_type(before: Any, value: Any) -> bool:
    """Whether a value may replace another: of the same type, an int for a float, or anything for None."""
    return before is None or type(value) is type(before) or (type(before), type(value)) == (float, int)
