"""Changing the files of a published model so that its manifest and revision match them, as an attacker would."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from zoo import repository


def reseal(folder: Path, *, also: dict[str, bytes] | None = None) -> str:
    """Write the manifest and the revision anew; returns the model's name."""
    for name, data in (also or {}).items():
        (folder / name).write_bytes(data)
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            data = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            files[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return write_manifest(folder, files)


def write_manifest(folder: Path, files: dict, version: object = 1) -> str:
    """Write the manifest and rename the folder to its revision; returns the model's name."""
    (folder / "manifest.json").write_text(json.dumps({"format_version": version, "files": files}))
    revision = repository.revision_of(folder)
    if folder.name != revision:
        folder.rename(folder.with_name(revision))
    root = folder.parents[1]
    (root / "refs" / "main").write_text(revision)
    return f"{root.parent.name}/{root.name}"
