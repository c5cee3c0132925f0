"""How long, how fast and how precisely something is learnt: one JSON-able record, with the paper's values."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16", "fp16")
PREDICTIONS = ("epsilon", "sample", "v_prediction")  # diffusers' names of what a network may predict


@dataclass(frozen=True)
class TrainingPlan:
    """What decides what is learnt, beside the data.

    Attributes:
        steps: of the optimiser. batch: examples of a step, of all workers together.
        learning_rate: constant, after `warmup` steps in which it grows from 0 and before the last `cooldown` steps, in
            which it falls to 0 again.
        weight_decay: AdamW's. clip: of the gradient's norm over all that is learnt.
        precision: "fp32"; "bf16" or "fp16" for autocast with weights in fp32, the latter with loss scaling.
        ema: decay of the average over steps of what is learnt, which is what is kept in the end; 0 for none. Early
            averages forget faster: (1 + step) / (10 + step), if that is less.
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
        if self.steps < 1 or self.batch < 1 or not 0 <= self.ema < 1:
            raise ValueError(
                f"TrainingPlan: expected steps and batch of 1 or more and 0 <= ema < 1, got {self.steps}, "
                f"{self.batch} and {self.ema}"
            )

    @staticmethod
    def paper() -> TrainingPlan:
        """Twenty epochs of four view groups of 83 716 clips, 32 at a time; the published run kept no average."""
        return TrainingPlan(steps=20 * 4 * 83_716 // 32, ema=0.0)
