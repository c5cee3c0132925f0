"""Publishing a dataset to the hub, or to a folder in the layout of a hub's cache.

All rows are checked before anything is uploaded. New shards are uploaded first, in commits of bounded size. The card is
uploaded last, in one commit with everything that changes or is removed, so a reader never sees a card that refers to
missing shards. Files whose sha256 the target already has are not uploaded. An interrupted publication is therefore
finished by the same command, and a publication after an append uploads only the new shards and the card.

The dataset is only read, except that a missing contact sheet is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from cluster import Storage
from factory.assets.licences import publishable
from factory.assets.tombstones import read_tombstones
from factory.dataset.names import input_url
from factory.dataset.reader import load_clips
from factory.dataset.release_files import Published, PublishError, Release
from factory.dataset.release_hub import check_tag, publish_to_hub
from zoo.names import HUB_SCHEMES, parse_hub
from zoo.snapshots import is_repository, keep_snapshot, read_ref, unfinished_snapshot, write_ref

__all__ = ["PublishError", "Published", "check_publishable", "publish"]

_LICENCE_COLUMNS = ("clip_id", "source", "asset_uid", "title", "licence", "attribution", "noai")
_MAX_LISTED = 5
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def publish(
    root: str | os.PathLike[str],
    target: str,
    *,
    tag: str | None = None,
    private: bool = False,
    message: str = "",
) -> Published:
    """Publish a dataset. Calling it again uploads nothing twice.

    Args:
        root: name, path or fsspec URL of the dataset (`factory.dataset.names.input_url`).
        target: "hub:org/name", or "local:PATH" for a folder with refs/ and snapshots/<revision>/. The hub requires an
            account: `hf auth login`, or HF_TOKEN.
        tag: name of this version. Tags are never moved.
        private: create the repository as private.
        message: of the commits.

    Raises:
        PublishError: a clip may not be published, the target has unrelated content, or the tag exists.
        ZooError: the hub cannot be reached or refuses the upload; the same call continues.
        StorageError: the dataset cannot be read.
        FileNotFoundError: the dataset has no clips.
    """
    kind, place = _place(target)
    if tag is not None and (not _TAG.fullmatch(tag) or tag == "main"):
        raise PublishError(f"--tag {tag}: expected letters, digits, '.', '_' or '-', and not main")
    folder = Path(place).expanduser()
    if kind == "local" and not is_repository(folder):
        raise PublishError(
            f"{folder} holds something else: choose an empty folder, or one created by an earlier publication"
        )
    if kind == "local":
        Storage(folder).check_writable()
    root = input_url(root)
    check_publishable(root)
    with tempfile.TemporaryDirectory(prefix="publish-") as generated:
        release = Release.of(root, Path(generated), place if kind == "hub" else "")
        if kind == "local":
            return _publish_to_folder(release, folder, tag)
        return publish_to_hub(release, place, tag, private, message or "Publish the dataset")


def _place(target: str) -> tuple[str, str]:
    """ "hub" and "org/name", or "local" and the path.

    Raises:
        PublishError: the target is neither, or is a revision of a repository.
    """
    if target.startswith(HUB_SCHEMES):
        try:
            path, revision = parse_hub(target, "dataset")
        except ValueError as error:
            raise PublishError(f"cannot publish: {error}") from None
        if revision:
            raise PublishError(
                f"cannot publish to {target!r}: expected hub:{path}; --tag {revision} names the version"
            )
        return "hub", path
    kind, _, place = target.partition(":")
    if kind != "local" or not place:
        raise PublishError(f"cannot publish to {target!r}: expected hub:org/name or local:PATH")
    return "local", place


def check_publishable(root: str | os.PathLike[str]) -> None:
    """Check that every clip may be shared and every takedown is finished.

    Raises:
        PublishError: lists the first clips that may not be shared, and their number.
    """
    root = input_url(root)
    for tombstone in read_tombstones(root):
        if not tombstone.finished:
            raise PublishError(
                f"the takedown of {tombstone.uid!r} is not finished: `python -m factory.curate takedown "
                f"{tombstone.uid} --out {os.fspath(root)}` continues it"
            )
    rows = load_clips(root).table(_LICENCE_COLUMNS).to_pylist()
    refused = [(row, reason) for row in rows if (reason := publishable(row))]
    if refused:
        listed = "; ".join(
            f"{row['clip_id']} (asset {row['source']}/{row['asset_uid']}): {reason}"
            for row, reason in refused[:_MAX_LISTED]
        )
        more = "; …" if len(refused) > _MAX_LISTED else ""
        raise PublishError(
            f"{len(refused)} of {len(rows)} clips may not be published: {listed}{more}. Take their assets down "
            f"(`python -m factory.curate takedown UID`), or render a dataset without them "
            f"(`--policy research`)"
        )


def _publish_to_folder(release: Release, root: Path, tag: str | None) -> Published:
    """Write a snapshot named after the hash of its content. Local shards are hard-linked if possible."""
    listing = "".join(f"{file.sha256} {file.path}\n" for file in sorted(release.files, key=lambda f: f.path))
    revision = hashlib.sha256(listing.encode()).hexdigest()[:40]
    if tag:
        check_tag(tag, read_ref(root, tag), revision)
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
    """Hard-link or copy a file. Links are safe: shards are replaced as a whole, never modified in place."""
    try:
        os.link(source, target)
    except OSError:  # on another disk, or the file system has no hard links
        shutil.copyfile(source, target)
