"""Names of datasets: one spelling for publishing, loading and the option `--data`."""

from __future__ import annotations

import os
import re
from pathlib import Path

_HUB = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


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
        match = _HUB.fullmatch(name)
        if match is None:
            raise ValueError(
                f"{name!r} is not a repository name: expected hub:org/name or hub:org/name@version"
            )
        revision = f"@{match['revision'].replace('/', '%2F')}" if match["revision"] else ""
        return f"hf://datasets/{match['repository']}{revision}"
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
