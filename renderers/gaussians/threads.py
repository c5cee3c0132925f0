"""The number of threads that the CPU back end uses."""

from __future__ import annotations

from renderers.arguments import integer

_threads: int | None = None


def set_threads(count: int | None) -> None:
    """Set the number of threads of the CPU back end in this process; None follows `torch.get_num_threads()`.

    Images and gradients are bit-identical for any count.

    Raises:
        TypeError, ValueError: `count` is not an integer from 1 to 1024.
    """
    global _threads
    _threads = None if count is None else integer(count, "set_threads: count", 1, 1024)


def get_threads() -> int:
    """Return the number of threads that the CPU back end would use now."""
    if _threads is not None:
        return _threads
    import torch

    return torch.get_num_threads()
