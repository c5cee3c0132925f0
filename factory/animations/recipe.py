"""The settings of `factory.animate`, and the tasks that depend on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from factory.assets.licences import Policy
from factory.assets.record import AssetRecord
from factory.clips.jobs import ANY_LICENCE
from factory.console import option
from zoo.animate3d.limits import MOST_INFLUENCES

ANIMATION_VERSION = "1"  # increment when the same model, sentence and settings would give another animation


@dataclass(frozen=True)
class AnimationRecipe:
    """How a model is animated. Every field is part of the key of an animation's task.

    Attributes:
        noise_seed: seed of the video model's noise.
        inference_steps, guidance_scale: of the video model; None is its default.
        stiffness: see `zoo.animate`.
        form: "skin" or "morph"; None decides by the model (`zoo.animate3d.Animation.form`).
        tolerance: to which key frames are left out, as a share of the model's diagonal.
        influences: most joints per vertex of a skin.
    """

    noise_seed: int = option(0, "seed of the video model's noise")
    inference_steps: int | None = option(
        None, "denoising steps of the video model (default: its own)", at_least=1
    )
    guidance_scale: float | None = option(None, "guidance of the video model (default: its own)", at_least=0)
    stiffness: str = option(
        "generated", "of the surface, against videos whose views disagree", choices=("rendered", "generated")
    )
    form: str | None = option(
        None,
        "how the motion is stored (default: as a skin; as morph targets if the file's own skin or animation moves the "
        "model)",
        choices=("skin", "morph"),
    )
    tolerance: float = option(
        1e-4, "to which key frames are left out, as a share of the diagonal", at_least=0, at_most=1
    )
    influences: int = option(4, "most joints per vertex of a skin", at_least=1, at_most=MOST_INFLUENCES)

    def video_options(self) -> dict[str, Any]:
        """Return the options of a call of the video model."""
        options = {"num_inference_steps": self.inference_steps, "guidance_scale": self.guidance_scale}
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class VideoModel:
    """The MV-VDM that turns sentences into videos.

    Attributes:
        name: as for `zoo.load`. home: registry that is searched first; None is the default one.
        weights: file → SHA-256.
    """

    name: str
    home: str | None = None
    weights: dict[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, name: str, home: str | None = None) -> VideoModel:
        """Find a model and check its files.

        Raises:
            ZooError: it does not exist, is damaged, or does not animate objects.
        """
        from zoo import repository
        from zoo.capabilities import Operation
        from zoo.errors import UnsupportedError
        from zoo.families import capabilities_of
        from zoo.lookup import find

        located = find(name, Path(home) if home else None)
        family = located.check().family
        capabilities = capabilities_of(family)
        if capabilities is None or Operation.ANIMATE not in capabilities.operations:
            raise UnsupportedError(
                f"{name}: models of the family {family} do not animate objects; use an MV-VDM such as mvvdm/tiny"
            )
        files = repository.read_manifest(located.folder)
        weights = {file: files[file]["sha256"] for file in sorted(files) if file.endswith(".safetensors")}
        return cls(name, home, weights)


def settings_hash(recipe: AnimationRecipe, model: VideoModel) -> str:
    """Return 16 hexadecimal digits that identify everything but the 3D model and the sentence."""
    content = {"version": ANIMATION_VERSION, "weights": model.weights, "recipe": asdict(recipe)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ModelJob:
    """Open a 3D model and list its animations.

    Attributes:
        asset: record of the model, as its source lists it.
        sentences: that it is animated by.
        terms: licence policy that it must satisfy.
    """

    asset: AssetRecord
    sentences: tuple[str, ...]
    terms: Policy = ANY_LICENCE

    def to_json(self) -> dict[str, Any]:
        """Return the job as a task's payload."""
        return {
            "asset": self.asset.to_json(),
            "sentences": list(self.sentences),
            "terms": self.terms.to_json(),
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> ModelJob:
        """Create a job from the result of `to_json`."""
        asset = AssetRecord.from_json(payload["asset"])
        return cls(asset, tuple(payload["sentences"]), Policy.from_json(payload["terms"]))


@dataclass(frozen=True)
class AnimationJob:
    """Animate a 3D model by a sentence.

    Attributes:
        asset: record of the model, completed with what its file states.
        sentence: what happens.
    """

    asset: AssetRecord
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the job as a task's payload."""
        return {"asset": self.asset.to_json(), "sentence": self.sentence}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> AnimationJob:
        """Create a job from the result of `to_json`."""
        return cls(AssetRecord.from_json(payload["asset"]), payload["sentence"])


def read_job(payload: Mapping[str, Any]) -> ModelJob | AnimationJob:
    """Return the job in a task's payload."""
    return AnimationJob.from_json(payload) if "sentence" in payload else ModelJob.from_json(payload)
