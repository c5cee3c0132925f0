"""A model on disk: the files of its folder, and the checks that they must pass before any is used.

    config.json         family, format_version, init (arguments of the family's class), card (content of README.md)
    model.safetensors   the weights; further .safetensors files are allowed
    metrics.json        protocol and numbers
    README.md           the card, generated
    preview.mp4         a video
    manifest.json       size and sha256 of every other file

The revision of a repository is the first 40 digits of its manifest's sha256, so it identifies the content exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import RepositoryError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_REQUIRED = ("config.json", "model.safetensors")
# Formats that cannot make a reader run code. All others are refused by name, even if they are never read.
_ALLOWED = (".json", ".safetensors", ".md", ".mp4", ".png", ".txt")
_PICKLES = (
    ".bin",
    ".ckpt",
    ".dill",
    ".joblib",
    ".npy",
    ".npz",
    ".pickle",
    ".pkl",
    ".pt",
    ".pt2",
    ".pth",
    ".mar",
)
IGNORED = (".gitattributes",)  # added by the hub to every repository
_HEADER_LIMIT = 100 * 2**20  # bytes of a safetensors header, from the format's specification


@dataclass(frozen=True)
class Config:
    """config.json: `family` selects the class, `init` are its arguments, `card` is the content of the model card."""

    family: str
    init: dict[str, Any]
    card: dict[str, Any]


def seal(folder: Path, config: Config, metrics: dict[str, Any], readme: str) -> str:
    """Write config.json, metrics.json, README.md and the manifest to a folder that contains the weights.

    Args:
        folder: contains the weights, and optionally a preview and further files.
        config: content of config.json.
        metrics: content of metrics.json.
        readme: content of README.md.

    Returns:
        The revision.

    Raises:
        RepositoryError: the folder contains files that no repository may contain, or an argument is not JSON.
    """
    content = {
        "family": config.family,
        "format_version": FORMAT_VERSION,
        "init": config.init,
        "card": config.card,
    }
    _write_json(folder / "config.json", content)
    _write_json(folder / "metrics.json", metrics, indent=None)  # results have a score per clip: half the size
    (folder / "README.md").write_text(readme, encoding="utf-8")
    names = sorted(set(_files(folder)) - {MANIFEST})
    check_names(names, folder)
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names
    }
    _write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, "files": files})
    check(folder)
    return revision_of(folder)


def revision_of(folder: Path) -> str:
    """40 hexadecimal digits that identify the content of a sealed folder."""
    return _sha256(folder / MANIFEST)[:40]


def check(folder: Path, *, within: Path | None = None) -> Config:
    """Refuse a folder that differs from its manifest or is unsafe to read.

    Args:
        folder: the repository.
        within: the folder that links in it may lead to, by default the repository itself.

    Returns:
        Its configuration.

    Raises:
        RepositoryError: the message names the file and what to do. Nothing was executed.
    """
    within = (within or folder).resolve()
    listed = read_manifest(folder)
    present = set(_files(folder)) - {MANIFEST, *IGNORED}
    check_names({*present, *listed}, folder)
    if extra := sorted(present - set(listed)):
        raise RepositoryError(
            f"{folder}: {extra[0]} is not in {MANIFEST}; remove it, or download the model again"
        )
    for name, entry in listed.items():
        file = folder / name
        if not file.resolve().is_relative_to(within):
            raise RepositoryError(
                f"{folder}: {name} leads out of the repository, to {file.resolve()}; download the model again"
            )
        if not file.is_file():
            raise RepositoryError(f"{folder}: {name} is missing; download the model again")
        if not matches(file, entry):
            raise RepositoryError(
                f"{folder}: {name} does not match {MANIFEST}, it was altered or damaged; remove the folder and "
                f"download the model again"
            )
        if name.endswith(".safetensors"):
            _check_safetensors(file)
    return _read_config(folder)


def matches(file: Path, entry: dict[str, Any]) -> bool:
    """Whether a file has the size and sha256 of its entry in a manifest."""
    if not file.is_file() or file.stat().st_size != entry.get("size"):
        return False
    return _sha256(file) == entry.get("sha256")


def damaged(folder: Path) -> list[str]:
    """Names of the files that are missing or differ from the manifest, or of the manifest if it cannot be read.

    Raises:
        RepositoryError: the manifest lists names that no repository may contain.
    """
    try:
        listed = read_manifest(folder)
    except RepositoryError:
        return [MANIFEST]
    check_names(listed, folder)
    return [name for name, entry in listed.items() if not matches(folder / name, entry)]


def check_names(names: Iterable[str], where: object) -> None:
    """Refuse file names that no repository may contain, before anything is read or downloaded.

    Args:
        names: paths within the repository.
        where: the repository, for messages.

    Raises:
        RepositoryError: a path leads out of the repository, a file could contain code, or a required file is missing.
    """
    names = set(names) - set(IGNORED)
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or path.as_posix() != name:
            raise RepositoryError(f"{where}: {name!r} leads out of the repository; do not use this model")
        if path.suffix.lower() in _PICKLES:
            raise RepositoryError(
                f"{where}: {name} can be a pickle, and reading a pickle runs the code in it; models of the zoo are "
                f"safetensors and JSON: ask its author to publish it with zoo.publish"
            )
        if path.suffix.lower() not in _ALLOWED:
            raise RepositoryError(
                f"{where}: {name} is not allowed in a model, only {', '.join(_ALLOWED)} files are; remove it and "
                f"publish again"
            )
    for name in _REQUIRED:
        if name not in names:
            raise RepositoryError(f"{where}: has no {name}, so it is not a model of the zoo, or incomplete")


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Path → {"size", "sha256"} of every file that the manifest lists."""
    manifest = _read_json(folder, MANIFEST)
    _check_version(folder, MANIFEST, manifest)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise RepositoryError(f"{folder}: {MANIFEST} lists no files; download the model again")
    return files


