"""Command-line options of `python -m factory.train dimo`."""

from __future__ import annotations

from dataclasses import dataclass

from factory.console import option
from factory.training.dimo import PRESETS


@dataclass(frozen=True)
class DIMOTrainingOptions:
    """How the motion spaces are trained."""

    preset: str = option("laptop", "network and length of the training", choices=tuple(PRESETS))
    set: tuple[str, ...] = option(
        (), "override values of the preset, such as joint.steps=100", metavar="NAME=VALUE"
    )
    seed: int = option(0, "of the training: initial weights and the order of the examples")
    cpus: float = option(1.0, "CPUs per training, may be a fraction", more_than=0)
    gpus: float = option(0.0, "GPUs per training, may be a fraction such as 0.25", at_least=0)
    checkpoint_seconds: float = option(60.0, "time between two checkpoints", more_than=0)
    max_hours: float = option(24.0, "time limit of one attempt at a training", more_than=0)
    skip_heldout: bool = option(False, "do not measure on the held-out motions")
    text: str = option(
        "auto",
        "language model of the text heads, a hub name or a folder; auto: the installed one, if any; none: no text "
        "heads",
        metavar="MODEL",
    )
    ablation: bool = option(False, "also train without each part of the method, and compare")
