"""Command-line options of `python -m factory.train dimo`."""

from __future__ import annotations

from dataclasses import dataclass

from factory.console import option
from factory.training.dimo import PRESETS, resolve_encoder
from factory.training.machine import check_lpips, check_resources, runs_here
from zoo.dimo.config import DIMOConfig
from zoo.errors import OptionError


@dataclass(frozen=True)
class DIMOTrainingOptions:
    """How the motion spaces are trained."""

    preset: str = option("laptop", "network and length of the training", choices=tuple(PRESETS))
    set: tuple[str, ...] = option(
        (), "override values of the preset, such as joint.steps=100", metavar="NAME=VALUE"
    )
    seed: int = option(0, "of the training: initial weights and the order of the examples", at_least=0)
    cpus: float = option(1.0, "CPUs per training, may be a fraction", more_than=0)
    gpus: float = option(0.0, "GPUs per training, may be a fraction such as 0.25", at_least=0)
    gpu_memory: float = option(
        0.0,
        "GPU memory that one training needs, in GiB: as many trainings share a GPU as have room (with --gpus 1)",
        at_least=0,
    )
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

    def check(self, config: DIMOConfig, workers: int | None) -> None:
        """Check what the trainings need beside motion videos, before any is rendered.

        Raises:
            OptionError: this machine lacks CPUs or GPUs, or a pretrained network is not available.
        """
        from zoo.text_encoder import check_text_encoder

        if self.gpu_memory and not self.gpus:
            raise OptionError("--gpu-memory: the trainings use no GPU: add --gpus 1, or leave it out")
        check_resources(self.cpus, self.gpus, workers)
        if encoder := resolve_encoder(self.text):
            check_text_encoder(encoder, "--text")
        if config.losses.lpips and runs_here(workers):
            check_lpips()
