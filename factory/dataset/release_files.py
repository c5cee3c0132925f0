"""The files of a release: shards as they are in the dataset, and generated files beside them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec

from cluster.storage import Storage
from factory.assets.tombstones import read_tombstones
from factory.dataset.pages.card import card_files
from factory.dataset.pages.contact_sheet import NAME as CONTACT_SHEET
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.dataset.pages.histograms import histograms
from factory.dataset.pages.preview import write_preview
from factory.dataset.reader import ClipDataset, load_clips
from factory.dataset.shards import read_manifests
from zoo.errors import ZooError

TAKEDOWNS = "takedowns.jsonl"


class PublishError(ZooError):
    """The dataset was not published, or only in part. The message gives the reason and the next step."""


@dataclass(frozen=True)
class Published:
    """Result of a publication.

    Attributes:
        revision: the published revision.
        address: argument for `datasets.load_dataset`.
        sent: paths of the files that were uploaded.
        kept: number of files that were already at the target.
        gone: paths of the files that were removed.
    """

    revision: str
    address: str
    sent: tuple[str, ...]
    kept: int
    gone: tuple[str, ...]


@dataclass(frozen=True)
class ReleaseFile:
    """A file to publish.

    Attributes:
        path: at the target.
        size: bytes.
        sha256: hexadecimal.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """The files of a dataset that are published.

    Attributes:
        root: path or URL of the dataset.
        folder: local folder with the generated files.
        shards: of clips and captions.
        extras: the generated files, the card last.
    """

    root: str
    folder: Path
    shards: tuple[ReleaseFile, ...]
    extras: tuple[ReleaseFile, ...]

    @classmethod
    def of(cls, root: str | os.PathLike[str], folder: Path, name: str) -> Release:
        """Collect the shards of a dataset and generate all other files.

        Args:
            root: path or URL of the dataset.
            folder: empty local folder for the generated files.
            name: repository name shown in the card, "" if unknown.
        """
        storage = Storage(root)
        clips = load_clips(root)
        shards = tuple(_shards(storage))
        for path, data in _extras(storage, clips, folder, name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        paths.sort(key=lambda path: path == "README.md")
        extras = tuple(
            ReleaseFile(path, (folder / path).stat().st_size, _sha256(folder / path)) for path in paths
        )
        return cls(storage.url, folder, shards, extras)

    @property
    def files(self) -> tuple[ReleaseFile, ...]:
        return (*self.shards, *self.extras)

    @contextmanager
    def local(self, files: Iterable[ReleaseFile]) -> Iterator[dict[str, Path]]:
        """Provide local copies of some files, by target path. Remote shards are downloaded temporarily.

        Raises:
            PublishError: a shard does not match its checksum.
        """
        storage = Storage(self.root)
        fs = fsspec.core.url_to_fs(self.root)[0]
        generated = {file.path for file in self.extras}
        with tempfile.TemporaryDirectory(prefix="publish-") as downloads:
            paths = {}
            for file in files:
                if file.path in generated:
                    paths[file.path] = self.folder / file.path
                    continue
                path = Path(storage.path(file.path))
                if not storage.is_local:
                    path = Path(downloads) / hashlib.sha256(file.path.encode()).hexdigest()
                    fs.get_file(storage.path(file.path), os.fspath(path))
                if _sha256(path) != file.sha256:
                    raise PublishError(
                        f"{storage.path(file.path)} does not match the sha256 in its manifest; it was changed or "
                        f"damaged: restore it and publish again"
                    )
                paths[file.path] = path
            yield paths


def _shards(storage: Storage) -> Iterator[ReleaseFile]:
    """Yield the shards of clips, checked against their manifests if there are any, and the parts of captions."""
    manifests = {shard.path: shard for shard in read_manifests(storage.url)}
    paths = [f"data/{name}" for name in storage.names("data") if name.endswith(".parquet")]
    paths += [f"captions/{name}" for name in storage.names("captions") if name.endswith(".parquet")]
    clips = {path for path in paths if path.startswith("data/")}
    if manifests and clips != set(manifests):
        path = sorted(clips ^ set(manifests))[0]
        problem = "the shard has no manifest" if path in clips else "the shard is missing"
        raise PublishError(
            f"{storage.path(path)}: {problem}. A run was interrupted or is in progress: finish it with the same "
            f"`python -m factory.render` command, then publish"
        )
    fs = fsspec.core.url_to_fs(storage.url)[0]
    for path in paths:
        if path in manifests:
            yield ReleaseFile(path, manifests[path].bytes, manifests[path].sha256)
        else:
            with fs.open(storage.path(path)) as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 22):
                    digest.update(block)
            yield ReleaseFile(path, fs.size(storage.path(path)), digest.hexdigest())


def _extras(storage: Storage, clips: ClipDataset, folder: Path, name: str) -> Mapping[str, bytes]:
    """Generate everything beside the shards, by path. The preview is written into the folder directly."""
    if storage.read(CONTACT_SHEET) is None:
        write_contact_sheet(storage.url)
    write_preview(clips, folder)
    files = {CONTACT_SHEET: storage.read(CONTACT_SHEET) or b""}
    charts = {f"assets/{chart}": data for chart, data in histograms(clips.table()).items()}
    takedowns = _takedown_list(storage.url)
    if takedowns:
        files[TAKEDOWNS] = takedowns
    card = card_files(
        storage.url,
        name=name,
        pictures=sorted(charts),
        preview=True,
        taken_down=TAKEDOWNS if takedowns else "",
    )
    return files | charts | card


def _takedown_list(root: str) -> bytes:
    """List the removed assets, one JSON object per line. Reasons are not published: they may contain personal data."""
    columns = ("source", "uid", "at", "fingerprints", "clips")
    lines = [
        json.dumps({name: getattr(tombstone, name) for name in columns})
        for tombstone in read_tombstones(root)
    ]
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
