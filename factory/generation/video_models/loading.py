"""Loading of image-to-video models by name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from factory.console import notice
from factory.generation.video_models.adapters import ADAPTERS, PIPELINES, Adapter, find_adapter
from factory.generation.video_models.checkpoints import find_checkpoint, licence_of
from factory.generation.video_models.model import TEMPLATE, VideoModel, VideoModelError, VideoSettings
from factory.generation.video_models.placement import apply_preset, preset_for
from renderers.arguments import integer, number
from zoo.errors import OptionError
from zoo.seeds import untouched

INSTALL = "pip install 'menagerie4d[generation]'"


def load_video_model(
    name: str,
    *,
    device: str | None = None,
    card_gb: float | None = None,
    revision: str | None = None,
    quiet: bool = False,
    **options: Any,
) -> VideoModel:
    """Load an image-to-video pipeline of diffusers. Only safetensors are read, and no code of a repository is run.

    Args:
        name: name on the hub, or folder, of a model in diffusers' format.
        device: e.g. "cuda:1"; None for a GPU if there is one.
        card_gb: plan for a card of this size (see `PRESETS`); None for the card's own memory.
        revision: branch, tag or commit on the hub.
        quiet: do not print the licence's restrictions.
        **options: the fields of `VideoSettings`.

    Raises:
        OptionError: an option is wrong, or no such model exists.
        VideoModelError: a package is missing, or the model has no adapter or cannot be loaded.
    """
    settings = _settings(options)
    _require(name, ("diffusers", "transformers", "accelerate"))
    import diffusers

    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    preset = preset_for(None if card_gb is None else number(card_gb, "card_gb", above=0), place)
    adapters = _candidates(name, revision)
    _require(name, adapters[0].packages)
    dtype = getattr(torch, adapters[0].dtype) if place.type == "cuda" else torch.float32
    dtypes = {"default": dtype, **dict.fromkeys(adapters[0].float32, torch.float32)}
    local = Path(name).is_dir()
    pipeline = _load_pipeline(name, dtypes, revision)
    adapter = find_adapter(pipeline)
    settings = _with_defaults_of(name, settings)
    weights = _weights_digest(pipeline)
    streamed = apply_preset(pipeline, preset, place)

    licence, restrictions = licence_of(name, Path(name) if local else None)
    if restrictions and not quiet:
        notice(f"{name}: licence {licence}. {' '.join(restrictions)}")
    origin = {
        "revision": revision or "",
        "commit": _commit(pipeline),
        "weights": weights,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "card_gb": preset.gb,
        "streamed": streamed,
        "eight_bit": preset.eight_bit,
        "tiling": preset.tiling,
    }
    return VideoModel(
        pipeline, adapter, settings, name=name if not local else Path(name).name, licence=licence,
        restrictions=restrictions, device=place, origin=origin,
    )  # fmt: skip


def _load_pipeline(name: str, dtypes: dict[str, Any], revision: str | None) -> Any:
    """Load the pipeline, each component in its type."""
    import diffusers

    try:
        with untouched():
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                name,
                dtype=dtypes,
                use_safetensors=True,
                revision=revision,
                local_files_only=Path(name).is_dir(),
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise VideoModelError(f"{name}: cannot be loaded: {' '.join(str(error).split())[:400]}") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _with_defaults_of(name: str, settings: VideoSettings) -> VideoSettings:
    """The settings, with the steps and guidance of a distilled model where none are given."""
    known = find_checkpoint(name)
    if known is None:
        return settings
    guidance = known.guidance if settings.guidance is None else settings.guidance
    return replace(settings, steps=settings.steps or known.steps, guidance=guidance)


def _settings(options: dict[str, Any]) -> VideoSettings:
    fields = VideoSettings.__dataclass_fields__
    if unknown := [key for key in options if key not in fields]:
        raise OptionError(f"options {', '.join(unknown)}: expected some of {', '.join(fields)}")
    settings = VideoSettings(**options)
    for key in ("frames", "steps"):
        if getattr(settings, key) is not None:
            integer(getattr(settings, key), key, 1)
    if settings.guidance is not None:
        number(settings.guidance, "guidance", 0)
    if settings.size is not None:
        if len(settings.size) != 2:
            raise OptionError(f"size: expected (height, width), got {settings.size!r}")
        for side in settings.size:
            integer(side, "size", 1)
    if "$sentence" not in settings.template or set(_placeholders(settings.template)) - {
        "subject",
        "sentence",
    }:
        raise OptionError(
            f"template: expected a text with $sentence and no placeholder but $subject, e.g. {TEMPLATE!r}"
        )
    return settings


def _placeholders(template: str) -> list[str]:
    import string

    return string.Template(template).get_identifiers()


def _require(name: str, packages: tuple[str, ...]) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise VideoModelError(f"{name}: needs the packages {', '.join(missing)}: {INSTALL}")


def _candidates(name: str, revision: str | None) -> list[Adapter]:
    """The adapters of a model's pipeline class, from its model_index.json, before any weights are read."""
    import diffusers

    try:
        config = diffusers.DiffusionPipeline.load_config(
            name, revision=revision, local_files_only=Path(name).is_dir()
        )
    except (OSError, ValueError) as error:
        raise OptionError(
            f"video model {name}: neither a folder nor a model on the hub in diffusers' format: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    own = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(own, str):  # a list names a class in the repository's own code
        raise VideoModelError(
            f"{name}: a pipeline with code of its own ({json.dumps(own)}), which is not run"
        )
    adapters = [adapter for adapter in ADAPTERS if adapter.pipeline == own]
    if not adapters:
        raise VideoModelError(
            f"{name}: no adapter for the pipeline {own}; expected one of {', '.join(PIPELINES)}"
        )
    return adapters


def _weights_digest(pipeline: Any) -> str:
    """SHA-256 over the names, shapes and first values of all weights: tells models of one name apart in no time."""
    total = hashlib.sha256()
    for component, module in sorted(pipeline.components.items()):
        if isinstance(module, torch.nn.Module):
            for name, weight in module.named_parameters():
                first = weight.detach().flatten()[:8].float().cpu().numpy().tobytes()
                total.update(f"{component}.{name} {tuple(weight.shape)}".encode() + first)
    return total.hexdigest()


def _commit(pipeline: Any) -> str:
    """The commit on the hub that was loaded, which is part of the path in the hub's cache; "" for a folder."""
    parts = Path(str(pipeline.config.get("_name_or_path", ""))).parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else ""
