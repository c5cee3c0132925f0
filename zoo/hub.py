"""Models by name: the local registry, the models bundled in the package, and the Hugging Face hub.

    family/name[@revision]         searched in the local registry, then the package, then the hub
    local:family/name[@revision]   the local registry only; bundled: the package only
    hub:org/name[@revision]        the hub only

The local registry is a folder, `$MENAGERIE_HOME` or ~/.cache/menagerie4d, with the layout of a hub's cache:
models/<family>/<name>/refs/main holds a revision, snapshots/<revision>/ its files (zoo/snapshots.py).
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderers.arguments import instance
from renderers.files import file_path
from zoo import huggingface, names, repository
from zoo.capabilities import Capabilities, Needs
from zoo.card import model_card
from zoo.errors import HubError, RepositoryError, UnknownModelError, ZooError
from zoo.families import capabilities_of, family_class, family_of, install_advice
from zoo.names import SOURCES
from zoo.snapshots import (
    discard_snapshot,
    is_repository,
    keep_snapshot,
    read_ref,
    unfinished_snapshot,
    write_ref,
)

BUNDLED = Path(__file__).parent / "bundled"
BUNDLED_NEEDS = "needs.json"  # {"family/name": {"revision", …fields of Needs}}, by benchmarks/needs.py


@dataclass(frozen=True)
class ModelInfo:
    """Everything about a model but its weights.

    Attributes:
        name: loads exactly this revision.
        source: "local", "bundled" or "hub".
        revision: names the content.
        family, card: see `zoo.families.Model`.
        metrics: content of metrics.json.
        files: path → size in bytes.
        folder: contains the files.
        capabilities: of the family; None if the family is not installed.
        needs: measured memory and time; None if they were not measured.
    """

    name: str
    source: str
    revision: str
    family: str
    card: dict[str, Any]
    metrics: dict[str, Any]
    files: dict[str, int]
    folder: Path
    capabilities: Capabilities | None = None
    needs: Needs | None = None


def load(name: str, *, home: str | os.PathLike[str] | None = None) -> Any:
    """Load a model, ready to sample.

    Args:
        name: `family/name[@revision]`, `local:family/name[@revision]` or `hub:org/name[@revision]`.
        home: folder of the local registry, instead of $MENAGERIE_HOME.

    Returns:
        An instance of the family's class, e.g. `zoo.dimo.DIMOPipeline`.

    Raises:
        UnknownModelError: there is none; the message suggests similar names.
        RepositoryError: its files were refused.
        HubError: the hub cannot be reached.
        ZooError: its family is not installed.
    """
    instance(name, str, "zoo.load: name")
    repo = _find(name, home)
    config = repo.check()
    family = family_class(config.family)
    try:
        model = family.load_from(repo.folder, config.init)
    except ImportError as error:
        raise ZooError(
            f"family {config.family!r} cannot be used here: {error}; {install_advice(config.family)}"
        ) from error
    except (ZooError, OSError, MemoryError):
        raise
    except Exception as error:  # raised by the family, by safetensors or by torch
        raise RepositoryError(
            f"{repo.folder}: its files are intact, but the family {config.family!r} as installed here cannot load them "
            f"({type(error).__name__}: {error}); upgrade the package that provides the family, or use another revision"
        ) from error
    model.metrics = repository.read_metrics(repo.folder)
    return model


def info(name: str, *, home: str | os.PathLike[str] | None = None) -> ModelInfo:
    """Describe a model. Its files are checked, its weights are not loaded. Arguments and errors as of `load`."""
    instance(name, str, "zoo.info: name")
    repo = _find(name, home)
    config = repo.check()
    metrics = repository.read_metrics(repo.folder)
    try:
        capabilities = capabilities_of(config.family)
    except ZooError:  # a model can be described without its family's package
        capabilities = None
    return ModelInfo(
        name=f"{repo.source}:{repo.path}@{repo.revision}",
        source=repo.source,
        revision=repo.revision,
        family=config.family,
        card=config.card,
        metrics=metrics,
        files={path: entry["size"] for path, entry in repository.read_manifest(repo.folder).items()},
        folder=repo.folder,
        capabilities=capabilities,
        needs=Needs.from_json(metrics.get("needs")) or _bundled_needs(repo),
    )


def list_models(pattern: str = "*", *, home: str | os.PathLike[str] | None = None) -> list[str]:
    """Names that `load` takes, sorted.

    Args:
        pattern: with wildcards, e.g. "dimo/*", "*/kangaroo", "local:*", "hub:org/*". The hub is searched for
            "hub:…" only, for models published with menagerie4d.
        home: folder of the local registry, instead of $MENAGERIE_HOME.
    """
    instance(pattern, str, "zoo.list_models: pattern")
    source, separator, rest = pattern.partition(":")
    if separator and source not in SOURCES:
        raise ZooError(
            f"pattern {pattern!r}: expected it to begin with one of {', '.join(f'{s}:' for s in SOURCES)}"
        )
    if source == "hub" and separator:
        paths = huggingface.model_names(rest)
        return sorted(f"hub:{path}" for path in paths if fnmatch.fnmatchcase(path, rest))
    known = {"local": _local_names(home), "bundled": _bundled_names()}
    if separator:
        return sorted(f"{source}:{path}" for path in known[source] if fnmatch.fnmatchcase(path, rest))
    return sorted(path for path in {*known["local"], *known["bundled"]} if fnmatch.fnmatchcase(path, pattern))


def publish(model: Any, target: str, *, home: str | os.PathLike[str] | None = None) -> str:
    """Publish a model to the local registry or the hub, atomically and idempotently.

    Args:
        model: a model of a registered family, or the name of one, whose weights are then copied bit for bit.
        target: "local:family/name" or "hub:org/name". The hub requires an account: `hf auth login`, or HF_TOKEN.
            New repositories on it are public; create it there first for a private one.
        home: folder of the local registry, instead of $MENAGERIE_HOME.

    Returns:
        The name that loads exactly this revision, e.g. "local:dimo/kangaroo@3f0c…".

    Raises:
        ZooError: nothing was published, and the previous revision is unchanged.
    """
    instance(target, str, "zoo.publish: target")
    source, path, revision = names.parse(target, lambda: list_models(home=home))
    if source not in ("local", "hub") or revision:
        raise ZooError(
            f"cannot publish to {target!r}: expected 'local:family/name' or 'hub:org/name' without a revision, "
            f"which is derived from the content"
        )
    try:
        return _publish_local(model, path, home) if source == "local" else _publish_hub(model, path, home)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.strerror else error
        raise ZooError(
            f"{target} was not published: {reason}. The previous revision is unchanged; free space or repair the "
            f"storage, and publish again"
        ) from error


# --- finding models --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Repository:
    """A model's folder, not yet checked."""

    source: str
    path: str
    revision: str
    folder: Path

    def check(self) -> repository.Config:
        # A snapshot in the hub's cache consists of links to <cache>/…/blobs.
        within = self.folder.parents[2] if self.source == "hub" else None
        config = repository.check(self.folder, within=within)
        if self.source == "local" and repository.revision_of(self.folder) != self.revision:
            raise RepositoryError(
                f"{self.folder}: {repository.MANIFEST} differs from the published one, it was altered or damaged; "
                f"remove the folder and publish the model again"
            )
        return config