def read_metrics(folder: Path) -> dict[str, Any]:
    """Content of metrics.json, empty if the file does not exist."""
    return _read_json(folder, "metrics.json") if (folder / "metrics.json").exists() else {}


def _read_config(folder: Path) -> Config:
    config = _read_json(folder, "config.json")
    _check_version(folder, "config.json", config)
    family, init, card = config.get("family"), config.get("init"), config.get("card", {})
    if not isinstance(family, str) or not isinstance(init, dict) or not isinstance(card, dict):
        raise RepositoryError(
            f"{folder}: config.json lacks a family, its arguments or a card; download the model again"
        )
    return Config(family, init, card)


def _check_version(folder: Path, name: str, content: dict[str, Any]) -> None:
    version = content.get("format_version")
    if type(version) is not int or version < 1:  # True is an int
        raise RepositoryError(
            f"{folder}: {name}: expected a format_version of 1 or more, got {version!r}; download the model again"
        )
    if version > FORMAT_VERSION:
        raise RepositoryError(
            f"{folder}: {name} was written in format {version} by a newer menagerie4d, and this version reads up to "
            f"format {FORMAT_VERSION}; pip install --upgrade menagerie4d"
        )


def _check_safetensors(file: Path) -> None:
    """Check for a header length followed by JSON, so that a pickle with this suffix never reaches a reader."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, file.stat().st_size - 8) or content.read(1) != b"{":
            raise RepositoryError(
                f"{file}: is not a safetensors file, despite its name; do not use this model"
            )


def _files(folder: Path) -> Iterable[str]:
    """Paths of all files and of all links to folders below a folder, with "/"."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in (*files, *links):
            yield Path(parent, name).relative_to(folder).as_posix()


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise RepositoryError(
            f"{folder}: has no {name}, so it is not a model of the zoo, or incomplete"
        ) from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RepositoryError(f"{folder}: {name} is not a JSON object; download the model again")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _write_json(path: Path, content: dict[str, Any], indent: int | None = 2) -> None:
    separators = (",", ":") if indent is None else None
    try:
        text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RepositoryError(
            f"{path.name} cannot be written as JSON: {error}; correct save_to, card or metrics of the family's class"
        ) from None
    path.write_text(text + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
