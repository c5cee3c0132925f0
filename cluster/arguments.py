"""Checks of arguments that the public functions of `cluster` and `factory` share. Each error names the argument."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

TASK_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def text(value: Any, name: str) -> str:
    """Return a string. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {_shown(value)}")
    return value


def location(value: Any, name: str) -> str:
    """Return a path or URL as a string.

    Raises:
        TypeError: it is neither a string nor a path of strings.
        ValueError: it is empty or has a NUL character.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(written := os.fspath(value), str):
        raise TypeError(f"{name}: expected a path or a URL, got {_shown(value)}")
    if not written or "\0" in written:
        raise ValueError(f"{name}: expected a path or a URL, got {written!r}")
    return written


def file_name(value: Any, name: str) -> str:
    """Return the name of a file relative to a root.

    Raises:
        TypeError: it is not a string.
        ValueError: it is empty, absolute, leaves the root, or has a NUL character.
    """
    parts = PurePosixPath(text(value, name)).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in value:
        raise ValueError(f"{name}: expected a path relative to the output root, without '..', got {value!r}")
    return value


def task_key_text(value: Any, name: str) -> str:
    """Return the key of a task.

    Raises:
        TypeError: it is not a string.
        ValueError: it cannot be a file name.
    """
    if not TASK_KEY.fullmatch(text(value, name)):
        raise ValueError(
            f"{name}: expected 1 to 200 letters, digits, '.', '_' or '-', starting with a letter or a digit, got "
            f"{value!r}; derive the key from the inputs with cluster.task_key"
        )
    return value


def integer(value: Any, name: str, low: int) -> int:
    """Return an integer of at least `low`.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is too small.
    """
    expected = f"{name}: expected an integer of at least {low}, got {_shown(value)}"
    if isinstance(value, bool) or _has_dimensions(value):
        raise TypeError(expected)
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(expected) from None
    if result < low:
        raise ValueError(expected)
    return result


def number(value: Any, name: str, low: float = 0.0, *, above: bool = False) -> float:
    """Check that a value is a finite number of at least `low`, or above it; return it as it is.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not finite, or too small.
    """
    expected = (
        f"{name}: expected a finite number {'above' if above else 'of at least'} {low:g}, got {_shown(value)}"
    )
    if isinstance(value, bool | str | bytes) or _has_dimensions(value):
        raise TypeError(expected)
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(expected) from None
    if not math.isfinite(result) or result < low or (above and result == low):
        raise ValueError(expected)
    return value


def instance(value: Any, kind: type, name: str) -> None:
    """Raise TypeError unless a value is an instance of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {_shown(value)}")


def function(value: Callable[..., Any] | None, name: str, *, optional: bool = True) -> None:
    """Raise TypeError unless a value can be called, or is None."""
    if not (callable(value) or (optional and value is None)):
        raise TypeError(f"{name}: expected a function{' or None' if optional else ''}, got {_shown(value)}")


def fields_of(value: Any, names: tuple[str, ...], name: str) -> None:
    """Check that a value is a mapping with these keys.

    Raises:
        TypeError: it is not a mapping.
        ValueError: a key is missing.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping with {', '.join(names)}, got {_shown(value)}")
    if missing := [each for each in names if each not in value]:
        raise ValueError(f"{name}: {', '.join(missing[:5])} is missing")


def texts(value: Any, name: str) -> list[str]:
    """Return several strings as a list. One string is refused: it would be taken as its characters.

    Raises:
        TypeError: it is not an iterable of strings.
    """
    try:
        result = None if isinstance(value, str | bytes | Mapping) else list(value)
    except TypeError:
        result = None
    if result is None or not all(isinstance(each, str) for each in result):
        raise TypeError(f"{name}: expected several texts, got {_shown(value)}")
    return result


def _shown(value: Any) -> str:
    written, kind = repr(value), type(value).__name__
    return f"{written} ({kind})" if len(written) <= 60 and "\n" not in written else f"a value of type {kind}"


def _has_dimensions(value: Any) -> bool:
    """Whether a value is an array or a tensor, and not a number of NumPy or torch."""
    return bool(getattr(value, "ndim", None))
