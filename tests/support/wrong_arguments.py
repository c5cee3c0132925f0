"""What a table of wrong arguments consists of: good calls, values that are refused, and what a refusal is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import renderers
import zoo
from renderers import cameras, meshes
from zoo.dimo import Motion

OURS = tuple(str(Path(package.__file__).parent) for package in (zoo, renderers))
NAN, INF = float("nan"), float("inf")
META = torch.zeros((), device="meta")
NO_INTEGER: list[Any] = [
    5.5,
    5.0,
    NAN,
    "5",
    b"5",
    [5],
    True,
    1j,
    np.float32(5),
    np.array([5, 6]),
    torch.zeros(2),
    META,
]
NO_NUMBER: list[Any] = [NAN, INF, "1", b"1", [1.0], True, 1j, np.zeros(2), torch.zeros(2), META, 10**400]
NO_TEXT: list[Any] = [None, 7, b"hop", ["hop"], 1.5]
NO_PATH: list[Any] = [7, b"hop", ["hop"], 1.5, "", "a\0b"]
HUGE = 10**30


class Case(NamedTuple):
    """A function, arguments that it accepts, and for each argument values that it refuses."""

    call: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, list[Any]]
    same: dict[str, list[Any]] = {}


def ints(*more: Any) -> list[Any]:
    """Values that are no integer, and more."""
    return [*NO_INTEGER, *more]


def numbers(*more: Any) -> list[Any]:
    """Values that are no finite number, and more."""
    return [*NO_NUMBER, *more]


def orbit(views: int = 2, size: int = 8) -> cameras.Cameras:
    return cameras.orbit_cameras(np.arange(views) * 1.0, 0.2, 2.0, fov_y=0.6, width=size, height=size)


REFUSALS = (ValueError, TypeError, OSError, IndexError, zoo.ZooError, meshes.RenderError, LookupError)


def complaint(call: Callable[[], object], words: str) -> str | None:
    """Why a call is no refusal in a sentence of ours with one of these words; None if it is."""
    try:
        result = call()
    except REFUSALS as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = frame.tb_frame.f_code.co_filename if frame else ""
        if isinstance(error, KeyError):
            return f"a KeyError: {error}"
        if not place.startswith(OURS):
            return f"raised in {place}: {type(error).__name__}: {error}"
        if not any(word in str(error) for word in words.split("|")):
            return f"does not name {words}: {type(error).__name__}: {error}"
        return None
    except Exception as error:
        return f"another error, {type(error).__name__}: {error}"
    return f"accepted: {str(result)[:80]}"


def wrong_calls(case: Case) -> Iterator[tuple[str, Callable[[], object], str]]:
    """Description, call and words of every wrong call; a key "name (a|b)" has the words that its message may have."""
    for key, values in case.bad.items():
        name, _, words = key.partition(" (")
        for value in values:
            options = value if isinstance(value, dict) and key in ("split", "text head") else {name: value}
            call = lambda options=options: case.call(**(case.good | options))  # noqa: E731
            yield f"{name}={str(value)[:60]!r} ({type(value).__name__})", call, words.rstrip(")") or name


def plain(result: Any) -> Any:
    """A result as plain values that can be compared."""
    if isinstance(result, torch.Tensor | np.ndarray | np.generic):
        array = result.detach().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
        return array.dtype.str, array.shape, array.tobytes()
    if isinstance(result, Motion):
        return plain([result.phases, result.z, *result.trajectories])
    if is_dataclass(result):
        return {each.name: plain(getattr(result, each.name)) for each in fields(result)}
    if isinstance(result, list | tuple):
        return [plain(each) for each in result]
    return result