def _find(name: str, home: str | os.PathLike[str] | None) -> _Repository:
    """The repository of a name, from the first source that has it."""
    source, path, revision = names.parse(name, lambda: list_models(home=home))
    reasons = []
    for place in (source,) if source else SOURCES:
        try:
            if place == "local":
                return _find_local(path, revision, home)
            if place == "bundled":
                return _find_bundled(path, revision)
            folder = huggingface.download(path, revision)
            return _Repository("hub", path, folder.name, folder)
        except UnknownModelError as error:
            reasons.append(str(error))
        except HubError as error:
            if source:
                raise
            reasons.append(str(error))
    similar = names.suggestions(name, list_models(home=home))
    raise UnknownModelError(f"there is no model {name!r}{similar} ({'; '.join(reasons)})")


def _models_folder(home: str | os.PathLike[str] | None) -> Path:
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = os.environ.get("MENAGERIE_HOME") or Path(cache) / "menagerie4d"
    folder = file_path(home, "home").expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "the home of models is a file, expected a folder", str(folder)
        )
    return folder / "models"


def _local_names(home: str | os.PathLike[str] | None) -> list[str]:
    root = _models_folder(home)
    return [ref.parents[1].relative_to(root).as_posix() for ref in root.glob("*/*/refs/main")]


