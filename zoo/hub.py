"""Models by name: a local registry, the models bundled in the package and the Hugging Face hub behind one face.

    family/name[@revision]         looked for in the local registry, in the package, on the hub
    local:family/name[@revision]   in the local registry only; bundled: in the package only
    hub:org/name[@revision]        on the hub only

The local registry is a folder, `$MENAGERIE_HOME` or ~/.cache/menagerie4d, in the layout of a hub's cache:
models/<family>/<name>/refs/main holds a revision, snapshots/<revision>/ its files (zoo/snapshots.py).
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import repository
from zoo.card import model_card
from zoo.errors import HubError, RepositoryError, UnknownModelError, ZooError
from zoo.families import family_class, family_of
from zoo.snapshots import discard_snapshot, keep_snapshot, read_ref, unfinished_snapshot, write_ref

BUNDLED = Path(__file__).parent / "bundled"
SOURCES = ("local", "bundled", "hub")
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME = re.compile(rf"(?:({'|'.join(SOURCES)}):)?({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading its weights.

    Attributes:
        name: what loads exactly this. source: "local", "bundled" or "hub". revision: of its content.
        family, card: see `zoo.families.Model`. metrics: as measured. files: path → bytes. folder: where they lie.
    """

    name: str
    source: str
    revision: str
    family: str
    card: dict[str, Any]
    metrics: dict[str, Any]
    files: dict[str, int]
    folder: Path


def load(name: str, *, home: str | os.PathLike[str] | None = None) -> Any:
    """The model of that name, ready to sample.

    Args:
        name: `family/name[@revision]`, `local:family/name[@revision]` or `hub:org/name[@revision]`.
        home: the folder of the local registry instead of $MENAGERIE_HOME.

    Raises:
        UnknownModelError: with close names. RepositoryError: it was refused. HubError: the hub cannot be reached.
        ZooError: its family is not installed.
    """
    found = _find(name, home)
    config = found.check()
    family = family_class(config.family)
    try:
        model = family.load_from(found.folder, config.init)
    except ImportError as error:
        raise ZooError(
            f"family {config.family!r} cannot be used here: {error}; "
            f'pip install "menagerie4d[zoo,diffusion]" brings what the built-in families need'
        ) from error
    except (ZooError, OSError, MemoryError):
        raise
    except Exception as error:  # of the family, of safetensors, of torch
        raise RepositoryError(
            f"{found.folder}: its files are whole, but {config.family!r} as installed here cannot make a model of them "
            f"({type(error).__name__}: {error}); upgrade the package that brings the family, or get another revision"
        ) from error
    model.metrics = repository.read_metrics(found.folder)
    return model


def info(name: str, *, home: str | os.PathLike[str] | None = None) -> ModelInfo:
    """What is known of a model: its files are checked, its weights are not loaded. Otherwise as `load`."""
    found = _find(name, home)
    config = found.check()
    files = {path: entry["size"] for path, entry in repository.read_manifest(found.folder).items()}
    metrics = repository.read_metrics(found.folder)
    name = f"{found.source}:{found.path}@{found.revision}"
    return ModelInfo(
        name, found.source, found.revision, config.family, config.card, metrics, files, found.folder
    )


def list_models(pattern: str = "*", *, home: str | os.PathLike[str] | None = None) -> list[str]:
    """Names that `load` takes, sorted.

    Args:
        pattern: with wildcards, e.g. "dimo/*", "*/kangaroo", "local:*", "hub:org/*". The hub is asked only by
            "hub:…", and answers with what menagerie4d has published there.
    """
    source, separator, rest = pattern.partition(":")
    if separator and source not in SOURCES:
        raise ZooError(
            f"pattern {pattern!r}: expected it to begin with one of {', '.join(f'{s}:' for s in SOURCES)}"
        )
    if source == "hub" and separator:
        return sorted(f"hub:{path}" for path in _hub_names(rest) if fnmatch.fnmatchcase(path, rest))
    known = {"local": _local_names(home), "bundled": _bundled_names()}
    if separator:
        return sorted(f"{source}:{path}" for path in known[source] if fnmatch.fnmatchcase(path, rest))
    return sorted(path for path in {*known["local"], *known["bundled"]} if fnmatch.fnmatchcase(path, pattern))


def publish(model: Any, target: str, *, home: str | os.PathLike[str] | None = None) -> str:
    """Put a model into the local registry or on the hub, whole or not at all; running it again loses nothing.

    Args:
        model: a model of a registered family, or the name of one (its weights are then copied bit for bit).
        target: "local:family/name" or "hub:org/name". The hub asks for an account: `hf auth login`, or HF_TOKEN.
            A new repository on it is public; make it there beforehand for a private one.

    Returns:
        The name that loads exactly this from now on, e.g. "local:dimo/kangaroo@3f0c…".

    Raises:
        ZooError: nothing was published, and what stood there before still stands.
    """
    source, path, revision = _parse(target)
    if source not in ("local", "hub") or revision:
        raise ZooError(
            f"cannot publish to {target!r}: expected 'local:family/name' or 'hub:org/name', without a revision; "
            f"its content gives the revision"
        )
    try:
        return _publish_local(model, path, home) if source == "local" else _publish_hub(model, path, home)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.strerror else error
        raise ZooError(
            f"{target} was not published: {reason}. What was there before still is; make room or repair the "
            f"storage and publish again"
        ) from error


