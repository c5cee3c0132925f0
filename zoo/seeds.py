"""Seeds of samples that the caller gave no seed for, and protection of torch's global generator."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from renderers.arguments import integer

LIMIT = 2**31  # of random seeds: short enough to be written down


def random_seed() -> int:
    """Draw a seed from torch's global generator: reproducible after `torch.manual_seed`, another one at each call."""
    return int(torch.randint(LIMIT, ()))


def generator(seed: int | None) -> torch.Generator:
    """A generator on the CPU; without a seed, one from `random_seed`. With a seed, the global generator is not used.

    Raises:
        TypeError, ValueError: the seed is not an integer, or not one that torch takes.
    """
    seed = random_seed() if seed is None else integer(seed, "seed", -(2**63), 2**64 - 1)
    return torch.Generator().manual_seed(seed)


def untouched() -> AbstractContextManager[None]:
    """Restore the state of the global generator on the CPU, which initialising a module changes."""
    return torch.random.fork_rng(devices=[])
