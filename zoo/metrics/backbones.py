"""Published weights of the networks that metrics are named after: one table of files, hashes and sources.

A metric that is named after a network is computed with the weights that its authors published, or not at all
(`NotComputed`). The files come from a folder that the caller names, or from the torch hub's and the Hugging Face hub's
caches, where they are downloaded to on first use. Either way their sha256 is compared with the table before use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from renderers.arguments import shown
from renderers.files import file_path
from zoo.errors import ZooError
from zoo.seeds import untouched

Folder = str | os.PathLike[str]
_HUB = "https://huggingface.co"
_CHUNK = 1 << 20  # bytes
_LOADED: dict[tuple[str, str, torch.device], Any] = {}  # (backbone, sha256 of its file, device) → network


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        file: path in the folder of weights.
        sha256: of the published file; its first 8 digits where the publisher states no more (PyTorch's file names).
        url: of the file.
        licence: of the weights, as their publisher states it.
        repository: on the Hugging Face hub, "" if it is not there.
    """

    file: str
    sha256: str
    url: str
    licence: str
    repository: str = ""

    @property
    def needs(self) -> str:
        """The file, its sha256, its source and licence, for messages."""
        digest = self.sha256 if len(self.sha256) == 64 else f"{self.sha256}…"
        return f"{self.file} (sha256 {digest}) from {self.url} (licence: {self.licence})"


# Hashes: of PyTorch's files, the digits in their names; of files in Git LFS, the hub's pointers; of the others, the
# hash that several independent projects pin.
BACKBONES = {
    "vgg16": WeightFile(
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "BSD-3-Clause",
    ),
    "raft": WeightFile(  # princeton-vl's raft-things.pth with torchvision's names
        "raft_large_C_T_V1-22a6c225.pth",
        "22a6c225",
        "https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
        "BSD-3-Clause",
    ),
    "clip-b32": WeightFile(
        "clip-vit-base-patch32/pytorch_model.bin",
        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        f"{_HUB}/openai/clip-vit-base-patch32/resolve/main/pytorch_model.bin",
        "MIT",
        "openai/clip-vit-base-patch32",
    ),
    "clip-l14": WeightFile(
        "clip-vit-large-patch14/model.safetensors",
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        f"{_HUB}/openai/clip-vit-large-patch14/resolve/main/model.safetensors",
        "MIT",
        "openai/clip-vit-large-patch14",
    ),
    "dino-b16": WeightFile(
        "dino_vitbase16_pretrain.pth",
        "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        "Apache-2.0",
    ),
    "i3d": WeightFile(
        "i3d_torchscript.pt",
        "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        f"{_HUB}/flateon/FVD-I3D-torchscript/resolve/main/i3d_torchscript.pt",
        "Apache-2.0 (DeepMind's weights)",
        "flateon/FVD-I3D-torchscript",
    ),
    "aesthetic-l14": WeightFile(
        "sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
        "MIT",
    ),
    "amt-s": WeightFile(
        "amt-s.pth",
        "07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77",
        f"{_HUB}/lalala125/AMT/resolve/main/amt-s.pth",
        "CC-BY-NC-4.0",
        "lalala125/AMT",
    ),
}


class NotComputed(ZooError):
    """A metric was not computed, since the weights or a package that it needs are missing or not the published ones.

    The message begins with "not computed: needs" and can be printed in place of the value.
    """


def weight_hashes(*backbones: str, weights: Folder | None = None) -> dict[str, str]:
    """The files that backbones are loaded from, to be stored beside a result.

    Args:
        backbones: keys of `BACKBONES`.
        weights: folder with the files; None is the hub.

    Returns:
        File → its sha256, all 64 digits, as computed from the file.

    Raises:
        NotComputed: a file is missing or not the published one.
    """
    return {BACKBONES[name].file: _sha256_of(find_weights(name, weights)) for name in _known(backbones)}


def find_weights(backbone: str, weights: Folder | None = None) -> Path:
    """The path of a backbone's weights, after comparing their sha256 with the published one.

    Args:
        backbone: key of `BACKBONES`.
        weights: folder with the file; None is the hub, whose caches are searched first. Nothing is downloaded if
            HF_HUB_OFFLINE is set.

    Raises:
        NotComputed: the file is missing or another one.
    """
    (backbone,) = _known((backbone,))
    entry = BACKBONES[backbone]
    if weights is not None:
        path = file_path(weights, "weights") / entry.file
        if not path.is_file():
            raise NotComputed(f"not computed: needs {entry.needs}; {path} does not exist")
    else:
        path = _from_hub(entry)
    digest = _sha256_of(path)
    if not digest.startswith(entry.sha256):
        raise NotComputed(
            f"not computed: needs {entry.needs}; {path} has the sha256 {digest}: delete it and download it again"
        )
    return path