# --- names -----------------------------------------------------------------------------------------


def _parse(name: str) -> tuple[str | None, str, str | None]:
    """Source or None, "family/name", revision or None."""
    match = _NAME.fullmatch(name)
    if match is None or ".." in name or "--" in name:
        raise UnknownModelError(
            f"{name!r} is no name of a model: expected family/name, local:family/name or hub:org/name, with "
            f"@revision after it if need be{_close(name, None)}"
        )
    return match[1], match[2], match[3]


def _close(name: str, home: str | os.PathLike[str] | None) -> str:
    """The end of a sentence: known names that are like this one, or whose second half is."""
    import difflib

    wanted = name.rpartition(":")[2].partition("@")[0]
    known = list_models(home=home)
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
    last = wanted.rpartition("/")[2]
    halves = difflib.get_close_matches(last, {path.rpartition("/")[2] for path in known}, n=3, cutoff=0.6)
    close += [path for path in known if path.rpartition("/")[2] in halves and path not in close]
    if close:
        return f"; close to it: {', '.join(close[:3])}"
    if known:
        return f"; known here: {', '.join(known[:5])}{' …' if len(known) > 5 else ''}"
    return "; there are no models here yet: zoo.publish puts one into the local registry"


# --- where models are found ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A repository that was found and is not yet to be trusted."""

    source: str
    path: str
    revision: str
    folder: Path

    def check(self) -> repository.Config:
        # A snapshot in the hub's cache is made of links to <cache>/…/blobs.
        within = self.folder.parents[2] if self.source == "hub" else None
        config = repository.check(self.folder, within=within)
        if self.source == "local" and repository.revision_of(self.folder) != self.revision:
            raise RepositoryError(
                f"{self.folder}: {repository.MANIFEST} is not the one that was published, it was altered or damaged; "
                f"remove the folder and publish the model again"
            )
        return config


def _find(name: str, home: str | os.PathLike[str] | None) -> _Found:
    source, path, revision = _parse(name)
    reasons = []
    for place in (source,) if source else SOURCES:
        try:
            if place == "local":
                found = _find_local(path, revision, home)
            elif place == "bundled":
                found = _find_bundled(path, revision)
            else:
                found = _find_on_hub(path, revision)
        except UnknownModelError as error:
            reasons.append(str(error))
            continue
        except HubError as error:
            if source:
                raise
            reasons.append(str(error))
            continue
        return found
    raise UnknownModelError(f"there is no model {name!r}{_close(name, home)} ({'; '.join(reasons)})")


def _models(home: str | os.PathLike[str] | None) -> Path:
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = os.environ.get("MENAGERIE_HOME") or Path(cache) / "menagerie4d"
    return Path(home).expanduser() / "models"


def _local_names(home: str | os.PathLike[str] | None) -> list[str]:
    root = _models(home)
    return [ref.parents[1].relative_to(root).as_posix() for ref in root.glob("*/*/refs/main")]


def _bundled_names() -> list[str]:
    return [
        file.parent.relative_to(BUNDLED).as_posix() for file in BUNDLED.glob(f"*/*/{repository.MANIFEST}")
    ]


def _find_local(path: str, revision: str | None, home: str | os.PathLike[str] | None) -> _Found:
    root = _models(home) / path
    current = read_ref(root, "main")
    if current is None:
        raise UnknownModelError(f"not in the local registry {root.parents[1]}")
    known = sorted(folder.name for folder in (root / "snapshots").glob("*"))
    wanted = (
        [current] if revision in (None, "main") else [name for name in known if name.startswith(revision)]
    )
    if len(wanted) != 1 or wanted[0] not in known:
        raise UnknownModelError(
            f"the local registry has {path} in {len(known)} revisions, {len(wanted)} of them "
            f"{revision or 'main'!r}: {', '.join(name[:12] for name in known[:8])}"
        )
    return _Found("local", path, wanted[0], root / "snapshots" / wanted[0])


def _find_bundled(path: str, revision: str | None) -> _Found:
    folder = BUNDLED / path
    if not (folder / repository.MANIFEST).exists():
        raise UnknownModelError("not bundled in the package")
    content = repository.revision_of(folder)
    if revision not in (None, "main") and not content.startswith(revision):
        raise UnknownModelError(f"bundled in the package is its revision {content[:12]}")
    return _Found("bundled", path, content, folder)


# --- publishing ------------------------------------------------------------------------------------


