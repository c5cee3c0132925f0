"""Reading and writing a whole MV-VDM pipeline: published parts, the zoo's repositories, and diffusers' folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from zoo.errors import RepositoryError, ZooError
from zoo.mvvdm.autoencoder import PatchAutoencoder
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.parts import KINDS, Source, kind, load_parts
from zoo.mvvdm.schedule import mvvdm_scheduler
from zoo.mvvdm.unet import MVVDMUNet
from zoo.precision import SCALE, Storage, check_scales, quantise, unpack
from zoo.seeds import untouched
from zoo.weights import ADVICE, check_state, check_weights

WEIGHTS, PREVIEW, EXAMPLE = "model.safetensors", "preview.mp4", "example"
# Stable Diffusion's text encoder and autoencoder, which MVDream uses unchanged.
BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
IMAGE_ENCODER = "models/image_encoder"  # in the IP-Adapter's repository
MOTION_ADAPTER = "guoyww/animatediff-motion-adapter-v1-5-2"  # AnimateDiff's; version 1 has no middle block


# --- published parts ------------------------------------------------------------------------------


def published_unet(
    config: MVVDMConfig,
    mvdream: Source,
    motion_adapter: Source | None,
    ip_adapter: Source | None,
    released: Source | None,
    dtype: torch.dtype,
) -> MVVDMUNet:
    """Build the network from published files; arguments as for `MVVDMPipeline.from_pretrained_parts`.

    Raises:
        ZooError: a file is refused or missing, or some weights of the network are in none of the files.
        HubError: the hub cannot be reached.
    """
    if released is None and motion_adapter is None:
        motion_adapter = MOTION_ADAPTER
    if config.image_embed_dim is not None and ip_adapter is None:
        raise ZooError(
            "from_pretrained_parts: this network has an IP-Adapter, but ip_adapter is None; name one, or pass a config "
            "with image_embed_dim=None"
        )
    unet = MVVDMUNet(config).to(dtype)  # type: ignore[arg-type]  # diffusers wraps `to` without its type
    loaded = load_parts(
        unet, mvdream=mvdream, motion_adapter=motion_adapter, ip_adapter=ip_adapter, released=released
    )
    # Spatial branches and MV2V-Adapters have a defined initialisation; everything else must come from a file.
    if left := sorted({kind(name) for name in loaded.missing} - {"spatial", "adapter"}, key=KINDS.index):
        raise ZooError(f"from_pretrained_parts: none of the files has weights for: {', '.join(left)}")
    return unet


def published_components(
    config: MVVDMConfig,
    mvdream: Source,
    ip_adapter: Source | None,
    base: Source | None,
    image_encoder: Source | None,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Load everything but the network; arguments as for `MVVDMPipeline.from_pretrained_parts`.

    Returns:
        Component name → component, the keyword arguments of `MVVDMPipeline`.
    """
    base = base or (BASE if Path(mvdream).is_file() else mvdream)
    components: dict[str, Any] = {}
    if config.image_embed_dim is not None:
        clip = image_encoder or ip_adapter
        assert clip is not None  # checked by published_unet
        components["image_encoder"] = CLIPVisionModelWithProjection.from_pretrained(
            **_location(clip, IMAGE_ENCODER), torch_dtype=dtype
        )
        components["feature_extractor"] = CLIPImageProcessor()
    return components | {
        "vae": AutoencoderKL.from_pretrained(**_location(base, "vae"), torch_dtype=dtype),
        "scheduler": mvvdm_scheduler(),
        "text_encoder": CLIPTextModel.from_pretrained(**_location(base, "text_encoder"), torch_dtype=dtype),
        "tokenizer": CLIPTokenizer.from_pretrained(**_location(base, "tokenizer")),
    }


def _location(source: Source, name: str) -> dict[str, Any]:
    """Arguments of from_pretrained for a part: a subfolder of a local folder or of a hub repository."""
    if Path(source).is_dir():
        return {"pretrained_model_name_or_path": str(Path(source) / name)}
    return {"pretrained_model_name_or_path": str(source), "subfolder": name}


# --- the zoo's repositories ---------------------------------------------------------------------------


def _autoencoder(config: dict[str, Any]) -> type[AutoencoderKL] | type[PatchAutoencoder]:
    """The autoencoder class of a config: only diffusers' configs list block types."""
    return AutoencoderKL if "down_block_types" in config else PatchAutoencoder


# Components with weights, and how each is made from its config.
_MODELS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "vae": lambda config: _autoencoder(config).from_config(config),
    "unet": MVVDMUNet.from_config,
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    "image_encoder": lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)),
}
# Components without weights, stored in folders of their own.
_PREPROCESSORS: dict[str, Any] = {"tokenizer": CLIPTokenizer, "feature_extractor": CLIPImageProcessor}
_SETTINGS = ("num_frames", "resolution", "sentence_encoder", "guidance_scale", "temperature")


