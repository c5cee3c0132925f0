"""TexVerse-Animation: 54,430 animated models from Sketchfab as their authors uploaded them, each with its own licence.

The layout is the published one (Zhang et al. 2025, "TexVerse", and the cards of its repositories):

* `TexVerse-Animation_id_list.txt` in the GitHub repository yiboz2001/TexVerse: the uids of the animated models, one per
  line. They are Sketchfab's uids.
* `metadata.json` in the dataset YiboZhang2001/TexVerse on the hub: one object, uid → name, tags, licence, user and
  counts, for all 858,669 models (837 MB). It is read as a stream.
* `model_paths.txt` in the dataset YiboZhang2001/TexVerse-Skeleton-Animation: the paths `models/<shard>/<uid>.zip` of
  the original files that could be obtained, and these archives. An archive has the model below `source/`, as glTF, FBX,
  BLEND or in another zip archive, and images below `textures/`.

The metadata were collected before some authors withdrew their models or forbade AI use, so licence and NoAI status are
queried at Sketchfab before a file is fetched, as for Objaverse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from factory.assets.record import AssetRecord
from factory.assets.sanitize import mapping, number, tags, text
from factory.sources import sketchfab
from factory.sources.archives import unzip
from factory.sources.conversion import CONVERTED, to_glb
from factory.sources.downloads import Cache, DeadLink, hub_address
from factory.sources.sketchfab import UID
from factory.sources.source import SourceError

ANIMATED = "https://raw.githubusercontent.com/yiboz2001/TexVerse/main/metadata/TexVerse-Animation_id_list.txt"
METADATA = ("YiboZhang2001/TexVerse", "metadata.json")
FILES = "YiboZhang2001/TexVerse-Skeleton-Animation"
PATHS = (FILES, "model_paths.txt")

_PATH = re.compile(r"(?:[\w-]+/)*([0-9a-f]{32})\.zip", re.ASCII)
_READ = ("glb", "gltf", *CONVERTED)  # in the order of preference
_OTHER_MODELS = ("7z", "abc", "dae", "max", "ma", "mb", "obj", "ply", "rar", "stl", "usdz", "vrm", "x")
_IMAGES = ("bmp", "dds", "jpeg", "jpg", "png", "tga", "tif", "tiff", "webp")
_LARGEST_METADATA = 4 * 2**30  # bytes
_PIECE = 1 << 20  # characters of the metadata read at a time
_DELIMITERS = tuple(" \t\r\n,:}")
_LARGEST_ENTRY = 1 << 26  # characters of one model's metadata


class TexVerseSource(sketchfab.SketchfabMirror):
    """`texverse` for all animated models, or `texverse://UID,UID` for some."""

    name = "TexVerse"

    def list(self) -> Iterator[AssetRecord]:
        animated = dict.fromkeys(_lines(ANIMATED))
        paths = {
            match[1]: match[0] for line in _lines(hub_address(*PATHS)) if (match := _PATH.fullmatch(line))
        }
        pending = dict.fromkeys(self.uids or animated)
        for uid in [uid for uid in pending if uid not in paths]:
            del pending[uid]
            is_uid = UID.fullmatch(uid)
            fault = "dead: its original file is not in the collection" if is_uid else "malformed: no uid"
            yield _record(text(uid), {}, "", fault)
        if pending:
            file = Cache().fetch(hub_address(*METADATA), largest=_LARGEST_METADATA)
            for uid, metadata in _entries(file):
                if uid in pending:
                    del pending[uid]
                    fault = "" if isinstance(metadata, dict) else "malformed: no metadata"
                    yield _record(uid, mapping(metadata), paths[uid], fault)
                    if not pending:
                        break
        for uid in pending:
            yield _record(uid, {}, paths[uid], "malformed: no metadata")

    def fetch(self, record: AssetRecord) -> Path:
        match = _PATH.fullmatch(self.path)
        if match is None or match[1] != self.uids[0]:
            raise SourceError(f"{record.uid}: {self.path!r} is no path of TexVerse")
        uid, cache = self.uids[0], Cache()
        archive = cache.fetch(hub_address(FILES, self.path))
        folder = cache.tree(f"{archive.name} unzipped", lambda folder: _unpack(archive, folder, uid))
        model = _model(folder)
        if model is None:
            raise DeadLink(
                uid, f"no model to read in its archive ({', '.join(_others(folder)) or 'no model'})"
            )
        kind = _kind(model)
        if kind not in CONVERTED:
            return model
        images = [path for path in _contents(folder) if _kind(path) in _IMAGES]
        return to_glb(model, kind, images)


def _record(uid: str, metadata: dict[str, Any], path: str, fault: str) -> AssetRecord:
    words = tags(metadata.get("tags"))
    return AssetRecord(
        uid=uid,
        source="texverse",
        location=f"texverse://{uid}?path={path}" if path else "",
        fingerprint=f"texverse:{uid}",
        title=text(metadata.get("name")),
        author=text(metadata.get("user_display")) or text(metadata.get("user")),
        source_url=f"https://sketchfab.com/3d-models/{uid}" if path else "",
        licence=sketchfab.licence_of(metadata.get("license")),
        noai="yes" if sketchfab.forbids_ai(words) else "unknown",
        tags=words,
        animations=number(metadata.get("animation")) or None,  # the list of animated models overrides a zero
        faces=number(metadata.get("faceCount")),
        unsettled=True,
        fault=fault,
    )


# --- lists and metadata ---------------------------------------------------------------------------


def _lines(url: str) -> list[str]:
    """Download a text file and return its lines without surrounding spaces, omitting empty ones."""
    lines = Cache().fetch(url).read_text("utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the members of a JSON object, one at a time, so that the file need not fit in memory.

    Raises:
        SourceError: the file is not a JSON object; it is removed from the cache.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            yield from _Members(stream)
    except (ValueError, RecursionError) as error:
        file.unlink(missing_ok=True)
        raise SourceError(
            f"source texverse: {METADATA[1]} is no JSON object ({type(error).__name__}: {error}); run the command again"
        ) from None


class _Members:
    """Iterator over the members (key, value) of the JSON object in a text stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._decoder = json.JSONDecoder(parse_int=lambda digits: int(digits[:19]))
        self._buffer, self._at, self._ended = "", 0, False

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._take("{")
        while (mark := self._next()) != "}":
            if mark == ",":
                self._at += 1
            key = self._value()
            if not isinstance(key, str):
                raise ValueError("a key is no string")
            self._take(":")
            yield key, self._value()

    def _read(self) -> None:
        """Append the next piece of the stream to the unread part of the buffer."""
        if self._ended or len(self._buffer) - self._at > _LARGEST_ENTRY:
            raise ValueError("it ends early" if self._ended else "an entry is too long")
        piece = self._stream.read(_PIECE)
        self._ended = not piece
        self._buffer, self._at = self._buffer[self._at :] + piece, 0

    def _next(self) -> str:
        """Return the next character that is not white space, without consuming it."""
        while True:
            while self._at < len(self._buffer):
                if not self._buffer[self._at].isspace():
                    return self._buffer[self._at]
                self._at += 1
            self._read()

    def _take(self, mark: str) -> None:
        if self._next() != mark:
            raise ValueError(f"expected {mark!r}")
        self._at += 1

    def _value(self) -> Any:
        """Consume and return a value. If no delimiter follows, it may go on in the next piece (as 1.5 after "1.")."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
                if self._buffer[end : end + 1] in _DELIMITERS:
                    self._at = end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise
            self._read()


# --- archives -------------------------------------------------------------------------------------


def _unpack(archive: Path, folder: Path, uid: str) -> None:
    """Unpack an archive and, if no model can be read in it, the archives inside it."""
    unzip(archive, folder, uid)
    if _model(folder) is None:
        for index, inner in enumerate([path for path in _contents(folder) if _kind(path) == "zip"]):
            target = folder / f"archive-{index}"
            target.mkdir()
            unzip(inner, target, uid)
            inner.unlink()


def _contents(folder: Path) -> list[Path]:
    """Return all files below a folder in order, without those of macOS' archiver."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in paths if "__MACOSX" not in path.parts and not path.name.startswith("._")]


def _kind(path: Path) -> str:
    return path.suffix.lower().lstrip(".")


def _model(folder: Path) -> Path | None:
    """Return the model of an archive: of the preferred format, nearest to the root, then the largest."""
    models = [path for path in _contents(folder) if _kind(path) in _READ]
    return min(
        models,
        key=lambda path: (_READ.index(_kind(path)), len(path.parts), -path.stat().st_size, path.name),
        default=None,
    )


def _others(folder: Path) -> list[str]:
    """Return the formats in an archive that hold models or archives and cannot be read."""
    return sorted({_kind(path) for path in _contents(folder)} & {*_OTHER_MODELS, "zip"})
