"""Objaverse-XL: ten million files from GitHub, Thingiverse, Sketchfab and the Smithsonian.

The annotation tables (`~/.objaverse/<part>/<part>.parquet`, the location used by the `objaverse` package) list the
URL, type, licence and SHA-256 of each file, but not whether it is animated, so files are opened to find out. File
types that cannot hold animation are reported and not fetched. FBX and BLEND files are converted with Blender.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from factory.assets.licences import to_spdx
from factory.assets.record import AssetRecord
from factory.assets.sanitize import address, mapping, sha256, tags, text
from factory.sources import objaverse, sketchfab
from factory.sources.conversion import CONVERTED, to_glb
from factory.sources.downloads import Cache, DeadLink, WrongChecksum, hub_address
from factory.sources.source import Source, SourceError
from factory.sources.web import fetch_model, known_sha256

PARTS = ("github", "sketchfab", "smithsonian", "thingiverse")

_READ = ("glb", "gltf")
_STILL = ("obj", "stl", "ply")  # formats that cannot hold animation
_COLUMNS = ("fileIdentifier", "license", "fileType", "sha256", "metadata")
_BATCH = 4096


class ObjaverseXLSource(Source):
    """`objaverse-xl` for all parts, or a selection such as `objaverse-xl://github,smithsonian`."""

    is_remote = True

    def __init__(self, uri: str) -> None:
        _, _, rest = uri.partition("://")
        named, _, query = rest.partition("?")
        self.parts = named.split(",") if named else list(PARTS)
        for part in self.parts:
            if part not in PARTS:
                raise SourceError(
                    f"source {uri!r}: {part!r} is no part of Objaverse-XL; expected {', '.join(PARTS)}"
                )
        values = parse_qs(query)
        self._file, self._type = (values.get(name, [""])[0] for name in ("file", "type"))

    def list(self) -> Iterator[AssetRecord]:
        for part in self.parts:
            # The Sketchfab part consists of Objaverse 1.0 files, whose index has their paths.
            paths = objaverse.object_paths() if part == "sketchfab" else {}
            for row in _rows(part):
                yield _record(part, row, paths)

    def fetch(self, record: AssetRecord) -> Path:
        url, known = address(self._file), known_sha256(record)
        if self.parts == ["github"]:
            file = _fetch_from_github(url, known)
        else:
            file = fetch_model(url, known)
        return to_glb(file, self._type) if self._type in CONVERTED else file


def _record(part: str, row: dict[str, Any], paths: dict[str, Any]) -> AssetRecord:
    identifier, kind = row.get("fileIdentifier"), text(row.get("fileType"), 20).lower().lstrip(".")
    url, known = address(identifier), sha256(row.get("sha256"))
    metadata = _metadata(row.get("metadata"))
    location, fault, fingerprint = "", "", f"objaverse-xl:{text(identifier, 2000)}"
    if not url:
        fault = "malformed: no address"
    elif part == "sketchfab":
        uid = url.rstrip("/").rpartition("/")[2]
        path = paths.get(uid)
        location, fingerprint = f"objaverse://{uid}?path={path}", f"objaverse-1.0:{uid}"
        fault = "" if isinstance(path, str) else "malformed: no path in object-paths"
    elif kind in _STILL:
        fault = f"type {kind}: holds no animation"
    elif kind not in (*_READ, *CONVERTED):
        fault = f"type {kind or 'unknown'}: cannot be read"
    elif part == "github" and _raw(url) is None:
        fault = "malformed: no file on GitHub"
    else:
        location = f"objaverse-xl://{part}?file={quote(url, safe='')}&type={kind}"
    return AssetRecord(
        uid=text(identifier, 2000),
        source="objaverse-xl",
        location=location,
        fingerprint=f"sha256:{known}" if known else fingerprint,
        title=text(metadata.get("title") or metadata.get("name")) or _file_name(url),
        author=text(metadata.get("author")) or _owner(part, url),
        source_url=url,
        licence=sketchfab.licence_of(row.get("license"))
        if part == "sketchfab"
        else to_spdx(row.get("license")),
        tags=tags(metadata.get("tags")),
        unsettled=part == "sketchfab",
        fault=fault,
    )


def _rows(part: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a part's table, read from the `objaverse` package's copy if that is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"{part}/{part}.parquet"
    seeded = Path.home() / ".objaverse" / name
    try:
        table = pq.ParquetFile(seeded)
    except (OSError, pa.ArrowException):  # missing, or the download was interrupted
        fetched = Cache().fetch(hub_address("allenai/objaverse-xl", name))
        try:
            table = pq.ParquetFile(fetched)
        except (OSError, pa.ArrowException) as error:
            fetched.unlink(missing_ok=True)
            raise SourceError(
                f"source objaverse-xl: {name} is no table ({error}); run the command again"
            ) from None
    with table:
        columns = [column for column in _COLUMNS if column in table.schema_arrow.names]
        for batch in table.iter_batches(_BATCH, columns=columns):
            yield from batch.to_pylist()


def _metadata(value: Any) -> dict[str, Any]:
    try:
        return mapping(json.loads(value) if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        return {}


def _raw(url: str) -> tuple[str, str] | None:
    """Return the raw and the Git LFS download URL of https://github.com/OWNER/REPOSITORY/blob/COMMIT/PATH.

    None if the URL does not have this form.
    """
    parts = urlsplit(url)
    names = parts.path.split("/")
    if parts.hostname != "github.com" or len(names) < 6 or names[3] != "blob" or not all(names[1:]):
        return None
    if {".", ".."} & {unquote(name) for name in names}:
        return None
    path = "/".join([*names[1:3], *names[4:]])
    return f"https://raw.githubusercontent.com/{path}", f"https://media.githubusercontent.com/media/{path}"


def _fetch_from_github(url: str, known: str) -> Path:
    urls = _raw(url)
    if urls is None:
        raise DeadLink(url, "no file on GitHub")
    raw, media = urls
    try:
        file = fetch_model(raw, known)
    except WrongChecksum:
        try:  # for files in Git LFS, the raw URL serves a pointer file
            return fetch_model(media, known)
        except DeadLink:
            pass
        raise
    is_pointer = file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs")
    return fetch_model(media) if is_pointer else file


def _owner(part: str, url: str) -> str:
    """Return the author to credit if the table names none: the repository owner or the institution."""
    if part == "github" and url:
        return text(unquote(urlsplit(url).path.split("/")[1]))
    return {"smithsonian": "Smithsonian Institution"}.get(part, "")


def _file_name(url: str) -> str:
    return text(unquote(urlsplit(url).path.rpartition("/")[2])) if url else ""
