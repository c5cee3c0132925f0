"""Checks of the arguments of `zoo.mvvdm.train`, before anything is computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from renderers.arguments import flag, instance, integer, shown
from renderers.gaussians.checks import torch_device
from zoo.mvvdm.plan import TrainingPlan


def check_training(
    objective: Any,
    batches: Any,
    plan: Any,
    checkpoint: Any,
    save_every: Any,
    seed: Any,
    device: Any,
    at_once: Any,
    sharded: Any,
    validate_every: Any,
) -> tuple[int, int, int, int, bool, torch.device]:
    """Check the arguments of `train` by the same names.

    Returns:
        seed, save_every, at_once, validate_every, sharded and device in Python's and torch's types.

    Raises:
        TypeError, ValueError: one is of another type or out of range.
    """
    instance(objective, nn.Module, "train: objective")
    instance(plan, TrainingPlan, "train: plan")
    if not callable(batches):
        raise TypeError(f"train: batches: expected a function of the step, got {shown(batches)}")
    if checkpoint is not None and not (hasattr(checkpoint, "read") and hasattr(checkpoint, "write")):
        raise TypeError(f"train: checkpoint: expected a CheckpointFile or the like, got {shown(checkpoint)}")
    return (
        integer(seed, "train: seed", 0),
        integer(save_every, "train: save_every", 1),
        integer(at_once, "train: at_once", 1),
        integer(validate_every, "train: validate_every", 0),
        flag(sharded, "train: sharded"),
        torch_device(device, "train: device"),
    )
