"""Objects to make motion videos of, listed from their URIs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import StorageError, Task, task_key
from factory.assets.selection import Selection
from factory.dataset.names import input_url
from factory.motion_videos.jobs import DatasetClips, MotionsJob, Origin
from factory.motion_videos.stage import MotionStage, slug
from factory.sources import COLLECTIONS, EmptySourceError, SourceError, open_source


@dataclass(frozen=True)
class Subject:
    """An object to render, or one with existing motion videos; exactly one of `origin` and `folder` is set.

    Attributes:
        name: of its folder and of its model.
        origin: asset or clips that its motions are rendered or copied from.
        fingerprint: hash of the origin's content; part of its task key.
        folder: existing motion videos.
    """

    name: str
    origin: Origin | None = None
    fingerprint: str = ""
    folder: Path | None = None

    def task(self, stage: MotionStage) -> Task:
        """The task that plans the object. Raises ValueError if its videos exist already."""
        if self.origin is None:
            raise ValueError(
                f"{self.name}: its motion videos exist in {self.folder}, there is nothing to plan"
            )
        key = task_key("motions", self.name, self.fingerprint, stage.identity)
        return Task(key, MotionsJob(self.name, self.origin).to_json(), self.name)


def find_subjects(objects: Iterable[str], limit: int | None = None) -> list[Subject]:
    """List the objects behind URIs; `name=URI` renames the only object of a URI.

    Args:
        objects: URIs, see `factory.motion_videos.stage`.
        limit: return only the first `limit` objects.
    Raises:
        EmptySourceError: a URI lists no object.
        SourceError: a URI cannot be read, or two objects have the same name.
    """
    subjects: dict[str, Subject] = {}
    for text in objects:
        name, uri = _split_name(text)
        listed = list(_subjects(uri))
        if not listed:
            raise EmptySourceError(_why_empty(uri))
        if name and len(listed) > 1:
            raise SourceError(
                f"{text!r}: a name can be given to one object only, and {uri!r} contains {len(listed)}; leave out "
                f"{name + '='!r}, or name a URI with one object"
            )
        for subject in listed:
            subject = replace(subject, name=name or subject.name)
            if subject.name in subjects:
                raise SourceError(
                    f"two objects are called {subject.name!r}: rename one of them with NAME={uri}"
                )
            subjects[subject.name] = subject
    return list(subjects.values())[:limit]


def _why_empty(uri: str) -> str:
    try:
        source = open_source(uri)
        listed = next(iter(source.list()), None)
    except SourceError:  # a dataset
        return f"{uri!r} contains no object: expected .glb or .gltf files, or clips"
    reason = "lists no animated model" if listed else source.why_empty()
    return f"nothing to render: {uri} {reason}"


def _split_name(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", text)
    return (slug(match[1]), match[2]) if match else ("", text)


def _subjects(uri: str) -> Iterator[Subject]:
    if uri.startswith(("hub:", "local:")):
        try:
            url = input_url(uri)
        except (OSError, ValueError) as error:
            raise SourceError(str(error)) from None
        yield from _subjects_of_dataset(url if "://" in url else str(Path(url).resolve()))
        return
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
        yield Subject(object_name(record.source, record.uid), record, record.fingerprint)


def _subjects_of_dataset(url: str) -> Iterator[Subject]:
    from factory.dataset.reader import load_clips

    try:
        table = load_clips(url).table(["clip_id", "source", "asset_uid"]).to_pylist()
    except (OSError, ValueError, StorageError) as error:
        raise SourceError(f"{url!r} cannot be read as a dataset: {error}") from None
    assets: dict[tuple[str, str], list[str]] = {}
    for row in table:
        assets.setdefault((row["source"], row["asset_uid"]), []).append(row["clip_id"])
    for asset, clips in assets.items():
        origin = DatasetClips(url, tuple(clips))
        yield Subject(object_name(*asset), origin, task_key("clips", *clips))


def object_name(source: str, uid: str) -> str:
    """Name of an asset's folder and model: "kangaroo", "kangaroo-7", "kaykit-knight"."""
    if source == "creatures":
        _, species, seed = uid.split("-")
        return species if seed == "0" else f"{species}-{seed}"
    return slug(re.sub(r"\.(glb|gltf)$", "", uid.rpartition("/")[2], flags=re.IGNORECASE))
