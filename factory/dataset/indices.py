"""Indices of views and frames, as users give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderers.arguments import integer, shown

Indices = int | slice | Sequence[int] | None


def resolve_indices(indices: Indices, count: int, kind: str) -> list[int]:
    """Convert an index, a slice or a list to non-negative indices below `count`."""
    if indices is None:
        return list(range(count))
    wrong = TypeError(
        f"Clip.read: {kind}s: expected an index, a slice or a list of indices, got {shown(indices)}"
    )
    if not isinstance(indices, int | slice | Sequence | np.ndarray | np.generic) or isinstance(
        indices, str | bytes
    ):
        raise wrong
    try:
        chosen = indices if isinstance(indices, slice) else np.asarray(indices)
        if isinstance(chosen, np.ndarray) and not chosen.size:
            return []
        if isinstance(chosen, np.ndarray) and (chosen.dtype.kind not in "iub" or chosen.ndim > 1):
            raise wrong
        resolved = np.arange(count)[chosen]
    except IndexError:
        raise IndexError(f"{kind} {indices} of a clip with {count} {kind}s") from None
    except (TypeError, ValueError):  # a ragged list, a slice of texts
        raise wrong from None
    return np.atleast_1d(resolved).tolist()


def checked_frames(frames: Sequence[int], count: int, function: str) -> list[int]:
    """Return indices of frames as a list.

    Args:
        frames: in 0..count-1, in any order.
        count: number of frames.
        function: name of the caller, for messages.

    Raises:
        TypeError: they are not several integers.
        IndexError: there is no such frame.
    """
    if isinstance(frames, str | bytes) or not isinstance(frames, Sequence | np.ndarray):
        raise TypeError(f"{function}: frames: expected several indices, got {shown(frames)}")
    result = [integer(each, f"{function}: frames") for each in frames]
    for each in result:
        if not 0 <= each < count:
            raise IndexError(f"{function}: frames: no frame {each} of a video of {count} frames")
    return result
