"""Models by name: the local registry, the models bundled in the package, and the Hugging Face hub.

    family/name[@revision]         searched in the local registry, then the package, then the hub
    local:family/name[@revision]   the local registry only; bundled: the package only
    hub:org/name[@revision]        the hub only

The local registry is a folder, `$MENAGERIE_HOME` or ~/.cache/menagerie4d, with the layout of a hub's cache:
models/<family>/<name>/refs/main holds a revision, snapshots/<revision>/ its files (zoo/snapshots.py).
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from renderers.arguments import instance
from zoo import huggingface, lookup, names, repository
from zoo.capabilities import Capabilities, Needs
from zoo.card import model_card
from zoo.errors import RepositoryError, ZooError
from zoo.families import capabilities_of, family_class, family_of, install_advice
from zoo.lookup import Located, bundled_names, find, known_names, local_names, models_folder
from zoo.names import SOURCES
from zoo.origin import Origin, origin_of, remember
from zoo.provenance import KEY, SharingPolicy, records_of
from zoo.snapshots import (
    discard_snapshot,
    is_repository,
    keep_snapshot,
    unfinished_snapshot,
    write_ref,
)
from zoo.weights import check_weights

if TYPE_CHECKING:
    import torch

    from zoo.dimo.pipeline import DIMOPipeline
    from zoo.mvvdm.pipeline import MVVDMPipeline

    Device: TypeAlias = str | int | torch.device
    Precision: TypeAlias = str | torch.dtype

BUNDLED_NEEDS = "needs.json"  # {"family/name": {"revision", …fields of Needs}}, by benchmarks/needs.py


@dataclass(frozen=True, repr=False)
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

    def __hash__(self) -> int:
        return hash((self.name, self.revision))

    def __repr__(self) -> str:
        size = sum(self.files.values())
        return (
            f"ModelInfo({self.name!r}, family {self.family!r}, {len(self.files)} files, {size / 1e6:.1f} MB)"
        )


# Only the names of bundled models tell a type checker the family; tests/test_typing.py keeps the lists complete.
@overload
def load(
    name: Literal[
        "dimo/bird",
        "dimo/cat",
        "dimo/crab",
        "dimo/drop",
        "dimo/fish",
        "dimo/flower",
        "dimo/fox",
        "dimo/human",
        "dimo/jellyfish",
        "dimo/kangaroo",
        "dimo/robot",
        "dimo/snake",
    ],
    *,
    home: str | os.PathLike[str] | None = ...,
    device: Device | None = ...,
    dtype: Precision | None = ...,
) -> DIMOPipeline: ...
@overload
def load(
    name: Literal["mvvdm/tiny"],
    *,
    home: str | os.PathLike[str] | None = ...,
    device: Device | None = ...,
    dtype: Precision | None = ...,
) -> MVVDMPipeline: ...
@overload
def load(
    name: str,
    *,
    home: str | os.PathLike[str] | None = ...,
    device: Device | None = ...,
    dtype: Precision | None = ...,
) -> Any: ...
def load(
    name: str,
    *,
    home: str | os.PathLike[str] | None = None,
    device: Device | None = None,
    dtype: Precision | None = None,
) -> Any:
    """Load a model, ready to sample.

    Args:
        name: `family/name[@revision]`, `local:family/name[@revision]` or `hub:org/name[@revision]`.
        home: folder of the local registry, instead of $MENAGERIE_HOME.
        device: of the weights, for example "cuda"; default the CPU. The model's `to` moves it later.
        dtype: precision: float16, bfloat16, float32 or float64, as a `torch.dtype` or its name; default float32.

    Returns:
        An instance of the family's class, e.g. `zoo.dimo.DIMOPipeline`.

    Raises:
        PlacementError: the device does not exist on this machine, or models do not compute in this type. Checked
            before anything is read or downloaded.
        UnknownModelError: there is none; the message suggests similar names.
        RepositoryError: its files were refused, for example because its weights contain NaN.
        HubError: the hub cannot be reached.
        ZooError: its family is not installed, or its models cannot be moved.
    """
    instance(name, str, "zoo.load: name")
    moved = device is not None or dtype is not None
    if moved:
        from zoo.placement import placement

        target = placement(device=device, dtype=dtype, caller=f"zoo.load({name!r})")
    repo = find(name, home)
    config = repo.check()
    family = family_class(config.family)
    if moved and not callable(getattr(family, "to", None)):
        raise ZooError(
            f"{name}: models of the family {config.family!r} have no method to(device, dtype); load it without device "
            f"and dtype"
        )
    check_weights(_weights(repo.folder))
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
    remember(model, _origin(repo, config))
    return model.to(device=target.device, dtype=target.dtype) if moved else model


def info(name: str, *, home: str | os.PathLike[str] | None = None) -> ModelInfo:
    """Describe a model. Its files are checked, its weights are not loaded. Arguments and errors as of `load`."""
    instance(name, str, "zoo.info: name")
    repo = find(name, home)
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


class ModelNames(list[str]):
    """A list of names that notebooks show as a table of models.

    Attributes:
        home: folder of the local registry, as given to `list_models`.
    """

    def __init__(self, names: Iterable[str] = (), home: str | os.PathLike[str] | None = None) -> None:
        super().__init__(names)
        self.home = home

    def _repr_html_(self) -> str:
        from zoo.listing import MOST_ROWS, models_table

        return models_table(
            [(name, _described(name, self.home) if i < MOST_ROWS else None) for i, name in enumerate(self)]
        )


def _described(name: str, home: str | os.PathLike[str] | None) -> ModelInfo | None:
    """Description of a model on this machine; None for models of the hub and damaged ones."""
    try:
        return None if name.startswith("hub:") else info(name, home=home)
    except (ZooError, OSError, ValueError):
        return None


def list_models(pattern: str = "*", *, home: str | os.PathLike[str] | None = None) -> list[str]:
    """Names that `load` takes, sorted. Notebooks show the list as a table.

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
        return ModelNames(sorted(f"hub:{path}" for path in paths if fnmatch.fnmatchcase(path, rest)), home)
    known = {"local": local_names(home), "bundled": bundled_names()}
    if separator:
        return ModelNames(
            sorted(f"{source}:{path}" for path in known[source] if fnmatch.fnmatchcase(path, rest)), home
        )
    return ModelNames((path for path in known_names(home) if fnmatch.fnmatchcase(path, pattern)), home)


