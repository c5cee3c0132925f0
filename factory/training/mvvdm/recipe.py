"""What MV-VDM is trained with: network, schedule, clip size, sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.plan import PREDICTIONS, TrainingPlan

TRAINING_VERSION = "3"  # raise it when the same clips and recipe would give another model
PROGRESS, RESULT = "progress.json", "result.json"
PARTS = ("mvdream", "motion_adapter", "ip_adapter", "base", "image_encoder")


@dataclass(frozen=True)
class MVVDMRecipe:
    """What is trained, and on what size of clips.

    Attributes:
        network: its sizes. plan: how it is learnt.
        autoencoder: how a small one is learnt first; None begins with published parts instead, which stay as they are
            but for those that the paper trains.
        views, frames, resolution: of a clip as the network sees it.
        prediction_type, timestep_power, mirrored: what the network predicts, how noisy its frames are, and whether
            it also sees mirrored examples; see `zoo.mvvdm.denoising`.
        guidance, temperature, sampling_steps: when it samples.
    """

    network: MVVDMConfig
    plan: TrainingPlan
    autoencoder: TrainingPlan | None = None
    views: int = 4
    frames: int = 16
    resolution: int = 256
    prediction_type: str = "epsilon"
    timestep_power: float = 1.0
    mirrored: bool = False
    guidance: float = 7.5
    temperature: float = 1.0
    sampling_steps: int = 25

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTIONS:
            raise ValueError(
                f"MVVDMRecipe.prediction_type: expected one of {', '.join(PREDICTIONS)}, got {self.prediction_type!r}"
            )
        if self.network.from_first and self.prediction_type != "sample":
            raise ValueError(
                "MVVDMRecipe.prediction_type: a network with from_first finds latents, expected 'sample', got "
                f"{self.prediction_type!r}"
            )

    @staticmethod
    def tiny() -> MVVDMRecipe:
        """All of it from nothing, on creatures, in an hour of two CPU cores."""
        return MVVDMRecipe(
            network=MVVDMConfig.tiny(),
            plan=TrainingPlan(
                steps=7_000,
                batch=2,
                learning_rate=4e-4,
                warmup=200,
                cooldown=2_500,
                precision="fp32",
                ema=0.999,
            ),
            autoencoder=TrainingPlan(
                steps=1_500,
                batch=2,
                learning_rate=2e-3,
                warmup=50,
                weight_decay=1e-4,
                precision="fp32",
                ema=0.995,
            ),
            frames=8,
            resolution=64,
            prediction_type="sample",
            timestep_power=0.5,
            mirrored=True,
            guidance=1.0,
            temperature=0.5,
        )

    @staticmethod
    def bundled() -> MVVDMRecipe:
        """What the package carries: the small one, in nine minutes of an H200 (docs/training.md)."""
        tiny = MVVDMRecipe.tiny()
        plan = replace(
            tiny.plan, steps=2_000, batch=64, learning_rate=1e-3, warmup=300, cooldown=800, precision="bf16"
        )
        return replace(tiny, plan=plan)

    @staticmethod
    def paper() -> MVVDMRecipe:
        """As published: MVDream, AnimateDiff and IP-Adapter to begin with, 32 GPUs for three days."""
        return MVVDMRecipe(MVVDMConfig.base(), TrainingPlan.paper())

    @staticmethod
    def from_json(told: dict[str, Any]) -> MVVDMRecipe:
        autoencoder = told["autoencoder"]
        return MVVDMRecipe(
            **{
                **told,
                "network": MVVDMConfig(**told["network"]),
                "plan": TrainingPlan(**told["plan"]),
                "autoencoder": autoencoder and TrainingPlan(**autoencoder),
            }
        )


RECIPES: dict[str, Callable[[], MVVDMRecipe]] = {
    "tiny": MVVDMRecipe.tiny,
    "bundled": MVVDMRecipe.bundled,
    "paper": MVVDMRecipe.paper,
}


def work_folder(key: str) -> str:
    return f"_factory/training/{key}"
