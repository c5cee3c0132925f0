"""Uploading a release to a dataset repository on the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.dataset.pages.contact_sheet import NAME as CONTACT_SHEET
from factory.dataset.release_files import Published, PublishError, Release, ReleaseFile
from zoo.huggingface import hub_client

COMMIT_BYTES = 4 * 2**30  # of new shards per commit: the most that an interruption can cost
COMMIT_FILES = 200
_SHARD = re.compile(r"(data/[^/]+|captions)/part-[^/]+\.parquet")
# Files that a publication creates. Those missing from a later publication are removed; other files are left alone.
_OWN_FILES = re.compile(
    rf"{_SHARD.pattern}|preview/[^/]+|assets/[^/]+\.png|README\.md|ATTRIBUTION\.md|{CONTACT_SHEET}"
)
_COMMON_FILES = (".gitattributes", "README.md", "LICENSE")  # also in a repository that is still empty


def publish_to_hub(release: Release, name: str, tag: str | None, private: bool, message: str) -> Published:
    """Upload a release.

    Args:
        release: the files.
        name: repository, "org/name"; created if it does not exist.
        tag: name of this version, or None.
        private: create the repository as private.
        message: of the commits.

    Raises:
        PublishError: the repository is public or contains other files, or the tag exists.
        ZooError: the hub cannot be reached or refuses the upload.
    """
    with hub_client(name, kind="dataset", writing=True) as api:
        from huggingface_hub import CommitOperationDelete

        api.create_repo(name, repo_type="dataset", private=private or None, exist_ok=True)
        head = api.dataset_info(name)
        if private and not head.private:
            raise PublishError(
                f"hub:{name} exists and is public: make it private on its page, or choose another name"
            )
        remote_files = {
            file.path: file
            for file in api.list_repo_tree(name, repo_type="dataset", revision=head.sha, recursive=True)
            if hasattr(file, "blob_id")  # not a folder
        }
        changed = [
            file for file in release.files if not _is_current(file, remote_files.get(file.path), release)
        ]
        obsolete = sorted(set(filter(_OWN_FILES.fullmatch, remote_files)) - {f.path for f in release.files})
        _check_repository(name, head.tags or [], remote_files, release, changed)
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(name, repo_type="dataset").tags}
        if tag in tags:
            check_tag(tag, tags[tag], "a new one" if changed or obsolete else head.sha)

        hub = _Commits(api, name, head.sha, message)
        new_shards = [file for file in changed if file in release.shards and file.path not in remote_files]
        for group in _bounded(new_shards):
            with release.local(group) as paths:
                hub.commit([hub.addition(path, source) for path, source in paths.items()])
        # One last commit with the card replaces and removes the shards that a takedown changed.
        additions: list[Any] = []
        for group in _bounded([file for file in changed if file not in new_shards]):
            with release.local(group) as paths:
                operations = [hub.addition(path, source) for path, source in paths.items()]
                hub.upload(operations)
                additions += operations
        hub.commit([*additions, *(CommitOperationDelete(path, is_folder=False) for path in obsolete)])
        if tag and tag not in tags:
            api.create_tag(name, tag=tag, revision=hub.head, repo_type="dataset")
    sent = tuple(file.path for file in changed)
    return Published(hub.head, name, sent, len(release.files) - len(sent), tuple(obsolete))


def check_tag(tag: str | None, existing: str | None, revision: str) -> None:
    """Check that a tag is new or already names the revision.

    Raises:
        PublishError: the tag names another revision.
    """
    if existing not in (None, revision):
        raise PublishError(
            f"the version {tag} exists, as revision {existing[:12]}, and this would be {revision[:12]}: tags are "
            f"never moved; choose another --tag"
        )


@dataclass
class _Commits:
    """Commits to the main branch of a dataset repository; they fail if somebody else commits in between.

    Attributes:
        api: client of the hub.
        name: of the repository.
        head: revision that the next commit is based on.
        message: of the commits.
    """

    api: Any
    name: str
    head: str
    message: str

    def addition(self, path: str, source: Path) -> Any:
        """Create the operation that adds a local file."""
        from huggingface_hub import CommitOperationAdd

        small = not _SHARD.fullmatch(path)  # may become part of the commit itself, so it is read now
        return CommitOperationAdd(path, source.read_bytes() if small else source)

    def upload(self, additions: Sequence[Any]) -> None:
        """Upload large files ahead of the commit that refers to them."""
        self.api.preupload_lfs_files(self.name, additions, repo_type="dataset")

    def commit(self, operations: Sequence[Any]) -> None:
        if operations:
            result = self.api.create_commit(
                self.name,
                operations,
                commit_message=self.message,
                repo_type="dataset",
                parent_commit=self.head,
            )
            self.head = result.oid


def _is_current(file: ReleaseFile, remote: Any, release: Release) -> bool:
    """Whether the hub already has this content at this path."""
    if remote is None or remote.size != file.size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == file.sha256
    with release.local([file]) as paths:  # stored in git itself, so it is small
        data = paths[file.path].read_bytes()
    return remote.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _check_repository(
    name: str,
    tags: Sequence[str],
    remote_files: Mapping[str, Any],
    release: Release,
    changed: Sequence[ReleaseFile],
) -> None:
    """Refuse a repository with unrelated files.

    A published repository is recognised by the tag "menagerie4d" in its card. The card is uploaded last, so after an
    interrupted first publication there are only shards.
    """
    if "menagerie4d" in tags:
        return
    same = {file.path for file in release.files} - {file.path for file in changed}
    unfinished = "README.md" not in remote_files
    unrelated = [
        path
        for path in sorted(remote_files)
        if path not in _COMMON_FILES and path not in same and not (unfinished and _SHARD.fullmatch(path))
    ]
    if unrelated:
        raise PublishError(f"hub:{name} holds something else ({unrelated[0]} …): choose another name")


def _bounded(files: Iterable[ReleaseFile]) -> Iterator[list[ReleaseFile]]:
    """Group files so that each group has at most COMMIT_FILES files and COMMIT_BYTES bytes (or one larger file)."""
    group: list[ReleaseFile] = []
    for file in files:
        if group and (len(group) == COMMIT_FILES or sum(f.size for f in group) + file.size > COMMIT_BYTES):
            yield group
            group = []
        group.append(file)
    if group:
        yield group
