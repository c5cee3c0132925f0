"""A dataset onto the hub, or into a folder in a hub's layout: `python -m factory.publish DATASET --to …`.

Clips that may not be shared stop everything before a byte leaves. Shards go first, in commits of bounded size, and the
card last, in one commit with everything that changes or goes: a reader never sees a card that speaks of shards that are
not there. What the other side has already, told by its sha256, is not sent; so a publication that was interrupted is
finished by the same command, and one after an append sends the new shards and the card.

The dataset itself is only read (but for a contact sheet, where it has none).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from cluster.storage import Storage
from factory.assets.licences import publishable
from factory.assets.tombstones import read_tombstones
from factory.dataset.pages.card import card_files
from factory.dataset.pages.contact_sheet import NAME as SHEET
from factory.dataset.pages.contact_sheet import write_contact_sheet
from factory.dataset.pages.histograms import histograms
from factory.dataset.pages.preview import write_preview
from factory.dataset.reader import ClipDataset, load_clips
from factory.dataset.shards import read_manifests
from zoo.errors import ZooError
from zoo.huggingface import hub_client
from zoo.snapshots import keep_snapshot, read_ref, unfinished_snapshot, write_ref

COMMIT_BYTES = 4 * 2**30  # of new shards; what an interruption can cost at most
COMMIT_FILES = 200
TAKEN_DOWN = "takedowns.jsonl"
_LICENCE_COLUMNS = ("clip_id", "source", "asset_uid", "title", "licence", "attribution", "noai")
_MOST_NAMED = 5
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_SHARD = re.compile(r"(data/[^/]+|captions)/part-[^/]+\.parquet")
# What a publication makes. Of these, what is not in the next one goes; anything else on the hub is left alone.
_OURS = re.compile(rf"{_SHARD.pattern}|preview/[^/]+|assets/[^/]+\.png|README\.md|ATTRIBUTION\.md|{SHEET}")
_OF_ANYBODY = (".gitattributes", "README.md", "LICENSE")


class PublishError(ZooError):
    """Nothing, or not all, was published; the message says why and what to do."""


@dataclass(frozen=True)
class Published:
    """What a publication came to.

    Attributes:
        revision: of what stands there now. address: what `datasets.load_dataset` takes.
        sent: paths that were sent. kept: how many files were there already. gone: paths that were removed.
    """

    revision: str
    address: str
    sent: tuple[str, ...]
    kept: int
    gone: tuple[str, ...]


def publish(
    root: str | os.PathLike[str],
    target: str,
    *,
    tag: str | None = None,
    private: bool = False,
    message: str = "",
) -> Published:
    """Publish the dataset at `root` (a path or an fsspec URL); running it again sends nothing twice.

    Args:
        target: "hub:org/name", or "local:PATH", a folder with refs/ and snapshots/<revision>/. The hub asks for an
            account: `hf auth login`, or HF_TOKEN.
        tag: name this version; versions never move.
        private: make a new repository of the hub private. message: of the commits.
    Raises:
        PublishError: a clip may not be published, the target holds something else, or a tag exists.
        ZooError: the hub. StorageError, FileNotFoundError: the dataset. Nothing is lost: the same call goes on.
    """
    kind, separator, place = target.partition(":")
    if kind not in ("local", "hub") or not separator or not place:
        raise PublishError(f"cannot publish to {target!r}: expected hub:org/name or local:PATH")
    if kind == "hub" and not _REPOSITORY.fullmatch(place):
        raise PublishError(f"{target!r} is no name on a hub: expected hub:org/name")
    if tag is not None and (not _TAG.fullmatch(tag) or tag == "main"):
        raise PublishError(f"--tag {tag}: expected letters, digits, '.', '_' or '-', and not main")
    check_publishable(root)
    with tempfile.TemporaryDirectory(prefix="publish-") as made:
        release = _Release.of(root, Path(made), place if kind == "hub" else "")
        if kind == "local":
            return _publish_local(release, Path(place).expanduser(), tag)
        return _publish_hub(release, place, tag, private, message or "Publish the dataset")


def check_publishable(root: str | os.PathLike[str]) -> None:
    """Refuse a dataset with a clip that may not be shared, or whose takedown is not finished.

    Raises:
        PublishError: names the first of them, and how many there are.
    """
    for tombstone in read_tombstones(root):
        if not tombstone.finished:
            raise PublishError(
                f"the takedown of {tombstone.uid!r} is not finished: `python -m factory.curate takedown "
                f"{tombstone.uid} --out {os.fspath(root)}` goes on with it"
            )
    rows = load_clips(root).table(_LICENCE_COLUMNS).to_pylist()
    refused = [(row, reason) for row in rows if (reason := publishable(row))]
    if refused:
        named = "; ".join(
            f"{row['clip_id']} (asset {row['source']}/{row['asset_uid']}): {reason}"
            for row, reason in refused[:_MOST_NAMED]
        )
        more = "; …" if len(refused) > _MOST_NAMED else ""
        raise PublishError(
            f"{len(refused)} of {len(rows)} clips may not be published: {named}{more}. Take their assets down "
            f"(`python -m factory.curate takedown UID`), or render a dataset without them "
            f"(`--policy research`)"
        )


@dataclass(frozen=True)
class _File:
    """A file to publish: its path there, its size in bytes and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Release:
    """The shards of a dataset as they are, and everything beside them, made anew in a folder.

    Attributes:
        shards: clips and captions. extras: the other files, the card last.
    """

    root: str
    folder: Path
    shards: tuple[_File, ...]
    extras: tuple[_File, ...]

    @classmethod
    def of(cls, root: str | os.PathLike[str], folder: Path, name: str) -> _Release:
        storage = Storage(root, "_factory/tmp")
        clips = load_clips(root)
        shards = tuple(_shards(storage))
        for path, data in _extras(storage, clips, folder, name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        paths.sort(key=lambda path: path == "README.md")
        extras = tuple(_File(path, (folder / path).stat().st_size, _sha256(folder / path)) for path in paths)
        return cls(storage.url, folder, shards, extras)

    @property
    def files(self) -> tuple[_File, ...]:
        return (*self.shards, *self.extras)

    @contextmanager
    def local(self, files: Iterable[_File]) -> Iterator[dict[str, Path]]:
        """Path there → where its content lies on this machine; fetched first, and then removed, if it has to be.

        Raises PublishError if a shard is not what it was when it was written.
        """
        storage = Storage(self.root, "_factory/tmp")
        fs = fsspec.core.url_to_fs(self.root)[0]
        made = {file.path for file in self.extras}
        with tempfile.TemporaryDirectory(prefix="publish-") as fetched:
            paths = {}
            for file in files:
                if file.path in made:
                    paths[file.path] = self.folder / file.path
                    continue
                path = Path(storage.path(file.path))
                if not storage.is_local:
                    path = Path(fetched) / hashlib.sha256(file.path.encode()).hexdigest()
                    fs.get_file(storage.path(file.path), os.fspath(path))
                if _sha256(path) != file.sha256:
                    raise PublishError(
                        f"{storage.path(file.path)} is not what its manifest says, it was altered or damaged: "
                        f"restore it and publish again"
                    )
                paths[file.path] = path
            yield paths


def _shards(storage: Storage) -> Iterator[_File]:
    """Shards of clips by their manifests, where there are any, and parts of captions."""
    known = {shard.path: shard for shard in read_manifests(storage.url)}
    found = [f"data/{name}" for name in storage.names("data") if name.endswith(".parquet")]
    found += [f"captions/{name}" for name in storage.names("captions") if name.endswith(".parquet")]
    clips = {path for path in found if path.startswith("data/")}
    if known and clips != set(known):
        odd = sorted(clips ^ set(known))[0]
        raise PublishError(
            f"{storage.path(odd)}: {'there is no manifest of it' if odd in clips else 'the shard is missing'}. A run "
            f"was interrupted, or is going on: finish it with the same `python -m factory.render` and publish then"
        )
    fs = fsspec.core.url_to_fs(storage.url)[0]
    for path in found:
        if path in known:
            yield _File(path, known[path].bytes, known[path].sha256)
        else:
            with fs.open(storage.path(path)) as file:
                digest = hashlib.sha256()
                while block := file.read(1 << 22):
                    digest.update(block)
            yield _File(path, fs.size(storage.path(path)), digest.hexdigest())


def _extras(storage: Storage, clips: ClipDataset, folder: Path, name: str) -> Mapping[str, bytes]:
    """Everything beside the shards; what the preview consists of is written into the folder right away."""
    if storage.read(SHEET) is None:
        write_contact_sheet(storage.url)
    write_preview(clips, folder)
    files = {SHEET: storage.read(SHEET) or b""}
    pictures = {f"assets/{picture}": data for picture, data in histograms(clips.table()).items()}
    taken_down = _taken_down(storage.url)
    if taken_down:
        files[TAKEN_DOWN] = taken_down
    card = card_files(
        storage.url,
        name=name,
        pictures=sorted(pictures),
        preview=True,
        taken_down=TAKEN_DOWN if taken_down else "",
    )
    return files | pictures | card


def _taken_down(root: str) -> bytes:
    """One JSON a line for each asset that was taken down. The reason stays here: it may speak of people."""
    told = ("source", "uid", "at", "fingerprints", "clips")
    lines = [
        json.dumps({name: getattr(tombstone, name) for name in told}) for tombstone in read_tombstones(root)
    ]
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish_local(release: _Release, root: Path, tag: str | None) -> Published:
    """A snapshot named by its content; files that it shares with the dataset are links where the disk allows it."""
    if root.exists() and any(root.iterdir()) and not (root / "snapshots").is_dir():
        raise PublishError(
            f"{root} holds something else: choose an empty folder, or one that was published to"
        )
    listing = "".join(f"{file.sha256} {file.path}\n" for file in sorted(release.files, key=lambda f: f.path))
    revision = hashlib.sha256(listing.encode()).hexdigest()[:40]
    if tag:
        _check_tag(tag, read_ref(root, tag), revision)
    snapshot = root / "snapshots" / revision
    is_new = not snapshot.exists()
    with unfinished_snapshot(root) as unfinished:
        if is_new:
            with release.local(release.files) as paths:
                for path, source in paths.items():
                    (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
                    _link(source, unfinished / path)
            keep_snapshot(root, unfinished, revision)
        for name in filter(None, (tag, "main")):
            write_ref(root, name, revision)
    sent = tuple(file.path for file in release.files) if is_new else ()
    return Published(revision, str(snapshot), sent, len(release.files) - len(sent), ())


def _link(source: Path, target: Path) -> None:
    """Shards are replaced, never written into, so a snapshot may share them."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(source, target)


def _check_tag(tag: str, standing: str | None, revision: str) -> None:
    if standing not in (None, revision):
        raise PublishError(
            f"the version {tag} exists, as revision {standing[:12]}, and this would be {revision[:12]}: versions "
            f"never move; choose another --tag"
        )


def _publish_hub(release: _Release, name: str, tag: str | None, private: bool, message: str) -> Published:
    with hub_client(name) as api:
        from huggingface_hub import CommitOperationDelete

        api.create_repo(name, repo_type="dataset", private=private or None, exist_ok=True)
        head = api.dataset_info(name)
        if private and not head.private:
            raise PublishError(
                f"hub:{name} exists and is public: make it private on its page, or choose another name"
            )
        there = {
            file.path: file
            for file in api.list_repo_tree(name, repo_type="dataset", revision=head.sha, recursive=True)
            if hasattr(file, "blob_id")  # not a folder
        }
        different = [file for file in release.files if not _is_there(file, there.get(file.path), release)]
        gone = sorted(set(filter(_OURS.fullmatch, there)) - {file.path for file in release.files})
        _check_ours(name, head.tags or [], there, release, different)
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(name, repo_type="dataset").tags}
        if tag in tags:
            _check_tag(tag, tags[tag], "a new one" if different or gone else head.sha)

        hub = _Commits(api, name, head.sha, message)
        new = [file for file in different if file in release.shards and file.path not in there]
        for group in _bounded(new):
            with release.local(group) as paths:
                hub.commit([hub.addition(path, source) for path, source in paths.items()])
        # Shards without what was taken down replace the old ones, or these just go, together with the card.
        last = [file for file in different if file not in new]
        additions: list[Any] = []
        for group in _bounded(last):
            with release.local(group) as paths:
                operations = [hub.addition(path, source) for path, source in paths.items()]
                hub.send(operations)
                additions += operations
        hub.commit([*additions, *(CommitOperationDelete(path, is_folder=False) for path in gone)])
        if tag and tag not in tags:
            api.create_tag(name, tag=tag, revision=hub.head, repo_type="dataset")
    sent = tuple(file.path for file in different)
    return Published(hub.head, name, sent, len(release.files) - len(sent), tuple(gone))


@dataclass
class _Commits:
    """The main branch of a dataset on the hub, as long as nobody else commits."""

    api: Any
    name: str
    head: str
    message: str

    def addition(self, path: str, source: Path) -> Any:
        from huggingface_hub import CommitOperationAdd

        small = not _SHARD.fullmatch(path)  # it may go into the commit itself, and is read then
        return CommitOperationAdd(path, source.read_bytes() if small else source)

    def send(self, additions: Sequence[Any]) -> None:
        """Upload what is large; a later commit only names it."""
        self.api.preupload_lfs_files(self.name, additions, repo_type="dataset")

    def commit(self, operations: Sequence[Any]) -> None:
        if operations:
            done = self.api.create_commit(
                self.name,
                operations,
                commit_message=self.message,
                repo_type="dataset",
                parent_commit=self.head,
            )
            self.head = done.oid


def _is_there(file: _File, remote: Any, release: _Release) -> bool:
    """Whether the hub has a file with this content at this path."""
    if remote is None or remote.size != file.size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == file.sha256
    with release.local([file]) as paths:  # in git itself, so it is small
        data = paths[file.path].read_bytes()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _check_ours(
    name: str, tags: Sequence[str], there: Mapping[str, Any], release: _Release, different: Sequence[_File]
) -> None:
    """Refuse a repository that holds somebody else's files.

    The card says whose they are. It comes last: after a first publication that was interrupted there are only shards.
    """
    if "menagerie4d" in tags:
        return
    same = {file.path for file in release.files} - {file.path for file in different}
    unfinished = "README.md" not in there
    foreign = [
        path
        for path in sorted(there)
        if path not in _OF_ANYBODY and path not in same and not (unfinished and _SHARD.fullmatch(path))
    ]
    if foreign:
        raise PublishError(f"hub:{name} holds something else ({foreign[0]} …): choose another name")


def _bounded(files: Iterable[_File]) -> Iterator[list[_File]]:
    """In groups of at most so many bytes and files."""
    group: list[_File] = []
    for file in files:
        if group and (len(group) == COMMIT_FILES or sum(f.size for f in group) + file.size > COMMIT_BYTES):
            yield group
            group = []
        group.append(file)
    if group:
        yield group
