"""Recipes of MV-VDM trainings: network, training plans, clip size, sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from renderers.fields import Count, NotNegative, OneOf, Positive, Range, check_fields
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.plan import PREDICTIONS, TrainingPlan

TRAINING_VERSION = "3"  # increment when the same clips and recipe would give another model
PICTURE_STEP = 8  # pixels per latent, of the recipe's own autoencoder and of the published one
PROGRESS, RESULT = "progress.json", "result.json"
# Published parts that preset "paper" starts from; see `MVVDMPipeline.from_pretrained_parts`.
PARTS = ("mvdream", "motion_adapter", "ip_adapter", "base", "image_encoder")


@dataclass(frozen=True)
class MVVDMRecipe:
    """What is trained, and on clips of which size. Every field is part of the training's key.

    Attributes:
        network: sizes of the network.
        plan: how the network is trained.
        autoencoder: how a small autoencoder is trained first; None starts from published parts instead and trains
            only the layers that the paper trains.
        views, frames, resolution: size of a clip in the network's input.
        prediction_type, timestep_power, mirrored: what the network predicts, the distribution of noise levels, and
            whether mirrored examples are added; see `zoo.mvvdm.denoising`.
        guidance, temperature, sampling_steps: defaults of sampling; see `zoo.mvvdm.pipeline`.
    """

    network: MVVDMConfig
    plan: TrainingPlan
    autoencoder: TrainingPlan | None = None
    views: Count = 4
    frames: Annotated[int, Range(low=2)] = 16
    resolution: Annotated[int, Range(low=8, high=4096)] = 256
    prediction_type: Annotated[str, OneOf(*PREDICTIONS)] = "epsilon"
    timestep_power: Positive = 1.0
    mirrored: bool = False
    guidance: NotNegative = 7.5
    temperature: NotNegative = 1.0
    sampling_steps: Annotated[int, Range(low=1, high=1000)] = 25

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resolution % PICTURE_STEP:
            raise ValueError(
                f"MVVDMRecipe.resolution: expected a multiple of {PICTURE_STEP}, the side of one position of the "
                f"latents, got {self.resolution}"
            )
        if self.network.from_first and self.prediction_type != "sample":
            raise ValueError(
                "MVVDMRecipe.prediction_type: expected 'sample' for a network with from_first, which predicts "
                f"latents, got {self.prediction_type!r}"
            )

    @staticmethod
    def tiny() -> MVVDMRecipe:
        """Autoencoder and network from scratch, on creatures; about an hour on two CPU cores."""
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
        """The bundled model: as `tiny`, with a plan for a GPU; nine minutes on an H200 (docs/training.md)."""
        tiny = MVVDMRecipe.tiny()
        plan = replace(
            tiny.plan, steps=2_000, batch=64, learning_rate=1e-3, warmup=300, cooldown=800, precision="bf16"
        )
        return replace(tiny, plan=plan)

    @staticmethod
    def paper() -> MVVDMRecipe:
        """As published: starts from MVDream, AnimateDiff and IP-Adapter; three days on 32 GPUs."""
        return MVVDMRecipe(MVVDMConfig.base(), TrainingPlan.paper())

    def key_content(self) -> dict[str, Any]:
        """The fields as a training's key contains them, without options newer than version 0.1 that are off."""
        content = asdict(self)
        if self.network.spatial:
            del content["network"]["spatial"]
        return content

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> MVVDMRecipe:
        autoencoder = data["autoencoder"]
        return MVVDMRecipe(
            **{
                **data,
                "network": MVVDMConfig(**data["network"]),
                "plan": TrainingPlan(**data["plan"]),
                "autoencoder": autoencoder and TrainingPlan(**autoencoder),
            }
        )


RECIPES: dict[str, Callable[[], MVVDMRecipe]] = {
    "tiny": MVVDMRecipe.tiny,
    "bundled": MVVDMRecipe.bundled,
    "paper": MVVDMRecipe.paper,
}


def ablations(recipe: MVVDMRecipe) -> dict[str, MVVDMRecipe]:
    """Suffix of a model's name → recipe without a part of the network (Animate3D, Table 3a; the adapter is ours).

    Raises:
        ValueError: the recipe starts from published parts, which contain what an ablation leaves out.
    """
    if recipe.autoencoder is None:
        raise ValueError("--ablation: expected a preset that trains from scratch, such as tiny")
    network = recipe.network
    return {
        "without-spatial-attention": replace(recipe, network=replace(network, spatial=False)),
        "without-adapter": replace(recipe, network=replace(network, adapter="none")),
        "without-both": replace(recipe, network=replace(network, spatial=False, adapter="none")),
    }


def work_folder(key: str) -> str:
    """Folder of a training's checkpoints and progress, relative to the output."""
    return f"_factory/training/{key}"