def publish(
    model: Any, target: str, *, home: str | os.PathLike[str] | None = None, own_use: bool = False
) -> str:
    """Publish a model to the local registry or the hub, atomically and idempotently.

    A model is published if the assets that it was trained on may be shared, by the same policy as clips
    (`zoo.provenance`). This includes the model that it was loaded from and its card's `base_model`.

    Args:
        model: a model of a registered family, or the name of one, whose weights are then copied bit for bit.
        target: "local:family/name" or "hub:org/name". The hub requires an account: `hf auth login`, or HF_TOKEN.
            New repositories on it are public; create it there first for a private one.
        home: folder of the local registry, instead of $MENAGERIE_HOME.
        own_use: keep a model in the local registry even if its training data may not be shared.

    Returns:
        The name that loads exactly this revision, e.g. "local:dimo/kangaroo@3f0c…".

    Raises:
        ZooError: nothing was published, and the previous revision is unchanged.
    """
    instance(target, str, "zoo.publish: target")
    source, path, revision = names.parse(target, lambda: known_names(home))
    if source not in ("local", "hub") or revision:
        raise ZooError(
            f"cannot publish to {target!r}: expected 'local:family/name' or 'hub:org/name' without a revision, "
            f"which is derived from the content"
        )
    if own_use and source == "hub":
        raise ZooError(
            f"{target}: own_use keeps a model in the local registry: publish it to 'local:family/name', or leave "
            f"own_use out"
        )
    policy = SharingPolicy(target, lambda name: _base_model(name, home), source == "hub", own_use)
    try:
        if source == "local":
            return _publish_local(model, path, home, policy)
        return _publish_hub(model, path, home, policy)
    except OSError as error:
        path = error.filename2 or error.filename  # of a copy, filename is the source
        reason = f"{error.strerror}: {path}" if error.strerror else error
        raise ZooError(
            f"{target} was not published: {reason}. The previous revision is unchanged; free space or repair the "
            f"storage, and publish again"
        ) from error


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _bundled_needs(repo: Located) -> Needs | None:
    """The measurement of this very revision, which copies of a bundled model share by the same name."""
    try:
        entry = json.loads((lookup.BUNDLED / BUNDLED_NEEDS).read_bytes()).get(repo.path)
    except FileNotFoundError:
        return None
    return Needs.from_json(entry) if entry and entry["revision"] == repo.revision else None


