"""Folders of .glb, .gltf and .vrm files with an optional licence table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cluster.storage import JOB_FOLDER
from factory.assets.licences import to_spdx
from factory.assets.record import AssetRecord
from factory.sources.source import Source, SourceError
from renderers.gltf import (
    SNIFFED_BYTES,
    FileFormat,
    GltfError,
    find_file,
    format_of_suffix,
    identify,
    path_text,
)

SUFFIXES = (".glb", ".gltf", ".vrm")
_TABLES = ("LICENSES.csv", "LICENCES.csv", "LICENSES.md", "LICENCES.md")


class FolderSource(Source):
    """All .glb, .gltf and .vrm files in a folder and its subfolders, or a single such file.

    A .vrm file is a GLB with additional data for avatars, which is not used. A single file of another format that is
    recognised by its first bytes is not listed.

    A table `LICENSES.csv` or `LICENSES.md` in the folder may provide the columns `file`, `licence`, `author`, `title`
    and `url`. Missing values are filled from the file's own metadata when it is opened.

    A .gltf may reference files anywhere in the folder, such as `../textures/skin.png`, but none outside.

    Args:
        path: of the folder or the file.
        suffixes: lower-case suffixes of the files that are listed. Only commands that convert other formats may list
            them: all others open what they are given as glTF.
    """

    def __init__(self, path: str | os.PathLike, suffixes: tuple[str, ...] = SUFFIXES) -> None:
        self.path = Path(path).resolve()
        self.suffixes = suffixes
        if not self.path.exists():
            raise SourceError(f"source {str(path)!r}: no such file or folder{_upload_hint(self.path)}")

    def list(self) -> Iterator[AssetRecord]:
        if self.path.is_file():
            root, files = self.path.parent, [] if self._other_format() else [self.path]
        else:
            root = self.path
            files = sorted(p for p in root.rglob("*") if p.suffix.lower() in self.suffixes and p.is_file())
        table = _licence_table(root)
        for file in files:
            uid = _uid(file, root)
            row = _row_for(table, file.relative_to(root).as_posix())
            yield AssetRecord(
                uid=uid,
                source="folder",
                location=str(file),
                fingerprint=fingerprint(file, root),
                title=row.get("title", ""),
                author=row.get("author", ""),
                source_url=row.get("url", ""),
                licence=to_spdx(row.get("licence")),
                unsettled=True,  # the file's own metadata may fill what the table leaves empty
            )

    def why_empty(self) -> str:
        if (kind := self._other_format()) is not None:
            return f"is not a glTF file: {kind}"
        formats = Counter(kind for p in self.path.rglob("*") if p.is_file() and (kind := _format_of(p)))
        expected = ", ".join(self.suffixes[:-1]) + f" or {self.suffixes[-1]}"
        if not formats:
            content = "contains" if any(self.path.iterdir()) else "is empty: it contains"
            return f"{content} no {expected} file; name a folder with some{_upload_hint(self.path)}"
        kind, count = formats.most_common(1)[0]
        example = min(p.name for p in self.path.rglob("*") if _format_of(p) == kind)
        others = f", and {formats.total() - count} files of other formats" if len(formats) > 1 else ""
        return (
            f"contains no {expected} file, but {count} such as {example!r}, which is {kind.name}{others}: "
            f"{kind.advice}"
        )

    def _other_format(self) -> FileFormat | None:
        """The format of a single file, if it is recognised and not glTF."""
        if not self.path.is_file() or self.path.suffix.lower() in set(self.suffixes) - set(SUFFIXES):
            return None
        try:
            with self.path.open("rb") as stream:
                return identify(stream.read(SNIFFED_BYTES), self.path.name)
        except OSError as error:
            raise SourceError(f"source {str(self.path)!r}: cannot be read ({error.strerror})") from None

    def fetch(self, record: AssetRecord) -> Path:
        file = Path(record.location)
        if not file.is_file():
            raise FileNotFoundError(f"{record.uid}: {path_text(file)} is gone; put it back or run without it")
        return file

    def root(self, record: AssetRecord) -> Path | None:
        # Workers open the file, not the folder. The uid is the path of the file in the folder; that of a record from
        # elsewhere, such as a manifest, says nothing about folders.
        file = Path(record.location)
        if record.source != "folder" or not path_text(file).endswith("/" + record.uid.rstrip("~")):
            return None
        return file.parents[record.uid.count("/")]


def _upload_hint(path: Path) -> str:
    """Why inputs may be missing in the working directory of a submitted job; "" elsewhere."""
    if JOB_FOLDER not in str(path):
        return ""
    return (
        "; the working directory of a submitted job lacks what its .gitignore names: give an absolute path that all "
        "machines of the cluster see"
    )


def _format_of(file: Path) -> FileFormat | None:
    return format_of_suffix(file.name)


def _uid(file: Path, root: Path) -> str:
    """Return the path of a file in the source as text; bytes of a name that are not UTF-8 become %E9 and so on."""
    path = file.relative_to(root).as_posix()
    uid = path_text(path)
    while uid != path and (root / uid).exists():  # another file has this name
        uid += "~"
    return uid


def fingerprint(file: Path, root: Path | None = None) -> str:
    """Return "sha256:…" over a file and, for a .gltf or an .obj, the local files it references.

    Args:
        file: the main file.
        root: the folder that referenced files may be in; None is the folder of `file`.
    """
    digest = hashlib.sha256()
    _digest_file(file, digest)
    if file.suffix.lower() == ".obj":
        for part in _files_of_obj(file):
            _digest_file(part, digest)
    if file.suffix.lower() == ".gltf":
        try:
            document = json.loads(file.read_bytes())
            uris = [part.get("uri") for kind in ("buffers", "images") for part in document.get(kind) or []]
        except (ValueError, AttributeError, TypeError):
            uris = []  # not glTF; its own bytes identify it well enough to be quarantined
        for uri in uris:
            if isinstance(uri, str) and not re.match(r"[a-z][a-z0-9+.-]*:", uri, re.IGNORECASE):
                try:
                    part = find_file(uri, file.parent.resolve(), (root or file.parent).resolve())
                except GltfError:
                    continue  # the file is refused when it is opened
                if part.is_file():
                    _digest_file(part, digest)
    return "sha256:" + digest.hexdigest()


def _files_of_obj(file: Path) -> list[Path]:
    """Return the material files of an .obj in its folder, and their textures."""
    files: dict[Path, None] = {}
    for library in _names_after(file, rb"mtllib\s+"):
        materials = file.parent / library
        if materials.parent == file.parent and materials.is_file():
            files[materials] = None
            for name in _names_after(materials, rb"\s*(?:map_\w+|bump|norm|disp)\s+(?:.*\s)?"):
                texture = file.parent / name
                if texture.is_file():
                    files[texture] = None
    return list(files)


def _names_after(file: Path, statement: bytes) -> list[str]:
    """Return the last words of the lines of a text file that begin with a statement."""
    names = re.findall(rb"^" + statement + rb"(\S+)[ \t\r]*$", file.read_bytes(), re.MULTILINE)
    return [os.fsdecode(name) for name in names if b"\0" not in name]


def _digest_file(file: Path, digest: hashlib._Hash) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


# --- the table of licences --------------------------------------------------------------------------


def _licence_table(root: Path) -> list[dict[str, str]]:
    for name in _TABLES:
        path = root / name
        if path.is_file():
            text = path.read_text(
                encoding="utf-8-sig", errors="replace"
            )  # spreadsheets write a byte-order mark
            rows = list(csv.reader(io.StringIO(text))) if path.suffix == ".csv" else _markdown_rows(text)
            header = [_column(cell) for cell in rows[0]] if rows else []
            return [dict(zip(header, (c.strip() for c in row), strict=False)) for row in rows[1:]]
    return []


def _markdown_rows(text: str) -> list[list[str]]:
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.strip().startswith("|")]
    return [row for row in rows if not all(re.fullmatch(r"\s*:?-+:?\s*", cell) for cell in row)]


def _column(heading: str) -> str:
    """Return the canonical name of a column: both spellings of "licence", and synonyms of "url", are accepted."""
    heading = heading.strip().lower()
    if heading.startswith(("licen",)):
        return "licence"
    if heading.startswith(("source", "url", "link")):
        return "url"
    return heading.split(" ")[0]


def _row_for(table: list[dict[str, str]], uid: str) -> dict[str, str]:
    """Return the row whose `file` is this asset or a folder that contains it; {} if there is none.

    Args:
        uid: the path of the asset's file. Bytes that are not UTF-8 compare equal to those of the table.
    """
    uid = os.fsencode(uid).decode("utf-8", "replace")
    for row in table:
        name = re.split(r"\s\(", row.get("file", ""))[0].strip("` ")  # "Fox.glb (was fox.glb)"
        if name and (uid == name or (name.endswith("/") and uid.startswith(name))):
            return row
    return {}
