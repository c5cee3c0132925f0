"""The hyperparameters of a training. Defaults are the paper's and its official code's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from renderers.fields import Count, NotNegative, OneOf, Positive, Range, Whole, check_fields

PRECISIONS = ("fp32", "bf16", "fp16")
PREDICTIONS = ("epsilon", "sample", "v_prediction")  # diffusers' prediction types


@dataclass(frozen=True)
class TrainingPlan:
    """The hyperparameters that, together with data and seed, determine the result of a training.

    Attributes:
        steps: steps of the optimiser.
        batch: examples per step, over all workers.
        learning_rate: of AdamW.
        warmup: steps in which the learning rate rises linearly from 0.
        cooldown: steps at the end in which it falls linearly to 0.
        weight_decay: of AdamW.
        clip: largest norm of the gradient of all trained parameters.
        precision: "fp32", or "bf16" or "fp16" for autocast with fp32 weights; "fp16" uses loss scaling.
        ema: decay of the exponential moving average of the parameters, which is the result of the training; 0 for no
            averaging. At step s the decay is min(ema, (1 + s) / (10 + s)).
    """

    steps: Count
    batch: Count = 32
    learning_rate: Positive = 1e-4
    warmup: Whole = 0
    cooldown: Whole = 0
    weight_decay: NotNegative = 1e-2
    clip: Positive = 1.0
    precision: Annotated[str, OneOf(*PRECISIONS)] = "fp16"
    ema: Annotated[float, Range(low=0, below=1)] = 0.9999

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def paper() -> TrainingPlan:
        """The published training: 20 epochs of 83 716 clips with four groups of views each, batch 32, no averaging."""
        return TrainingPlan(steps=20 * 4 * 83_716 // 32, ema=0.0)
