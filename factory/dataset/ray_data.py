"""Training batches as a Ray Data dataset."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from cluster.arguments import instance, integer
from factory.dataset.loader import TrainingClips


def ray_dataset(clips: TrainingClips, epoch: int = 0, steps_per_task: int = 4) -> Any:
    """Return one epoch as a `ray.data.Dataset`: one row per sample, without `state`.

    Call it within `cluster.connect()`, or after Ray was initialised. With `world_size` 1, Ray can shard it
    (`streaming_split`). Rows are in the order of the epoch if Ray is configured to preserve order.

    Args:
        clips: the batches.
        epoch: number of the epoch.
        steps_per_task: batches read by one Ray task.

    Raises:
        ValueError: the batches are bfloat16, which NumPy lacks.
    """
    instance(clips, TrainingClips, "ray_dataset: clips")
    if clips.dtype == torch.bfloat16:
        raise ValueError(
            "ray_dataset: rows of Ray Data are NumPy arrays, which cannot be bfloat16; use dtype=torch.float16, "
            "float32 or uint8 in TrainingClips"
        )
    steps_per_task = integer(steps_per_task, "ray_dataset: steps_per_task", 1)
    batches = clips.epoch_batches(integer(epoch, "ray_dataset: epoch", 0))
    parts, rows = [], []
    for start in range(0, len(batches), steps_per_task):
        part = batches[start : start + steps_per_task]
        parts.append(partial(_read_arrays, clips, epoch, part))
        rows.append(sum(map(len, part)))
    from cluster import data

    return data.from_parts(parts, rows)


def _read_arrays(
    clips: TrainingClips, epoch: int, batches: list[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield each batch as columns of NumPy arrays, the form of a Ray Data block."""
    for batch in clips.read_batches(epoch, batches):
        if clips.batch_size is None:
            batch = {
                name: value[None] if isinstance(value, torch.Tensor) else [value]
                for name, value in batch.items()
            }
        yield {
            name: value.numpy() if isinstance(value, torch.Tensor) else np.array(value, object)
            for name, value in batch.items()
        }
