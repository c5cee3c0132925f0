"""The hyperparameters of a training. Defaults are the paper's and its official code's."""

from __future__ import annotations

from dataclasses import dataclass

from renderers.arguments import integer, number

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

    steps: int
    batch: int = 32
    learning_rate: float = 1e-4
    warmup: int = 0
    cooldown: int = 0
    weight_decay: float = 1e-2
    clip: float = 1.0
    precision: str = "fp16"
    ema: float = 0.9999

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"TrainingPlan.precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        for name, low in (("steps", 1), ("batch", 1), ("warmup", 0), ("cooldown", 0)):
            object.__setattr__(self, name, integer(getattr(self, name), f"TrainingPlan.{name}", low))
        for name in ("learning_rate", "weight_decay", "clip", "ema"):
            number(getattr(self, name), f"TrainingPlan.{name}", 0.0)
        if not self.ema < 1:
            raise ValueError(
                f"TrainingPlan: expected steps and batch of 1 or more and 0 <= ema < 1, got steps={self.steps}, "
                f"batch={self.batch}, ema={self.ema}"
            )

    @staticmethod
    def paper() -> TrainingPlan:
        """The published training: 20 epochs of 83 716 clips with four groups of views each, batch 32, no averaging."""
        return TrainingPlan(steps=20 * 4 * 83_716 // 32, ema=0.0)
