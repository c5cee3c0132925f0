"""Command-line overrides of a configuration: `--set joint.steps=100`."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Config = TypeVar("Config")


def changed(config: Config, changes: Iterable[str]) -> Config:
    """A configuration with some of its values changed: "key_points=64", "joint.steps=100".

    Raises:
        ValueError: there is no such value, or it is of another kind.
    """
    for change in changes:
        path, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set {change}: expected NAME=VALUE, such as joint.steps=100")
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            pass  # a word
        config = _changed(config, path.split("."), value, change)
    return config


def _changed(config: Any, path: list[str], value: Any, change: str) -> Any:
    known = [option.name for option in fields(config)]
    if path[0] not in known:
        raise ValueError(
            f"--set {change}: {type(config).__name__} has no {path[0]!r}, only {', '.join(known)}"
        )
    before = getattr(config, path[0])
    if is_dataclass(before):
        value = _changed(before, path[1:] or [""], value, change)
    elif path[1:] or not (
        before is None or type(value) is type(before) or (type(before), type(value)) == (float, int)
    ):
        raise ValueError(f"--set {change}: expected something like {path[0]}={before!r}")
    return replace(config, **{path[0]: value})
