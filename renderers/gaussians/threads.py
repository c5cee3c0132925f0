"""The number of threads that the CPU back end uses."""

from __future__ import annotations

_threads: int | None = None


def set_threads(count: int | None) -> None:
    """Set the number of threads of the CPU back end in this process; None follows `torch.get_num_threads()`.

    Images and gradients are bit-identical for any count.

    Raises:
        ValueError: `count` is below 1.
    """
    global _threads
    if count is not None and count < 1:
        raise ValueError(f"set_threads: expected at least 1 thread or None, got {count}")
    _threads = count


def get_threads() -> int:
    """Return the number of threads that the CPU back end would use now."""
    if _threads is not None:
        return _threads
    import torch

    return torch.get_num_threads()
