"""The Hugging Face hub: download, list and upload models, with every failure as one of the zoo's errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo import repository
from zoo.errors import HubError, RepositoryError, UnknownModelError, ZooError

LIBRARY = "menagerie4d"  # as the hub's statistics and tags name it
_REASON_LENGTH = 300  # characters of a client's message that are kept


@contextmanager
def hub_client(path: str) -> Iterator[Any]:
    """huggingface_hub's HfApi; its exceptions become `UnknownModelError` or `HubError` with advice.

    Args:
        path: "org/name", for messages.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError:
        raise HubError('the hub needs huggingface_hub: pip install "menagerie4d[zoo]"') from None
    endpoint = constants.ENDPOINT
    try:
        yield huggingface_hub.HfApi(library_name=LIBRARY)
    except ZooError:
        raise
    except errors.RevisionNotFoundError as error:
        raise UnknownModelError(f"the hub has {path}, but not in that revision") from error
    except errors.RepositoryNotFoundError as error:
        raise UnknownModelError(
            f"not on the hub {endpoint}, or private: log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(f"the hub {endpoint} cannot be reached, and its cache here has no {path}") from error
    except Exception as error:  # raised by the client, by its HTTP library, or in their threads
        reason = " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__
        raise HubError(f"{path}: the hub {endpoint} failed: {reason}; {_advice(_status(error))}") from error


def download(path: str, revision: str | None) -> Path:
    """The folder of a model in the hub's cache, named by its commit; downloaded if the hub has a newer one.

    Args:
        path: "org/name".
        revision: branch, tag or commit; None = main.

    Raises:
        UnknownModelError, HubError: see `hub_client`.
        RepositoryError: the names of its files are refused; nothing was downloaded.
    """
    with hub_client(path) as api:
        from huggingface_hub import snapshot_download

        if _is_reachable(api, path, revision):
            return Path(snapshot_download(path, revision=revision, library_name=LIBRARY))
        return Path(snapshot_download(path, revision=revision, local_files_only=True))


def _is_reachable(api: Any, path: str, revision: str | None) -> bool:
    """Whether the hub responds. Refuses a repository by its file names before any file is downloaded."""
    from huggingface_hub import errors

    try:
        files = [file.rfilename for file in api.model_info(path, revision=revision).siblings or []]
    except errors.HfHubHTTPError as error:
        status = _status(error)
        if status is not None and status < 500:
            raise
        return False
    except Exception:  # no network, or offline mode
        return False
    if repository.MANIFEST not in files:
        raise RepositoryError(f"hub:{path}: has no {repository.MANIFEST}, so it is not a model of the zoo")
    repository.check_names(files, f"hub:{path}")
    return True


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
    with hub_client(path) as api:
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


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of an error of the client, or of an error that it wraps."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def _advice(status: int | None) -> str:
    if status in (401, 403):
        return "log in with `hf auth login`, or set HF_TOKEN to a token with write access"
    if status == 412:
        return "another process published there at the same time; publish again"
    return "check the connection and run the same command again; nothing is lost"