# --- publishing ------------------------------------------------------------------------------------


def _build(
    model: Any, name: str, folder: Path, home: str | os.PathLike[str] | None, policy: SharingPolicy
) -> tuple[str, str]:
    """Write all files of a model to a folder; returns its revision and its family."""
    origin: Origin | None
    if isinstance(model, str):
        repo = find(model, home)
        config = repo.check()
        origin, metrics = _origin(repo, config), repository.read_metrics(repo.folder)
        policy.check(config)
        for file in repository.read_manifest(repo.folder):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repo.folder / file, folder / file)
    else:
        config, origin = _save(model, folder, policy)
        metrics = model.metrics
    check_weights(_weights(folder))
    readme = origin and origin.readme(name, config, metrics)
    readme = readme or model_card(name, config.family, config.card, metrics)
    return repository.seal(folder, config, metrics, readme), config.family


def _origin(repo: Located, config: repository.Config) -> Origin:
    name = f"hub:{repo.path}" if repo.source == "hub" else repo.path
    return Origin(
        name, config, repository.read_metrics(repo.folder), repository.read_manifest(repo.folder), repo.folder
    )


def _base_model(name: str, home: str | os.PathLike[str] | None) -> repository.Config | None:
    """The configuration of a base model; None for another library's, and for one that is not on this machine."""
    try:
        return find(name, home, ("local", "bundled")).check()
    except ZooError:
        return None


def _save(model: Any, folder: Path, policy: SharingPolicy) -> tuple[repository.Config, Origin | None]:
    """Write the weights and the preview of a model in memory; returns its configuration and where it is from."""
    family, origin = family_of(model), origin_of(model)
    origins = [origin.config] if origin else []
    stated = {KEY: getattr(model, KEY, None)}
    policy.check(repository.Config(family, stated, model.card), *origins)  # before the preview is rendered
    config = repository.Config(family, model.save_to(folder), model.card)
    records = policy.check(config, *origins)
    own = records_of(config.card, config.init)
    if inherited := [record for record in records if record not in own]:
        card = {**config.card, KEY: [*records_of(config.card), *inherited]}
        config = repository.Config(family, config.init, card)
    if origin is not None:
        origin.restore(folder, config)
    return config, origin


def _publish_local(model: Any, path: str, home: str | os.PathLike[str] | None, policy: SharingPolicy) -> str:
    root = models_folder(home) / path
    if not is_repository(root):
        raise ZooError(
            f"local:{path}: {root} has files that are no published model; choose another name, or another folder of "
            f"models with --home or $MENAGERIE_HOME"
        )
    with unfinished_snapshot(root) as unfinished:
        revision, family = _build(model, path, unfinished, home, policy)
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


def _publish_hub(model: Any, path: str, home: str | os.PathLike[str] | None, policy: SharingPolicy) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _build(model, f"hub:{path}", folder, home, policy)
        files = [*repository.read_manifest(folder), repository.MANIFEST]
        commit = huggingface.upload(path, folder, files)
    return f"hub:{path}@{commit}"