def load_state(backbone: str, weights: Folder | None = None) -> dict[str, Tensor]:
    """The tensors in a backbone's file, on the CPU; a pickle is read without executing code.

    Raises:
        NotComputed: see `find_weights`; or the file cannot be read.
    """
    path = find_weights(backbone, weights)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise several of their own
        raise _unreadable(backbone, path, error) from error
    return dict(state["state_dict"] if "state_dict" in state else state)


def load_network(
    backbone: str, build: Callable[[], nn.Module], weights: Folder | None, device: torch.device,
    select: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> nn.Module:  # fmt: skip
    """A network with a backbone's published weights, frozen, in evaluation mode; kept for later calls.

    Args:
        backbone: key of `BACKBONES`.
        build: makes the network; torch's global generator is not advanced.
        weights: folder with the file; None is the hub.
        device: to move it to.
        select: converts the tensors of the file to those of the network, which must be all of them.

    Raises:
        NotComputed: the file is missing, another one or does not fit the network, or a package is missing.
    """
    path = find_weights(backbone, weights)
    key = (backbone, _sha256_of(path), device)
    if key not in _LOADED:
        try:
            with untouched():
                network = build()
            network.load_state_dict(select(load_state(backbone, weights)), strict=True)
        except ImportError as error:
            raise missing_package(backbone, error) from error
        except (RuntimeError, KeyError) as error:
            if isinstance(error, NotComputed):
                raise
            raise _unreadable(backbone, path, error) from error
        _LOADED[key] = network.requires_grad_(False).eval().to(device)
    return _LOADED[key]


def load_script(backbone: str, weights: Folder | None, device: torch.device) -> Any:
    """A TorchScript network, frozen, in evaluation mode.

    TorchScript can execute its own operations, but no Python; the sha256 is checked before it is loaded.

    Raises:
        NotComputed: see `find_weights`; or the file cannot be read.
    """
    path = find_weights(backbone, weights)
    key = (backbone, _sha256_of(path), device)
    if key not in _LOADED:
        try:
            _LOADED[key] = torch.jit.load(str(path), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise _unreadable(backbone, path, error) from error
    return _LOADED[key]


def missing_package(backbone: str, error: ImportError) -> NotComputed:
    """The exception for a package that a backbone needs and that is not installed."""
    return NotComputed(
        f"not computed: needs the package {error.name or error} for {BACKBONES[backbone].file}: "
        'pip install "menagerie4d[metrics]"'
    )


def _unreadable(backbone: str, path: Path, error: Exception) -> NotComputed:
    reason = " ".join(str(error).split())[:200]
    return NotComputed(
        f"not computed: needs {BACKBONES[backbone].needs}; {path} cannot be used ({type(error).__name__}: {reason})"
    )


def _known(backbones: tuple[str, ...]) -> tuple[str, ...]:
    for name in backbones:
        if not isinstance(name, str) or name not in BACKBONES:
            raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {shown(name)}")
    return backbones


def _from_hub(entry: WeightFile) -> Path:
    """The file in the caches of the Hugging Face hub or the torch hub, downloaded to the latter if it is in neither."""
    if entry.repository and (cached := _in_hub_cache(entry)):
        return cached
    path = Path(torch.hub.get_dir()) / "checkpoints" / entry.file
    if path.is_file():
        return path
    place = "put it in a folder and pass weights=FOLDER (--weights FOLDER)"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise NotComputed(
            f"not computed: needs {entry.needs}; downloads are off (HF_HUB_OFFLINE): unset it, or {place}"
        )
    url = entry.url.replace(_HUB, os.environ.get("HF_ENDPOINT", _HUB).rstrip("/"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=entry.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # torch's error for a wrong hash is a RuntimeError
        reason = " ".join(str(error).split())
        raise NotComputed(
            f"not computed: needs {entry.needs}; the download failed ({reason}): {place}"
        ) from error
    return path


def _in_hub_cache(entry: WeightFile) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(entry.repository, entry.url.rpartition("/")[2])
    return Path(found) if isinstance(found, str) else None


def _sha256_of(path: Path) -> str:
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Hash of a file, cached as long as its size and modification time are the same."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