def save_pipeline(pipeline: Any, folder: Path) -> dict[str, Any]:
    """Write an `MVVDMPipeline` (which imports this file) as a repository of the zoo; see its `save_to`."""
    from safetensors.torch import save

    state: dict[str, torch.Tensor] = {}
    init: dict[str, Any] = {"card": pipeline.card, "scheduler": _without_private(pipeline.scheduler.config)}
    for name in _MODELS:
        if (part := getattr(pipeline, name)) is not None:
            config = part.config if name in ("vae", "unet") else part.config.to_dict()
            init[name] = _without_private(config)
            state |= {f"{name}.{key}": t for key, t in _pack(part.state_dict(), pipeline.storage).items()}
    for name in _PREPROCESSORS:
        if (part := getattr(pipeline, name)) is not None:
            part.save_pretrained(folder / name)
    for name in _SETTINGS:
        init[name] = pipeline.config[name]
    if pipeline.example is not None:
        state[f"{EXAMPLE}.images"] = torch.from_numpy(np.ascontiguousarray(pipeline.example["images"]))
        init[EXAMPLE] = {name: value for name, value in pipeline.example.items() if name != "images"}
    # Not save_file: it makes the file unreadable for other users of the machine.
    (folder / WEIGHTS).write_bytes(save(state))
    check_weights([folder / WEIGHTS])
    if pipeline.example is not None:
        pipeline.sample(0).save(folder / PREVIEW)
    return init


def _pack(state: Mapping[str, torch.Tensor], storage: Storage) -> dict[str, torch.Tensor]:
    """Weights as they are stored, on the CPU: matrices and convolutions as `storage` says, all others as float16."""
    packed = {}
    for name, tensor in state.items():
        if storage == "int8" and tensor.is_floating_point() and tensor.ndim >= 2:
            packed[name], packed[name + SCALE] = quantise(tensor.detach().cpu())
        else:
            packed[name] = tensor.half().cpu().contiguous()
    return packed


def load_pipeline(cls: type[Any], folder: Path, init: dict[str, Any]) -> Any:
    """Read what `save_pipeline` wrote into an `MVVDMPipeline`, which is `cls`; see its `load_from`."""
    state = _read_components(folder / WEIGHTS, [name for name in (*_MODELS, EXAMPLE) if name in init])
    storage: Storage = "float16"
    for name, packed in state.items():
        check_scales(folder / WEIGHTS, name, packed)
        state[name] = unpack(packed)
        if len(state[name]) < len(packed):  # there are scales
            storage = "int8"
    components: dict[str, Any] = {"scheduler": DDIMScheduler.from_config(init["scheduler"])}
    for name, make in _MODELS.items():
        if name in init:
            with untouched():
                components[name] = make(init[name])
            check_state(state[name], components[name].state_dict(), folder / WEIGHTS, f"{name}.")
            components[name].load_state_dict(state[name])
            components[name].eval().requires_grad_(False)
    for name, preprocessor in _PREPROCESSORS.items():
        if (folder / name).is_dir():
            components[name] = preprocessor.from_pretrained(folder / name, local_files_only=True)
    pipeline = cls(**components, **{name: init[name] for name in _SETTINGS})
    pipeline.card, pipeline.storage = init["card"], storage
    if EXAMPLE in init:
        pipeline.example = {"images": _example_images(folder / WEIGHTS, state[EXAMPLE]), **init[EXAMPLE]}
    return pipeline


def _read_components(file: Path, names: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Read the tensors of each component, without the prefixes of their names.

    Raises:
        RepositoryError: there is a tensor of another component.
    """
    from safetensors.torch import load_file

    state: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for key, tensor in load_file(file).items():
        name, _, rest = key.partition(".")
        if name not in state:
            raise RepositoryError(
                f"{file}: the tensor {key!r} is not one of {', '.join(names)}, the parts of this model; {ADVICE}"
            )
        state[name][rest] = tensor
    return state


def _example_images(file: Path, state: dict[str, torch.Tensor]) -> np.ndarray:
    images = state.get("images")
    if images is None or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] not in (3, 4):
        got = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise RepositoryError(
            f"{file}: expected a tensor '{EXAMPLE}.images', uint8 [V, S, S, 3], got {got}; {ADVICE}"
        )
    return images.numpy()


def _without_private(config: dict[str, Any]) -> dict[str, Any]:
    """A config without diffusers' internal entries, whose names begin with "_"."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


# --- folders of diffusers -----------------------------------------------------------------------------

# diffusers imports the modules named in a pipeline's index, so these are the only ones allowed.
_LIBRARIES = ("diffusers", "transformers", MVVDMUNet.__module__, PatchAutoencoder.__module__)


def snapshot_folder(source: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """The local folder of a pipeline: `source` itself, or a snapshot downloaded from the hub.

    Args:
        source: a folder or the name of a hub repository.
        options: options of from_pretrained; those of the download are removed from it.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    of_download = ("cache_dir", "force_download", "local_files_only", "revision", "token")
    return Path(
        snapshot_download(
            str(source),
            allow_patterns=["*.json", "*.safetensors", "*.txt"],
            **{name: options.pop(name) for name in of_download if name in options},
        )
    )


def check_index(folder: Path) -> None:
    """Refuse a pipeline folder whose model_index.json names modules that have no place in an MV-VDM.

    Raises:
        ZooError: there is no readable index, or it names another module.
    """
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ZooError(
            f"{folder}: has no readable model_index.json ({error}); expected a diffusers pipeline folder, as "
            f"MVVDMPipeline.save_pretrained writes it"
        ) from error
    for name, value in index.items():
        if isinstance(value, list) and value[0] not in (None, *_LIBRARIES):
            raise ZooError(
                f"{folder}: model_index.json loads {name} from {value[0]}, expected {', '.join(_LIBRARIES)}; do not "
                f"use this model"
            )
