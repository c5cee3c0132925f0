"""A model on disk: what lies in its folder, and what is refused before any of it is used.

    config.json         family, format_version, init (arguments of the family's class), card (what README.md says)
    model.safetensors   the weights; more .safetensors may lie beside it
    metrics.json        protocol and numbers
    README.md           the card, generated
    preview.mp4         what it looks like
    manifest.json       size and sha256 of every other file

The revision of a repository is the beginning of its manifest's sha256, so it names the content to the last bit.
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
# What cannot make a reader run anything. All else is refused by name, read or not.
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
IGNORED = (".gitattributes",)  # a hub's own, in every repository of it
_HEADER_LIMIT = 100 * 2**20  # bytes of a safetensors header, by its definition


@dataclass(frozen=True)
class Config:
    """config.json: `family` chooses the class, `init` are its arguments, `card` is what its card says."""

    family: str
    init: dict[str, Any]
    card: dict[str, Any]


def seal(folder: Path, config: Config, metrics: dict[str, Any], readme: str) -> str:
    """Write config.json, metrics.json, README.md and the manifest beside a model's weights; the revision.

    Raises:
        RepositoryError: the folder holds what no repository may hold, or what is given is not JSON.
    """
    content = {
        "family": config.family,
        "format_version": FORMAT_VERSION,
        "init": config.init,
        "card": config.card,
    }
    _write_json(folder / "config.json", content)
    _write_json(folder / "metrics.json", metrics)
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
    """40 hexadecimal digits that name the content of a sealed folder."""
    return _sha256(folder / MANIFEST)[:40]


def check(folder: Path, *, within: Path | None = None) -> Config:
    """Refuse a folder that is not exactly what its manifest says, or not safe to read; its configuration otherwise.

    Args:
        folder: the repository. within: where links in it may lead, the folder itself by default.

    Raises:
        RepositoryError: a sentence that names the file and says what to do. Nothing was executed.
    """
    within = (within or folder).resolve()
    listed = read_manifest(folder)
    present = set(_files(folder)) - {MANIFEST, *IGNORED}
    check_names({*present, *listed}, folder)
    if extra := sorted(present - set(listed)):
        raise RepositoryError(f"{folder}: {extra[0]} is not in {MANIFEST}; remove it, or get the model anew")
    for name, entry in listed.items():
        file = folder / name
        if not file.resolve().is_relative_to(within):
            raise RepositoryError(
                f"{folder}: {name} leads out of the repository, to {file.resolve()}; get the model from its source anew"
            )
        if not file.is_file():
            raise RepositoryError(f"{folder}: {name} is missing; get the model from its source anew")
        if file.stat().st_size != entry.get("size") or _sha256(file) != entry.get("sha256"):
            raise RepositoryError(
                f"{folder}: {name} is not what {MANIFEST} says, it was altered or damaged; remove the folder and "
                f"get the model from its source anew"
            )
        if name.endswith(".safetensors"):
            _check_safetensors(file)
    return _read_config(folder)


def check_names(names: Iterable[str], where: object) -> None:
    """Refuse names of files that no repository may hold, before anything is read or fetched.

    Raises:
        RepositoryError: a path that leads out, a kind of file that can carry code, or no repository of the zoo.
    """
    names = set(names) - set(IGNORED)
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or path.as_posix() != name:
            raise RepositoryError(f"{where}: {name!r} leads out of the repository; do not use this model")
        if path.suffix.lower() in _PICKLES:
            raise RepositoryError(
                f"{where}: {name} can be a pickle, and reading a pickle runs whatever code it carries; models of the "
                f"zoo are safetensors and JSON: ask its author to publish it with zoo.publish"
            )
        if path.suffix.lower() not in _ALLOWED:
            raise RepositoryError(
                f"{where}: {name} has no place in a model, only {', '.join(_ALLOWED)} files have; remove it and "
                f"publish again"
            )
    for name in _REQUIRED:
        if name not in names:
            raise RepositoryError(f"{where}: has no {name}, so it is no model of the zoo, or not all of one")


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Path → {"size", "sha256"} of every file that the repository is said to have."""
    manifest = _read_json(folder, MANIFEST)
    _check_version(folder, manifest)
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise RepositoryError(f"{folder}: {MANIFEST} lists no files; get the model from its source anew")
    return files


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json, empty where there is none."""
    return _read_json(folder, "metrics.json") if (folder / "metrics.json").exists() else {}


def _read_config(folder: Path) -> Config:
    config = _read_json(folder, "config.json")
    _check_version(folder, config)
    family, init, card = config.get("family"), config.get("init"), config.get("card", {})
    if not isinstance(family, str) or not isinstance(init, dict) or not isinstance(card, dict):
        raise RepositoryError(
            f"{folder}: config.json does not say which family with which arguments this model is"
        )
    return Config(family, init, card)


def _check_version(folder: Path, content: dict[str, Any]) -> None:
    version = content.get("format_version")
    if type(version) is not int or version < 1:  # True is an int
        raise RepositoryError(f"{folder}: expected a format_version of 1 or more, got {version!r}")
    if version > FORMAT_VERSION:
        raise RepositoryError(
            f"{folder}: was written in format {version} by a newer menagerie4d, and this one reads up to format "
            f"{FORMAT_VERSION}; pip install --upgrade menagerie4d"
        )


def _check_safetensors(file: Path) -> None:
    """A header of JSON after its length: a pickle by that name fails here, and is not shown to any reader."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, file.stat().st_size - 8) or content.read(1) != b"{":
            raise RepositoryError(
                f"{file}: is no safetensors file, whatever its name says; do not use this model"
            )


def _files(folder: Path) -> Iterable[str]:
    """Every file below, and every link to a folder, by its path with "/"."""
    for where, folders, files in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in (*files, *linked):
            yield Path(where, name).relative_to(folder).as_posix()


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        raise RepositoryError(
            f"{folder}: has no {name}, so it is no model of the zoo, or not all of one"
        ) from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise RepositoryError(f"{folder}: {name} is not a JSON object; get the model from its source anew")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RepositoryError(
            f"{path.name} cannot be written as JSON: {error}; the family's class is at fault"
        ) from None
    path.write_text(text + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
