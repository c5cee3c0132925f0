"""Objaverse 1.0: 800,000 models from Sketchfab, in the on-disk layout of the `objaverse` package.

Files already downloaded by that package (`~/.objaverse/hf-objaverse-v1`: `object-paths.json.gz`,
`metadata/*.json.gz`, `glbs/*/*.glb`) are read in place and never modified. Missing or truncated files are downloaded
into the cache, from `HF_ENDPOINT` if it is set.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.assets.record import AssetRecord
from factory.assets.sanitize import address, mapping, number, parse, tags, text
from factory.sources import sketchfab
from factory.sources.downloads import Cache, file_sha256, hub_address
from factory.sources.source import SourceError
from factory.sources.web import known_sha256

_REPOSITORY = "allenai/objaverse"
_PATH = re.compile(r"glbs/(\d{3}-\d{3})/([0-9a-f]{32})\.glb")


class ObjaverseSource(sketchfab.SketchfabMirror):
    """`objaverse` for all models, or `objaverse://UID,UID` for some."""

    name = "Objaverse"

    def list(self) -> Iterator[AssetRecord]:
        paths = object_paths()
        wanted = {uid: paths.get(uid) for uid in self.uids} if self.uids else paths
        shards: dict[str, dict[str, str]] = {}
        for uid, path in wanted.items():
            match = _PATH.fullmatch(path) if isinstance(path, str) else None
            if path is None or match is None or match[2] != uid:
                yield _record(uid, {}, "", "malformed: no path in object-paths")
            else:
                shards.setdefault(match[1], {})[uid] = path
        for shard, members in shards.items():
            annotations = mapping(_read(f"metadata/{shard}.json.gz"))
            for uid, path in members.items():
                annotation = annotations.get(uid)
                fault = "" if isinstance(annotation, dict) else "malformed: no annotation"
                yield _record(uid, mapping(annotation), path, fault)

    def fetch(self, record: AssetRecord) -> Path:
        if not _PATH.fullmatch(self.path):
            raise SourceError(f"{record.uid}: {self.path!r} is no path of Objaverse 1.0")
        sha256 = known_sha256(record)
        seeded = _home() / self.path
        if seeded.is_file() and (not sha256 or file_sha256(seeded) == sha256):
            return seeded
        return Cache().fetch(hub_address(_REPOSITORY, self.path), sha256=sha256)


def object_paths() -> dict[str, Any]:
    """Return the index of the collection: uid → path of the file in the repository."""
    return mapping(_read("object-paths.json.gz"))


def _home() -> Path:
    return Path.home() / ".objaverse" / "hf-objaverse-v1"


def _read(name: str) -> Any:
    """Read a gzipped JSON file, preferring the `objaverse` package's copy if that is complete."""
    seeded = _home() / name
    if seeded.is_file():
        try:
            return _unpack(seeded)
        except (OSError, EOFError, zlib.error, ValueError, RecursionError):
            pass  # truncated download, which the package does not detect
    fetched = Cache().fetch(hub_address(_REPOSITORY, name))
    try:
        return _unpack(fetched)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        fetched.unlink(missing_ok=True)
        raise SourceError(
            f"source objaverse: {name} is no gzipped JSON ({type(error).__name__}); run the command again"
        ) from None


def _unpack(path: Path) -> Any:
    return parse(gzip.decompress(path.read_bytes()))


def _record(uid: str, metadata: dict[str, Any], path: str, fault: str) -> AssetRecord:
    user, words = mapping(metadata.get("user")), tags(metadata.get("tags"))
    return AssetRecord(
        uid=text(uid),
        source="objaverse",
        location=f"objaverse://{uid}?path={path}" if path else "",
        fingerprint=f"objaverse-1.0:{uid}",
        title=text(metadata.get("name")),
        author=text(user.get("displayName")) or text(user.get("username")),
        source_url=address(metadata.get("viewerUrl"))
        or (f"https://sketchfab.com/3d-models/{uid}" if path else ""),
        licence=sketchfab.licence_of(metadata.get("license")),
        noai="yes" if sketchfab.forbids_ai(words) else "unknown",
        tags=words,
        animations=number(metadata.get("animationCount")),
        faces=number(metadata.get("faceCount")),
        unsettled=True,
        fault=fault,
    )
