"""The order in which training visits samples: a function of the seed, the epoch and the dataset.

An epoch is cut into global batches, one batch per rank after another; ranks take the batches in turn, and so do the
loader workers of a rank. The sequence therefore does not depend on the number of workers, and a position in it is a
single number.

The smallest read is one row group: one clip, or four clips in shards made until 0.1. One view group of one row group is
a *unit*. Units are shuffled. If they have several samples, they are then arranged in blocks of `mix` batches: each
batch of a block takes one sample from each unit of the block, and the next sample of the same unit follows `mix`
batches later. Each unit is thus fetched once, by a single worker if ranks × workers divides `mix`, and samples of one
unit never share a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TAILS = ("drop", "pad", "keep")


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """The sample order of every epoch.

    Attributes:
        samples: int64 [N], sample numbers (clip index × view groups + view group) in dataset order.
        units: int64 [N], unit of each sample.
        batch_size: samples per batch and rank.
        world_size: number of ranks.
        shuffle: False keeps the dataset order.
        seed: of the shuffles.
        tail: "drop", "pad" or "keep"; see `factory.dataset.loader.TrainingClips`.
        mix: batches per block.
    """

    samples: np.ndarray
    units: np.ndarray
    batch_size: int = 1
    world_size: int = 1
    shuffle: bool = True
    seed: int = 0
    tail: str = "drop"
    mix: int = 16

    def num_batches(self, rank: int) -> int:
        """Number of batches of a rank in a whole epoch."""
        per_step = self.world_size * self.batch_size
        if self.tail == "keep":
            remaining = len(self.samples) - rank * self.batch_size
            return max(0, -(-remaining // per_step))
        rounding = 0 if self.tail == "drop" else per_step - 1
        return (len(self.samples) + rounding) // per_step

    def batches(self, epoch: int, rank: int) -> list[np.ndarray]:
        """Sample numbers of every batch of a rank, int64 [B] each."""
        order = self.shuffled(epoch)
        per_step = self.world_size * self.batch_size
        if self.tail != "keep":
            order = np.resize(
                order, self.num_batches(rank) * per_step
            )  # truncates, or repeats from the start
        starts = range(rank * self.batch_size, len(order), per_step)
        return [order[start : start + self.batch_size] for start in starts]

    def shuffled(self, epoch: int) -> np.ndarray:
        """All sample numbers in the order of an epoch, int64 [N]."""
        if not self.shuffle:
            return self.samples
        random = np.random.default_rng((self.seed, epoch))
        unit_numbers, unit = np.unique(self.units, return_inverse=True)
        position = random.permutation(len(unit_numbers))[unit]  # of each sample's unit, after the shuffle
        by_unit = np.lexsort((random.random(len(unit)), position))
        samples, position = self.samples[by_unit], position[by_unit]
        turn = np.arange(len(position)) - np.searchsorted(position, position)  # 0, 1, … within the unit
        block = position // (self.mix * self.batch_size)
        return samples[np.lexsort((position, turn, block))]
