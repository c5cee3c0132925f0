"""Loading of published weights into an MV-VDM: which file has which tensors, and how their names are converted.

    MVDream          with diffusers' names or the original ones (LDM)
    AnimateDiff      diffusers' motion adapter or the original file
    IP-Adapter       ip-adapter_sd15
    Animate3D        the trained tensors, or a dump of all

A file must contain all expected tensors, in the right shapes, and no unknown ones; otherwise it is refused with an
error that names the tensor. Files are safetensors, or pickles that torch reads with `weights_only=True`, which creates
tensors but executes no code.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import HubError, ZooError
from zoo.mvvdm.embeddings import encode_time
from zoo.mvvdm.unet import MVVDMUNet

Source = str | os.PathLike[str]

KINDS = ("backbone", "camera", "image projection", "image attention", "motion", "spatial", "adapter")
# Part → names of its file in a folder or hub repository, in order of preference.
FILES = {
    "mvdream": (
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "sd-v1.5-4view.safetensors",
        "sd-v1.5-4view.pt",
    ),
    "motion_adapter": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "ip_adapter": ("models/ip-adapter_sd15.safetensors", "models/ip-adapter_sd15.bin"),
    "released": ("animate3d_motion_modules.safetensors", "animate3d_motion_modules.ckpt"),
}
# Part → kinds of tensors that its file must contain.
HOLDS = {
    "mvdream": ("backbone", "camera"),
    "motion_adapter": ("motion",),
    "ip_adapter": ("image projection", "image attention"),
    "released": ("motion", "spatial", "adapter"),
}
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
ENCODING = ".pe"  # suffix of stored position encodings, which this network computes instead


@dataclass(frozen=True)
class Loaded:
    """The result of `load_parts`.

    Attributes:
        counts: part → kind → number of tensors read, including position encodings.
        missing: names of the parameters that are in none of the files and keep their initial values.
    """

    counts: dict[str, dict[str, int]]
    missing: tuple[str, ...]


def load_parts(
    unet: MVVDMUNet,
    *,
    mvdream: Source | None = None,
    motion_adapter: Source | None = None,
    ip_adapter: Source | None = None,
    released: Source | None = None,
) -> Loaded:
    """Load published files into a network, in the order of the official code.

    Each source is a file, a folder or a repository on the hub; None leaves the part unchanged.

    Args:
        unet: the network, changed in place.
        mvdream: backbone and camera embedding. The MV2V-Adapters are initialised from it.
        motion_adapter: AnimateDiff's temporal attention.
        ip_adapter: image projection and image attention.
        released: the tensors that Animate3D trained, which include those of the motion adapter.

    Raises:
        ZooError: a file is refused or missing. A file is only used if all of it is valid.
        HubError: the hub cannot be reached.
    """
    sources = {
        "mvdream": mvdream,
        "motion_adapter": motion_adapter,
        "ip_adapter": ip_adapter,
        "released": released,
    }
    missing, counts = set(unet.state_dict()), dict[str, dict[str, int]]()
    for part, source in sources.items():
        if source is None:
            continue
        file = find_file(source, FILES[part])
        state, counts[part] = _checked(unet, part, file)
        unet.load_state_dict(state, strict=False)
        missing -= set(state)
        if part == "mvdream":
            unet.reset_adapters()
    return Loaded(counts, tuple(sorted(missing)))


def kind(name: str) -> str:
    """The one of `KINDS` that a parameter of the network belongs to, given its name."""
    if "_i2v." in name:
        return "adapter"
    if ".motion_modules." in name:
        return "spatial" if "_sp." in name or name.endswith(".mix_factor") else "motion"
    if name.startswith("image_projection."):
        return "image projection"
    if "_ip." in name:
        return "image attention"
    return "camera" if name.startswith("camera_embedding.") else "backbone"


def find_file(source: Source, names: tuple[str, ...]) -> Path:
    """Find a weight file.

    Args:
        source: the file itself, a folder, or the name of a hub repository.
        names: relative paths to look for in the latter two, in order of preference.

    Raises:
        ZooError: the source does not exist, or has none of the files.
        HubError: the hub cannot be reached.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        for name in names:
            for candidate in (path / name, path / Path(name).name):
                if candidate.is_file():
                    return candidate
        raise ZooError(f"{path}: expected one of {', '.join(names)} in this folder; name the file itself")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise ZooError(
            f"{source}: no such file or folder, and not the name of a hub repository; expected one of these"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(str(source), name))
        except (
            LocalEntryNotFoundError
        ) as error:  # a subclass of EntryNotFoundError, but it means being offline
            raise HubError(
                f"{source}: {name} is not in the cache and the hub cannot be reached ({error}); pass a local file or "
                f"folder instead"
            ) from error
        except EntryNotFoundError:
            continue
        except OSError as error:  # includes the hub client's HTTP errors
            raise HubError(
                f"{source}: {name} cannot be downloaded ({error}); pass a local file or folder instead"
            ) from error
    raise ZooError(
        f"{source}: expected one of {', '.join(names)} in this repository, found none; download the file and pass its "
        f"path"
    )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Args:
        file: safetensors, or a pickle with one of the suffixes `PICKLED`.

    Returns:
        Name → tensor, on the CPU. Keys of nested dictionaries are joined by dots; an outer "state_dict" and the prefix
        "module." that DDP adds are removed.

    Raises:
        ZooError: the file has another suffix, is damaged, or contains no tensors or other objects than tensors.
    """
    content: object
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(file)
        elif file.suffix in PICKLED:
            content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise ZooError(f"{file}: expected .safetensors, or {', '.join(PICKLED)}, got {file.suffix!r}")
    except ZooError:
        raise
    except (
        Exception
    ) as error:  # safetensors, torch, pickle and zipfile raise various errors for damaged files
        raise ZooError(
            f"{file}: cannot be read as tensors ({type(error).__name__}: {str(error).splitlines()[0]}); it is damaged, "
            f"truncated or contains other objects than tensors: download it again"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = dict(_flat(content))
    if not tensors:
        raise ZooError(f"{file}: contains no tensors; check that this is the right file")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _flat(content: object, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Tensors in nested dictionaries, with their keys joined by dots."""
    if isinstance(content, Tensor):
        return [(prefix, content)]
    if not isinstance(content, Mapping):
        return []
    join = prefix + "." if prefix else ""
    return [pair for name, value in content.items() for pair in _flat(value, f"{join}{name}")]


