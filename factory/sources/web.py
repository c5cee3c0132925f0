"""Models at http(s) URLs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from factory.assets.record import AssetRecord
from factory.assets.sanitize import address
from factory.sources.downloads import Cache, DeadLink
from factory.sources.source import Source, SourceError

_MOST_PARTS = 1000


class WebSource(Source):
    """One .glb or .gltf file at an http(s) URL."""

    is_remote = True

    def __init__(self, url: str) -> None:
        self.url = address(url)
        if not self.url:
            raise SourceError(f"source {url!r}: expected a web address, http(s)://host/model.glb")

    def list(self) -> Iterator[AssetRecord]:
        yield AssetRecord(
            uid=self.url,
            source="web",
            location=self.url,
            fingerprint=f"url:{self.url}",
            source_url=self.url,
        )

    def fetch(self, record: AssetRecord) -> Path:
        return fetch_model(self.url, known_sha256(record))


def known_sha256(record: AssetRecord) -> str:
    """Return the hexadecimal SHA-256 from a record's fingerprint, or "" if the fingerprint is not a content hash."""
    kind, _, digest = record.fingerprint.partition(":")
    return digest if kind == "sha256" else ""


def fetch_model(url: str, sha256: str = "") -> Path:
    """Download a model and, for a .gltf, the buffers and images it references by relative URI.

    Args:
        url: http(s) URL of the model.
        sha256: expected hexadecimal checksum of the main file; "" skips the check.

    Returns:
        Path of the main file in the cache.

    Raises:
        DownloadError, DeadLink, WrongChecksum: see `Cache.fetch`.
    """
    cache = Cache()
    main = cache.fetch(url, sha256=sha256)
    if not urlsplit(url).path.lower().endswith(".gltf"):
        return main

    def build(folder: Path) -> None:
        for uri in _parts(main):
            target = folder / PurePosixPath(unquote(uri))
            try:
                part = cache.fetch(urljoin(url, uri))
            except DeadLink as error:
                raise DeadLink(url, f"a part of it is missing, {error.reason}") from None
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, target)
        shutil.copyfile(main, folder / "model.gltf")

    return cache.tree(f"{url} {main.name}", build) / "model.gltf"


def _parts(file: Path) -> list[str]:
    """Return the relative URIs in a .gltf that stay inside its folder. The glTF reader rejects all others."""
    try:
        document = json.loads(file.read_bytes())
        uris = [part.get("uri") for kind in ("buffers", "images") for part in document.get(kind, [])]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []  # not valid glTF; the reader reports the reason
    return [
        uri
        for uri in dict.fromkeys(uri for uri in uris[:_MOST_PARTS] if isinstance(uri, str))
        if uri.isprintable()
        and not re.match(r"[a-z][a-z0-9+.-]*:|[/?#]", uri, re.IGNORECASE)
        and not {"..", ""} & set(unquote(uri).split("/"))
        and unquote(uri) not in ("model.gltf", ".")
    ]