def _bundled_names() -> list[str]:
    return [
        file.parent.relative_to(BUNDLED).as_posix() for file in BUNDLED.glob(f"*/*/{repository.MANIFEST}")
    ]


def _find_local(path: str, revision: str | None, home: str | os.PathLike[str] | None) -> _Repository:
    root = _models_folder(home) / path
    current = read_ref(root, "main")
    if current is None:
        raise UnknownModelError(f"not in the local registry {root.parents[1]}")
    revisions = sorted(folder.name for folder in (root / "snapshots").glob("*"))
    if revision is None or revision == "main":
        matches = [current]
    else:
        matches = [each for each in revisions if each.startswith(revision)]
    if len(matches) != 1 or matches[0] not in revisions:
        raise UnknownModelError(
            f"{len(matches)} of {len(revisions)} revisions of {path} in the local registry match "
            f"{revision or 'main'!r}: {', '.join(each[:12] for each in revisions[:8])}"
        )
    return _Repository("local", path, matches[0], root / "snapshots" / matches[0])


def _find_bundled(path: str, revision: str | None) -> _Repository:
    folder = BUNDLED / path
    if not (folder / repository.MANIFEST).exists():
        raise UnknownModelError("not bundled in the package")
    content = repository.revision_of(folder)
    if revision is not None and revision != "main" and not content.startswith(revision):
        raise UnknownModelError(f"the package bundles revision {content[:12]}")
    return _Repository("bundled", path, content, folder)


def _bundled_needs(repo: _Repository) -> Needs | None:
    """The measurement of this very revision, which copies of a bundled model share by the same name."""
    try:
        entry = json.loads((BUNDLED / BUNDLED_NEEDS).read_bytes()).get(repo.path)
    except FileNotFoundError:
        return None
    return Needs.from_json(entry) if entry and entry["revision"] == repo.revision else None


# --- publishing ------------------------------------------------------------------------------------


def _build(model: Any, name: str, folder: Path, home: str | os.PathLike[str] | None) -> tuple[str, str]:
    """Write all files of a model to a folder; returns its revision and its family."""
    if isinstance(model, str):
        repo = _find(model, home)
        config = repo.check()
        metrics = repository.read_metrics(repo.folder)
        for file in repository.read_manifest(repo.folder):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repo.folder / file, folder / file)
    else:
        family = family_of(model)
        config = repository.Config(family, model.save_to(folder), model.card)
        metrics = model.metrics
    readme = model_card(name, config.family, config.card, metrics)
    return repository.seal(folder, config, metrics, readme), config.family


def _publish_local(model: Any, path: str, home: str | os.PathLike[str] | None) -> str:
    root = _models_folder(home) / path
    if not is_repository(root):
        raise ZooError(
            f"local:{path}: {root} has files that are no published model; choose another name, or another folder of "
            f"models with --home or $MENAGERIE_HOME"
        )
    with unfinished_snapshot(root) as unfinished:
        revision, family = _build(model, path, unfinished, home)
        if family != path.partition("/")[0]:
            raise ZooError(
                f"local:{path}: the model is of the family {family!r}; publish it to 'local:{family}/"
                f"{path.partition('/')[2]}'"
            )
        if (root / "snapshots" / revision).exists():
            try:
                repository.check(root / "snapshots" / revision)
            except RepositoryError:  # damaged since; the new snapshot replaces it
                discard_snapshot(root, revision)
        keep_snapshot(root, unfinished, revision)
        write_ref(root, "main", revision)
    return f"local:{path}@{revision}"


def _publish_hub(model: Any, path: str, home: str | os.PathLike[str] | None) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _build(model, f"hub:{path}", folder, home)
        files = [*repository.read_manifest(folder), repository.MANIFEST]
        commit = huggingface.upload(path, folder, files)
    return f"hub:{path}@{commit}"
