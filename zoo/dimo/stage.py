"""What all stages of training have in common."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from zoo.dimo.context import TrainingContext
from zoo.dimo.feed import Batch, Feed
from zoo.dimo.objective import StepLoss
from zoo.dimo.optimizer import NamedAdam


class Stage(Protocol):
    """A number of steps of one kind, which change `TrainingContext.model`.

    Attributes:
        name: in reports and checkpoints.
        steps: how many.
        feed: of the batches.
        adam: the optimiser, whose state is stored in a checkpoint.
    """

    name: str
    steps: int
    feed: Feed
    adam: NamedAdam

    def advance(self, step: int, batch: Batch) -> StepLoss:
        """Take one step.

        Args:
            step: index within this stage, from 0.
            batch: data of the step, on the training device.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """State to be stored in a checkpoint, besides the model and the optimiser."""
        ...

    def finish(self) -> Tensor | None:
        """Do what is left to do after the last step; may return something for the next stage."""
        ...


def run_stage(run: TrainingContext, stage: Stage) -> None:
    """Take all steps of a stage."""
    for step, batch in enumerate(stage.feed.batches(0, stage.steps)):
        stage.advance(step, batch.to(run.device))
    stage.finish()