def _build(model: Any, name: str, folder: Path, home: str | os.PathLike[str] | None) -> tuple[str, str]:
    """Fill a folder with everything of the model; its revision and family."""
    if isinstance(model, str):
        found = _find(model, home)
        config = found.check()
        metrics = repository.read_metrics(found.folder)
        for file in repository.read_manifest(found.folder):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.folder / file, folder / file)
    else:
        family = family_of(model)
        config = repository.Config(family, model.save_to(folder), model.card)
        metrics = model.metrics
    readme = model_card(name, config.family, config.card, metrics)
    return repository.seal(folder, config, metrics, readme), config.family


def _publish_local(model: Any, path: str, home: str | os.PathLike[str] | None) -> str:
    root = _models(home) / path
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
            except RepositoryError:  # damaged since: what was just made takes its place
                discard_snapshot(root, revision)
        keep_snapshot(root, unfinished, revision)
        write_ref(root, "main", revision)
    return f"local:{path}@{revision}"


# --- the hub ---------------------------------------------------------------------------------------


@contextmanager
def hub_client(path: str) -> Iterator[Any]:
    """huggingface_hub's HfApi; its many exceptions become ours, in a sentence."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise HubError('the hub needs huggingface_hub: pip install "menagerie4d[zoo]"') from None
    try:
        yield huggingface_hub.HfApi(library_name="menagerie4d")
    except ZooError:
        raise
    except errors.RevisionNotFoundError as error:
        raise UnknownModelError(f"the hub has {path}, but not in that revision") from error
    except errors.RepositoryNotFoundError as error:
        raise UnknownModelError(
            f"not on the hub {huggingface_hub.constants.ENDPOINT}, or private: then `hf auth login`, or set HF_TOKEN"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(
            f"the hub {huggingface_hub.constants.ENDPOINT} cannot be reached, and its cache here has no {path}"
        ) from error
    except Exception as error:  # of the client, of its HTTP library, of threads of either
        status = _status(error)
        if status in (401, 403):
            advice = "log in with `hf auth login` or set HF_TOKEN to a token that may write there"
        elif status == 412:
            advice = "somebody else published there at the same moment; publish again"
        else:
            advice = "see that it can be reached and run the same again; nothing is lost"
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise HubError(
            f"{path}: the hub {huggingface_hub.constants.ENDPOINT} did not do it: {reason}; {advice}"
        ) from error


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the client, which may wrap it."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return response.status_code
        error = error.__cause__
    return None


def _find_on_hub(path: str, revision: str | None) -> _Found:
    with hub_client(path) as api:
        from huggingface_hub import snapshot_download

        if _hub_is_reached(api, path, revision):
            folder = Path(snapshot_download(path, revision=revision, library_name="menagerie4d"))
        else:  # what an earlier call brought
            folder = Path(snapshot_download(path, revision=revision, local_files_only=True))
    return _Found("hub", path, folder.name, folder)


def _hub_is_reached(api: Any, path: str, revision: str | None) -> bool:
    """Whether the hub answers; refuses a repository by the names of its files before one is fetched."""
    from huggingface_hub import errors

    try:
        files = [file.rfilename for file in api.model_info(path, revision=revision).siblings or []]
    except errors.HfHubHTTPError as error:
        if _status(error) < 500:
            raise
        return False
    except Exception:  # no network, or told not to use it
        return False
    if repository.MANIFEST not in files:
        raise RepositoryError(f"hub:{path}: has no {repository.MANIFEST}, so it is no model of the zoo")
    repository.check_names(files, f"hub:{path}")
    return True


def _hub_names(pattern: str) -> list[str]:
    author = pattern.partition("/")[0]
    with hub_client(pattern) as api:
        author = None if re.search(r"[*?\[]", author) else author
        return [model.id for model in api.list_models(author=author, filter="menagerie4d")]


def _publish_hub(model: Any, path: str, home: str | os.PathLike[str] | None) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _build(model, f"hub:{path}", folder, home)
        files = [*repository.read_manifest(folder), repository.MANIFEST]
        with hub_client(path) as api:
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete

            api.create_repo(path, exist_ok=True)
            head = api.model_info(path)
            before = {file.rfilename for file in head.siblings or []} - set(repository.IGNORED)
            if before - {"README.md", "LICENSE"} and repository.MANIFEST not in before:
                raise HubError(
                    f"hub:{path} holds something else ({sorted(before)[0]} …); choose another name"
                )
            # One commit: who loads meanwhile gets the old model or the new one, never some of both.
            operations = [CommitOperationAdd(name, folder / name) for name in files]
            operations += [
                CommitOperationDelete(name, is_folder=False) for name in sorted(before - set(files))
            ]
            message = "Publish a model of the zoo"
            commit = api.create_commit(path, operations, commit_message=message, parent_commit=head.sha)
    return f"hub:{path}@{commit.oid}"
