"""Published weights of others into an MV-VDM: which file has which tensors, and under which names (methods §7).

    MVDream          diffusers' names, or the original's (LDM)
    AnimateDiff      diffusers' motion adapter, or the original file
    IP-Adapter       ip-adapter_sd15
    Animate3D        the tensors that its authors trained, or all of them

A file must have all that it is said to have, in the right shapes, and nothing that has no place here: what is renamed,
truncated or of another size is refused by name. Files are safetensors, or what torch reads with `weights_only=True`,
which makes tensors and runs no code.
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
# Part → files that are looked for in a folder or hub repository, and the kinds of tensors that they must have.
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
HOLDS = {
    "mvdream": ("backbone", "camera"),
    "motion_adapter": ("motion",),
    "ip_adapter": ("image projection", "image attention"),
    "released": ("motion", "spatial", "adapter"),
}
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
ENCODING = ".pe"  # how names of stored position encodings end; the network computes them


@dataclass(frozen=True)
class Loaded:
    """What came from where.

    Attributes:
        counts: part → kind → tensors read, encodings among them.
        missing: parameters that no file gave, which are as the network was made.
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
    """Fill a network from published files, in the order in which its authors built theirs.

    Args:
        mvdream … released: a file, a folder, or a repository on the hub; None leaves the part as it is. What is
            released replaces the motion adapter's tensors, for they were trained on.

    Raises:
        ZooError: a file is refused, or there is none. HubError: the hub cannot be reached.
    """
    sources = {
        "mvdream": mvdream,
        "motion_adapter": motion_adapter,
        "ip_adapter": ip_adapter,
        "released": released,
    }
    missing, counts = set(unet.state_dict()), {}
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
    """Which of `KINDS` a parameter of the network is."""
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
    """A file itself, or the first of these in a folder or in a repository on the hub."""
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
        raise ZooError(f"{source}: there is no such file or folder, and it is no name of a hub repository")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(str(source), name))
        except LocalEntryNotFoundError as error:  # also an EntryNotFoundError, but of the cache
            raise HubError(
                f"{source}: {name} is not in the cache and the hub cannot be reached ({error}); name a file or folder "
                f"that you have"
            ) from error
        except EntryNotFoundError:
            continue
        except OSError as error:  # of the hub's client, too
            raise HubError(
                f"{source}: the hub does not give it ({error}); name a file that you have"
            ) from error
    raise ZooError(f"{source}: this repository has none of {', '.join(names)}; name the file itself")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of a file by its name; dictionaries inside it are joined by dots.

    Raises:
        ZooError: it is no file of tensors, or not all of one.
    """
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
    except Exception as error:  # of safetensors, of torch, of zip files: whatever a damaged file brings about
        raise ZooError(
            f"{file}: cannot be read as tensors ({type(error).__name__}: {str(error).splitlines()[0]}); it is damaged, "
            f"truncated or holds more than tensors: get it from its source anew"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = dict(_flat(content))
    if not tensors:
        raise ZooError(f"{file}: holds no tensors; is this the right file?")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _flat(content: object, prefix: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        return [(prefix, content)]
    if not isinstance(content, Mapping):
        return []
    join = prefix + "." if prefix else ""
    return [pair for name, value in content.items() for pair in _flat(value, f"{join}{name}")]


def _checked(unet: MVVDMUNet, part: str, file: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors of a file under our names, and how many of which kind there were."""
    ours = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    required = {name for name in ours if kind(name) in HOLDS[part]}
    if not required:
        raise ZooError(f"{file}: this network has no place for {part}; its config has image_embed_dim None")
    tensors, rename = read_tensors(file), RENAME[part](unet)
    state, found, theirs = {}, Counter(), {}
    for original, tensor in tensors.items():
        try:
            name = rename(original)
        except (ValueError, IndexError):  # a number is missing in it, or too large
            name = original
        if name is None:
            continue
        if name.endswith(ENCODING):
            _check_encoding(file, original, tensor)
            if part == "released":  # which counts them to the branch that they were stored with
                found["spatial"] += 1
            continue
        if name not in (ours if part == "released" else required):  # what is released may be a full dump
            raise ZooError(
                f"{file}: {original} has no place in this network ({part}); is this the right file, for a network of "
                f"this size?"
            )
        if tensor.shape != ours[name]:
            raise ZooError(
                f"{file}: {original} is {list(tensor.shape)}, expected {list(ours[name])} for {name}; the file is for "
                f"a network of another size, or its order is another"
            )
        if name in state:
            raise ZooError(
                f"{file}: {original} and {theirs[name]} are both {name}; get it from its source anew"
            )
        state[name], theirs[name] = tensor, original
        found[kind(name)] += 1
    if absent := sorted(required - set(state)):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ZooError(
            f"{file}: has no tensor for {absent[0]}{more}, of {len(required)} that {part} has{_HINTS.get(part, '')}; "
            f"name another file"
        )
    return state, {name: found[name] for name in KINDS if found[name]}


_HINTS = {"motion_adapter": " (modules of version 1 have none in the middle block: v1-5-2 has)"}


def _check_encoding(file: Path, name: str, tensor: Tensor) -> None:
    expected = encode_time(tensor.shape[-2], tensor.shape[-1]) if tensor.ndim >= 2 else None
    if expected is None or not torch.allclose(
        tensor.reshape(-1, *expected.shape)[0].float(), expected, atol=2e-2
    ):
        raise ZooError(f"{file}: {name} is not the sinusoid of AnimateDiff; this model computes no other")


# --- names: a function of the network gives one from a name in the file to ours, None for what is left out -----


def _from_mvdream(unet: MVVDMUNet) -> Callable[[str], str | None]:
    """diffusers' names are ours. LDM counts its blocks through; a file with those has text encoder and VAE as well."""
    prefix = "model.diffusion_model."
    layers, levels = unet.config.layers_per_block, len(unet.config.block_out_channels)

    def rename(name: str) -> str | None:
        if not name.startswith(prefix):
            return None if name.startswith(_BESIDE) else name
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


_BESIDE = ("first_stage_model.", "cond_stage_model.", "model_ema.", "alphas_", "betas", "log_one_", "posterior_",
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
    """A name inside a residual block or a transformer; the latter are ours already."""
    head, _, last = rest.rpartition(".")
    return f"{_LDM_RESNET.get(head, head)}.{last}"


def _from_motion_adapter(unet: MVVDMUNet) -> Callable[[str], str | None]:
    """diffusers' names are ours; the original file has a layer of names more, and numbers for norms and attentions."""
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
    """The file numbers all attentions in the order of registration in Stable Diffusion's UNet: the middle is last."""
    layers = [name for name, _ in unet.named_parameters() if name.endswith(".attn2.to_k_ip.weight")]
    order = ("down_blocks", "up_blocks", "mid_block")
    layers.sort(key=lambda name: order.index(name.partition(".")[0]))  # stable: inside each, as registered
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
    """What we keep in an attention itself its authors keep in the attention's processor."""

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
