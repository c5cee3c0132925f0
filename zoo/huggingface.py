"""The Hugging Face hub: download, list and upload models, with every failure as one of the zoo's errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo import repository
from zoo.errors import HubError, RepositoryError, ZooError
from zoo.hub_failures import explain, is_offline, is_outage, is_unreachable
from zoo.snapshots import read_ref, write_ref

LIBRARY = "menagerie4d"  # as the hub's statistics and tags name it
LOG = logging.getLogger("zoo")
MAIN = "main"
READ_TIMEOUT_S, PUBLISH_TIMEOUT_S = (
    60.0,
    300.0,
)  # without a byte from the hub; it takes minutes for large commits
_COMMIT = re.compile("[0-9a-f]{40}")


@contextmanager
def hub_client(path: str, *, kind: str = "model", writing: bool = False) -> Iterator[Any]:
    """huggingface_hub's HfApi; its exceptions become errors of the zoo (`zoo.hub_failures.explain`).

    Args:
        path: "org/name", for messages.
        kind: "model" or "dataset".
        writing: whether something is published.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise HubError('the hub needs huggingface_hub: pip install "menagerie4d[zoo]"') from None
    try:
        _limit_waiting()
        yield huggingface_hub.HfApi(library_name=LIBRARY)
    except ZooError:
        raise
    except Exception as error:  # raised by the client, by its HTTP library, or in their threads
        raise explain(error, path, kind=kind, writing=writing) from error


def _limit_waiting() -> None:
    """Limit how long the client waits for the hub: by default, many of its requests wait for ever."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks
    if _set_timeouts not in hooks["request"]:
        hooks["request"].append(_set_timeouts)
        get_session().event_hooks = hooks


def _set_timeouts(request: Any) -> None:
    """Hook of the HTTP client: fill in the timeouts that a request leaves open."""
    seconds = READ_TIMEOUT_S if request.method in ("GET", "HEAD") else PUBLISH_TIMEOUT_S
    stated = request.extensions.get("timeout", {})
    limits = {name: stated.get(name) or seconds for name in ("connect", "read", "write", "pool")}
    request.extensions = {**request.extensions, "timeout": limits}


def download(path: str, revision: str | None) -> Path:
    """The folder of a model in the hub's cache, named by its commit; downloaded if the hub has a newer one.

    If the hub or the cache fails, the newest complete snapshot in the cache is returned, and a line logged.

    Args:
        path: "org/name".
        revision: branch, tag or commit; None = main.

    Raises:
        UnknownModelError, HubError, ZooError: see `hub_client`.
        RepositoryError: the names of its files are refused; nothing was downloaded.
    """
    with hub_client(path) as api:
        from huggingface_hub import constants, snapshot_download

        root = Path(constants.HF_HUB_CACHE).expanduser() / f"models--{path.replace('/', '--')}"
        cached = _cached(root, revision)
        if cached is not None and cached.name == revision:
            return cached  # a commit never changes
        try:
            commit = _newest_commit(api, path, revision)
            # By its commit, since the client moves the ref before it has downloaded the files.
            folder = Path(snapshot_download(path, revision=commit, library_name=LIBRARY))
        except ZooError:
            raise
        except Exception as error:
            if cached is None and is_unreachable(error):
                raise HubError(
                    f"the hub {constants.ENDPOINT} cannot be reached, and its cache here has no {path}",
                    reached=False,
                ) from error
            if cached is None:
                raise
            if not is_outage(error):
                raise _with_cached(explain(error, path), cached) from error
            if not is_offline(error):
                reason = explain(error, path, advise=False)
                LOG.warning("%s; loading revision %s from the cache", reason, cached.name[:12])
            return cached
        return folder


def discard(folder: Path, names: Sequence[str]) -> None:
    """Remove damaged files of a snapshot from the hub's cache, so that they are downloaded again."""
    for name in names:
        link = folder / name
        target = link.resolve()
        if target.parent == folder.parents[1] / "blobs":
            target.unlink(missing_ok=True)
        link.unlink(missing_ok=True)


def _newest_commit(api: Any, path: str, revision: str | None) -> str:
    """The commit of a revision. Refuses a repository by its file names before any file is downloaded."""
    info = api.model_info(path, revision=revision)
    files = [file.rfilename for file in info.siblings or []]
    if repository.MANIFEST not in files:
        raise RepositoryError(f"hub:{path}: has no {repository.MANIFEST}, so it is not a model of the zoo")
    repository.check_names(files, f"hub:{path}")
    return str(info.sha)


def _cached(root: Path, revision: str | None) -> Path | None:
    """The complete snapshot of a branch, tag or commit in the cache of a repository."""
    try:
        commit = (root / "refs" / (revision or MAIN)).read_text().strip()
    except (OSError, ValueError):
        commit = revision or ""
    folder = root / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not folder.is_dir():
        return None
    try:
        files = repository.read_manifest(folder)
    except RepositoryError:
        return None
    return folder if all((folder / name).is_file() for name in files) else None


def _with_cached(failure: ZooError, cached: Path) -> ZooError:
    """Add to a refusal how to load the snapshot that is in the cache."""
    if not isinstance(failure, HubError):
        return failure
    advice = f"HF_HUB_OFFLINE=1 loads revision {cached.name[:12]} from the cache"
    return HubError(f"{failure}; {advice}", status=failure.status)


def move_ref(folder: Path, revision: str | None) -> None:
    """Point a branch or tag in the cache to a snapshot that was checked; a read-only cache keeps the old one.

    Args:
        folder: of the snapshot.
        revision: branch, tag or commit; None = main.
    """
    root, name = folder.parents[1], revision or MAIN
    if name == folder.name or read_ref(root, name) == folder.name:
        return
    try:
        (root / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        write_ref(root, name, folder.name)
    except OSError:
        pass


def model_names(pattern: str) -> list[str]:
    """Names "org/name" of the hub's models made with menagerie4d, of the organisation if the pattern names one."""
    organisation = pattern.partition("/")[0]
    author = None if re.search(r"[*?\[]", organisation) else organisation
    with hub_client(pattern) as api:
        return [model.id for model in api.list_models(author=author, filter=LIBRARY)]


def upload(path: str, folder: Path, files: Sequence[str]) -> str:
    """Replace the content of a hub repository with files of a folder, in one commit.

    Args:
        path: "org/name"; a repository that does not exist is created, public.
        folder: contains the files.
        files: paths within the folder; all other files of the repository are deleted.

    Returns:
        The commit.

    Raises:
        HubError: the hub failed, or the repository is not a model of the zoo. Its content is unchanged.
    """
    with hub_client(path, writing=True) as api:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api.create_repo(path, exist_ok=True)
        head = api.model_info(path)
        before = {file.rfilename for file in head.siblings or []} - set(repository.IGNORED)
        if before - {"README.md", "LICENSE"} and repository.MANIFEST not in before:
            raise HubError(
                f"hub:{path} is not a model of the zoo ({sorted(before)[0]} …) and is left as it is; "
                f"choose another name"
            )
        # One commit, so that concurrent readers get either the old model or the new one.
        operations = [
            *(CommitOperationAdd(name, folder / name) for name in files),
            *(CommitOperationDelete(name, is_folder=False) for name in sorted(before - set(files))),
        ]
        message = "Publish a model of the zoo"
        commit = api.create_commit(path, operations, commit_message=message, parent_commit=head.sha)
    return str(commit.oid)
