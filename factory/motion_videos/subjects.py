"""The objects that motion videos are rendered of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster import Task, task_key
from factory.assets.selection import Selection
from factory.motion_videos.stage import MotionStage, slug
from factory.sources import COLLECTIONS, SourceError, open_source


@dataclass(frozen=True)
class Subject:
    """An object to be filmed, or filmed already.

    Attributes:
        name: of its folder, and of its model. payload: what its task needs; empty if `folder` is all there is.
        fingerprint: of what it is made from. folder: motion videos made before.
    """

    name: str
    payload: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    folder: Path | None = None

    def task(self, stage: MotionStage) -> Task:
        key = task_key("motions", self.name, self.fingerprint, stage.identity)
        return Task(key, {"object": self.name, **self.payload}, self.name)


def find_subjects(objects: Iterable[str], limit: int | None = None) -> list[Subject]:
    """The objects that URIs name; `name=URI` gives the only object of a URI another name.

    Raises:
        SourceError: a URI cannot be read, or two objects have the same name.
    """
    found: dict[str, Subject] = {}
    for text in objects:
        wanted, uri = _split_name(text)
        subjects = list(_subjects(uri))
        if not subjects:
            raise SourceError(f"{uri!r} holds no object: expected .glb or .gltf files, or clips")
        if wanted and len(subjects) > 1:
            raise SourceError(
                f"{text!r}: {uri!r} holds {len(subjects)} objects, and only one can be {wanted!r}"
            )
        for subject in subjects:
            subject = replace(subject, name=wanted or subject.name)
            if subject.name in found:
                raise SourceError(
                    f"two objects are called {subject.name!r}: give one of them another name, NAME={uri}"
                )
            found[subject.name] = subject
    return list(found.values())[:limit]


def _split_name(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", text)
    return (slug(match[1]), match[2]) if match else ("", text)


def _subjects(uri: str) -> Iterator[Subject]:
    scheme, separator, _ = uri.partition("://")
    folder = Path(uri.removeprefix("file://"))
    if not separator or scheme == "file":
        if (folder / "motions.json").is_file():
            from zoo.dimo.data import MotionVideos

            yield Subject(slug(MotionVideos.open(folder).object), folder=folder.resolve())
            return
        is_dataset = any(folder.glob("data/*/*.parquet"))
        uri = str(folder.resolve()) if is_dataset else uri
    else:
        is_dataset = scheme not in ("creatures", "http", "https", *COLLECTIONS)
    yield from _subjects_of_dataset(uri) if is_dataset else _subjects_of_source(uri)


def _subjects_of_source(uri: str) -> Iterator[Subject]:
    for record in Selection(animated=True).apply(open_source(uri).list(), lambda reason: None):
        name = object_name(record.source, record.uid)
        yield Subject(name, {"asset": record.to_json()}, record.fingerprint)


def _subjects_of_dataset(url: str) -> Iterator[Subject]:
    from factory.dataset.reader import load_clips

    try:
        table = load_clips(url).table(["clip_id", "source", "asset_uid"]).to_pylist()
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{url!r} is no dataset that can be read: {error}") from None
    assets: dict[tuple[str, str], list[str]] = {}
    for row in table:
        assets.setdefault((row["source"], row["asset_uid"]), []).append(row["clip_id"])
    for asset, clips in assets.items():
        yield Subject(object_name(*asset), {"dataset": url, "clips": clips}, task_key("clips", *clips))


def object_name(source: str, uid: str) -> str:
    """What an asset's folder and model are called: kangaroo, kangaroo-7, kaykit-knight."""
    if source == "creatures":
        _, species, seed = uid.split("-")
        return species if seed == "0" else f"{species}-{seed}"
    return slug(re.sub(r"\.(glb|gltf)$", "", uid.rpartition("/")[2], flags=re.IGNORECASE))
