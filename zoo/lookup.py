"""Where the model of a name is: in the local registry, in the package or on the hub."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from renderers.files import file_path
from zoo import huggingface, names, repository
from zoo.errors import HubError, RepositoryError, UnknownModelError, ZooError
from zoo.names import SOURCES
from zoo.snapshots import read_ref

BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class Located:
    """A model's folder, not yet checked.

    Attributes:
        source: "local", "bundled" or "hub".
        path: "family/name", or on the hub "org/name".
        revision: of the content; on the hub, the commit.
        folder: contains the files.
        requested: a branch or tag of the hub that this is the newest revision of.
    """

    source: str
    path: str
    revision: str
    folder: Path
    requested: str | None = None

    def check(self) -> repository.Config:
        """Check the files and return config.json. Damaged ones of the hub are downloaded once more.

        Raises:
            RepositoryError: they were altered or damaged.
        """
        if self.source == "hub":
            config = self._check_download()
            huggingface.move_ref(self.folder, self.requested)
            return config
        config = repository.check(self.folder)
        if self.source == "local" and repository.revision_of(self.folder) != self.revision:
            raise RepositoryError(
                f"{self.folder}: {repository.MANIFEST} differs from the published one, it was altered or damaged; "
                f"remove the folder and publish the model again"
            )
        return config

    def _check_download(self) -> repository.Config:
        """Check a snapshot in the hub's cache. Damaged files are removed from the cache and downloaded once more."""
        within = self.folder.parents[2]  # a snapshot consists of links to <cache>/…/blobs
        try:
            return repository.check(self.folder, within=within)
        except RepositoryError:
            if not (names := repository.damaged(self.folder)):
                raise
        huggingface.discard(self.folder, names)
        try:
            huggingface.download(self.path, self.revision)
        except ZooError as error:
            raise RepositoryError(
                f"hub:{self.path}: {names[0]} in the cache was damaged and is removed, and the model cannot be "
                f"downloaded again: {error}"
            ) from error
        if names := repository.damaged(self.folder):
            huggingface.discard(self.folder, names)
            raise RepositoryError(
                f"hub:{self.path}: {names[0]} does not match {repository.MANIFEST}, also after a second download: it "
                f"was altered or damaged on the hub. Ask its author to publish the model again, or load another "
                f"revision, hub:{self.path}@COMMIT"
            )
        return repository.check(self.folder, within=within)


def find(name: str, home: str | os.PathLike[str] | None, places: tuple[str, ...] = SOURCES) -> Located:
    """The repository of a name, from the first source that has it; `places` are the sources to search."""
    source, path, revision = names.parse(name, lambda: known_names(home))
    reasons = []
    for place in [place for place in places if source in (None, place)]:
        try:
            if place == "local":
                return _find_local(path, revision, home)
            if place == "bundled":
                return _find_bundled(path, revision)
            folder = huggingface.download(path, revision)
            return Located("hub", path, folder.name, folder, revision)
        except UnknownModelError as error:
            reasons.append(str(error))
        except HubError as error:
            if source:
                raise
            if error.reached:  # the hub may have it
                raise HubError(f"{error} ({'; '.join(reasons)})", status=error.status) from error
            reasons.append(str(error))
    similar = names.suggestions(name, known_names(home))
    raise UnknownModelError(f"there is no model {name!r}{similar} ({'; '.join(reasons)})")


def models_folder(home: str | os.PathLike[str] | None) -> Path:
    """Folder of the local registry."""
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = os.environ.get("MENAGERIE_HOME") or Path(cache) / "menagerie4d"
    folder = file_path(home, "home").expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "the home of models is a file, expected a folder", str(folder)
        )
    return folder / "models"


def known_names(home: str | os.PathLike[str] | None) -> list[str]:
    """Names of the local and the bundled models, sorted."""
    return sorted({*local_names(home), *bundled_names()})


def local_names(home: str | os.PathLike[str] | None) -> list[str]:
    """Names "family/name" of the models in the local registry."""
    root = models_folder(home)
    return [ref.parents[1].relative_to(root).as_posix() for ref in root.glob("*/*/refs/main")]


def bundled_names() -> list[str]:
    """Names "family/name" of the models in the package."""
    return [
        file.parent.relative_to(BUNDLED).as_posix() for file in BUNDLED.glob(f"*/*/{repository.MANIFEST}")
    ]


def _find_local(path: str, revision: str | None, home: str | os.PathLike[str] | None) -> Located:
    root = models_folder(home) / path
    current = read_ref(root, "main")
    if current is None:
        raise UnknownModelError(f"not in the local registry {root.parents[1]}")
    revisions = sorted(folder.name for folder in (root / "snapshots").glob("*"))
    if revision is None or revision == "main":
        matches = [current]
    else:
        matches = [each for each in revisions if each.startswith(revision)]
    if len(matches) != 1 or matches[0] not in revisions:
        raise UnknownModelError(
            f"{len(matches)} of {len(revisions)} revisions of {path} in the local registry match "
            f"{revision or 'main'!r}: {', '.join(each[:12] for each in revisions[:8])}"
        )
    return Located("local", path, matches[0], root / "snapshots" / matches[0])


def _find_bundled(path: str, revision: str | None) -> Located:
    folder = BUNDLED / path
    if not (folder / repository.MANIFEST).exists():
        raise UnknownModelError("not bundled in the package")
    content = repository.revision_of(folder)
    if revision is not None and revision != "main" and not content.startswith(revision):
        raise UnknownModelError(f"the package bundles revision {content[:12]}")
    return Located("bundled", path, content, folder)