def _checked(unet: MVVDMUNet, part: str, file: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Read a part's file and convert its names.

    Returns:
        Parameter name → tensor, and the number of tensors of each kind.

    Raises:
        ZooError: a tensor is missing, unknown, duplicate, of another shape or not finite.
    """
    ours = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    required = {name for name in ours if kind(name) in HOLDS[part]}
    if not required:
        raise ZooError(
            f"{file}: this network has no parameters of {part}, because its config has image_embed_dim None; "
            f"omit {part}"
        )
    tensors, rename = read_tensors(file), RENAME[part](unet)
    state: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    originals: dict[str, str] = {}  # our names → the file's
    for original, tensor in tensors.items():
        try:
            name = rename(original)
        except (ValueError, IndexError):  # a layer number is missing or too large
            name = original
        if name is None:
            continue
        if name.endswith(ENCODING):
            _check_encoding(file, original, tensor)
            if part == "released":  # stored with the spatial branch's tensors
                counts["spatial"] += 1
            continue
        if name not in (ours if part == "released" else required):  # "released" may be a dump of all weights
            raise ZooError(
                f"{file}: {original} is not a parameter of this network ({part}); check that this is the right file, "
                f"for a network of this size"
            )
        if tensor.shape != ours[name]:
            raise ZooError(
                f"{file}: {original} is {list(tensor.shape)}, expected {list(ours[name])} for {name}; the file is for "
                f"a network of another size, or numbers its layers in another order"
            )
        if name in state:
            raise ZooError(
                f"{file}: {original} and {originals[name]} are both converted to {name}; download the file again"
            )
        if not tensor.isfinite().all():
            raise ZooError(
                f"{file}: {original} contains NaN or infinity, so it cannot be used; download the file again, or pass "
                f"another one"
            )
        state[name], originals[name] = tensor, original
        counts[kind(name)] += 1
    if absent := sorted(required - set(state)):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ZooError(
            f"{file}: has no tensor for {absent[0]}{more}, expected all {len(required)} of {part}"
            f"{_HINTS.get(part, '')}; pass another file"
        )
    return state, {name: counts[name] for name in KINDS if counts[name]}


_HINTS = {"motion_adapter": " (AnimateDiff version 1 has none in the middle block, v1-5-2 does)"}


def _check_encoding(file: Path, name: str, tensor: Tensor) -> None:
    """Raise ZooError if a stored position encoding differs from the computed one, beyond half-precision rounding."""
    expected = encode_time(tensor.shape[-2], tensor.shape[-1]) if tensor.ndim >= 2 else None
    if expected is None or not torch.allclose(
        tensor.reshape(-1, *expected.shape)[0].float(), expected, atol=2e-2
    ):
        raise ZooError(
            f"{file}: {name} is not AnimateDiff's sinusoidal encoding, the only one that this network supports"
        )


# --- conversion of names: each function returns a map from a name in the file to ours, or None to skip the tensor ---


def _from_mvdream(unet: MVVDMUNet) -> Callable[[str], str | None]:
    """diffusers' names are ours. LDM's, with the prefix "model.diffusion_model.", number the blocks consecutively.

    LDM files also contain the text encoder, the VAE and the noise schedule, which are skipped.
    """
    prefix = "model.diffusion_model."
    layers, levels = unet.config.layers_per_block, len(unet.config.block_out_channels)

    def rename(name: str) -> str | None:
        if not name.startswith(prefix):
            return None if name.startswith(_NOT_UNET) else name
        head, _, rest = name.removeprefix(prefix).partition(".")
        if head in _LDM_ENDS:
            index, _, rest = rest.partition(".")
            return f"{_LDM_ENDS[head].get(index, head + '.' + index)}.{rest}"
        index, _, rest = rest.partition(".")
        if head == "middle_block":
            return f"mid_block.{('resnets.0', 'attentions.0', 'resnets.1')[int(index)]}.{_in_block(rest)}"
        sub, _, rest = rest.partition(".")
        if head == "input_blocks" and index == "0":
            return f"conv_in.{rest}"
        if head == "input_blocks":
            level, layer = divmod(int(index) - 1, layers + 1)
            if layer == layers:
                return f"down_blocks.{level}.downsamplers.0.{rest.replace('op.', 'conv.')}"
            return f"down_blocks.{level}.{('resnets', 'attentions')[int(sub)]}.{layer}.{_in_block(rest)}"
        level, layer = divmod(int(index), layers + 1)
        if rest.startswith("conv.") and level < levels - 1:
            return f"up_blocks.{level}.upsamplers.0.{rest}"
        return f"up_blocks.{level}.{('resnets', 'attentions')[int(sub)]}.{layer}.{_in_block(rest)}"

    return rename


_NOT_UNET = ("first_stage_model.", "cond_stage_model.", "model_ema.", "alphas_", "betas", "log_one_", "posterior_",
           "sqrt_", "lvlb_weights", "logvar", "scale_factor")  # fmt: skip
_LDM_ENDS = {
    "time_embed": {"0": "time_embedding.linear_1", "2": "time_embedding.linear_2"},
    "camera_embed": {"0": "camera_embedding.linear_1", "2": "camera_embedding.linear_2"},
    "out": {"0": "conv_norm_out", "2": "conv_out"},
}
_LDM_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def _in_block(rest: str) -> str:
    """Convert a name inside a residual block. Inside a transformer, LDM's names are ours."""
    head, _, last = rest.rpartition(".")
    return f"{_LDM_RESNET.get(head, head)}.{last}"


def _from_motion_adapter(unet: MVVDMUNet) -> Callable[[str], str | None]:
    """diffusers' names are ours. The original file has one more level of nesting, and numbered norms and attentions."""
    table = {
        ".temporal_transformer.": ".",
        ".attention_blocks.0.": ".attn1.",
        ".attention_blocks.1.": ".attn2.",
        ".norms.0.": ".norm1.",
        ".norms.1.": ".norm2.",
        ".ff_norm.": ".norm3.",
    }

    def rename(name: str) -> str:
        for theirs, ours in table.items():
            name = name.replace(theirs, ours)
        return name

    return rename


def _from_ip_adapter(unet: MVVDMUNet) -> Callable[[str], str | None]:
    """The file numbers the attention layers in the order of Stable Diffusion's UNet, with the middle block last."""
    layers = [name for name, _ in unet.named_parameters() if name.endswith(".attn2.to_k_ip.weight")]
    order = ("down_blocks", "up_blocks", "mid_block")
    # The sort is stable: within each of the three groups, the order of registration is kept.
    layers.sort(key=lambda name: order.index(name.partition(".")[0]))
    names = {
        "image_proj.proj.weight": "image_projection.image_embeds.weight",
        "image_proj.proj.bias": "image_projection.image_embeds.bias",
        "image_proj.norm.weight": "image_projection.norm.weight",
        "image_proj.norm.bias": "image_projection.norm.bias",
    }
    for index, name in enumerate(layers):
        for letter in "kv":
            theirs = f"ip_adapter.{2 * index + 1}.to_{letter}_ip.weight"
            names[theirs] = name.replace("to_k_ip", f"to_{letter}_ip")
    return lambda name: names.get(name, name)


def _from_released(unet: MVVDMUNet) -> Callable[[str], str | None]:
    """The official code stores the new parameters in the attention's processor instead of the attention itself."""

    def rename(name: str) -> str:
        name = name.replace(".processor.", ".").replace(".alpha_blender.", ".")
        name = re.sub(r"\.to_([kv])_ip\.0\.", r".to_\1_ip.", name)
        return name.replace("encoder_hid_proj.image_projection_layers.0.", "image_projection.")

    return rename


RENAME = {
    "mvdream": _from_mvdream,
    "motion_adapter": _from_motion_adapter,
    "ip_adapter": _from_ip_adapter,
    "released": _from_released,
}
