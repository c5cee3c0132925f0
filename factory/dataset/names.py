"""Names of datasets: one spelling for publishing, loading and the option `--data`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.storage import StorageError
from zoo.errors import UnknownModelError, ZooError
from zoo.hub_failures import explain, is_of_client
from zoo.huggingface import hub_client
from zoo.names import HUB_SCHEMES, parse_hub

_HUB_URL = "hf://datasets/"
_REPOSITORY = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/?")
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def dataset_url(name: str | os.PathLike[str]) -> str:
    """Turn the name of a dataset into a folder or a URL that fsspec opens.

    Args:
        name: a folder or URL, which stay as they are; "hub:org/name" or "hub:org/name@v1", a repository on the hub; or
            "local:PATH", a folder that `factory.publish` wrote, of which the newest version is taken.

    Raises:
        ValueError: "hub:" is not followed by a repository.
        FileNotFoundError: "local:" is followed by a folder without a published dataset.
    """
    name = os.fspath(name)
    if name.startswith("hub:"):
        return _hub_url(name)
    if name.startswith("local:"):
        root = Path(name.removeprefix("local:")).expanduser()
        try:
            revision = (root / "refs/main").read_text().strip()
        except OSError:
            raise FileNotFoundError(
                f"{name}: {root} is not a published dataset (it has no refs/main); publish one there with "
                f"`python -m factory.publish --data FOLDER --to {name}`, or give the folder without local:"
            ) from None
        return str(root / "snapshots" / revision)
    return name


def input_url(name: str | os.PathLike[str]) -> str:
    """Turn the name of a dataset to read into a folder or URL: as `dataset_url`, or "org/name" on the hub.

    "org/name" is a folder if there is one of this name, or a folder "org", in the current folder.
    """
    name = os.fspath(name)
    return _hub_url(name) if is_on_hub(name) else dataset_url(name)


def is_on_hub(name: str) -> bool:
    """Whether "org/name", without "hub:", means a repository: not a folder, and not one that was mistyped."""
    return bool(_PLAIN.fullmatch(name)) and not Path(name).exists() and not Path(name).parent.exists()


def _hub_url(name: str) -> str:
    path, revision = parse_hub(name, "dataset")
    return f"{_HUB_URL}{path}" + (f"@{revision.replace('/', '%2F')}" if revision else "")


def check_repository(url: str, name: str | os.PathLike[str]) -> None:
    """Ask the hub for a dataset: its file system reports one that is gated or private as an empty folder.

    Args:
        url: of the dataset (`input_url`); nothing is checked if it is not a repository on the hub.
        name: as the user wrote it, for messages.

    Raises:
        FileNotFoundError: the hub has no such dataset, or no such revision of it.
        StorageError: the hub cannot be reached or refuses the request.
    """
    if (match := _REPOSITORY.fullmatch(url)) is None:
        return
    name = os.fspath(name)
    try:
        with hub_client(match[1], kind="dataset") as api:
            api.dataset_info(match[1], revision=match[2] and match[2].replace("%2F", "/"))
    except UnknownModelError as error:
        folder = "" if name.startswith(HUB_SCHEMES) else f", and there is no folder {name} here"
        raise FileNotFoundError(f"no dataset hub:{match[1]}: {error}{folder}") from error
    except ZooError as error:
        raise StorageError(str(error)) from error


@contextmanager
def hub_errors(url: str) -> Iterator[None]:
    """Turn errors of the hub's client, while a dataset at this URL is read, into sentences (`zoo.hub_failures`).

    Raises:
        FileNotFoundError, StorageError: as of `check_repository`.
    """
    try:
        yield
    except (ZooError, ImportError):
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, StorageError) else error
        if not url.startswith(_HUB_URL) or cause is None or not is_of_client(cause):
            raise
        repository = url.removeprefix(_HUB_URL).partition("@")[0]
        explained = explain(cause, "/".join(repository.split("/")[:2]), kind="dataset")
        if isinstance(explained, UnknownModelError):
            raise FileNotFoundError(f"no dataset hub:{repository}: {explained}") from error
        raise StorageError(str(explained)) from error
