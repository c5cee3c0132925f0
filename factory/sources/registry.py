"""Which source a URI names: the one place to register a new source."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from factory.sources.source import Source, SourceError

COLLECTIONS = ("objaverse", "objaverse-xl", "sketchfab")


def open_source(uri: str) -> Source:
    """The source a user names.

    `creatures://kangaroo?seed=7`; the path of a folder, of one file or of a manifest (.jsonl, .csv); the web
    address of a file; `objaverse`, `objaverse-xl`, `sketchfab` or a part of them, as in `objaverse://UID`.

    A record's `location` is such a name too, so `open_source(record.location).fetch(record)` works anywhere.

    Raises:
        SourceError: nothing of ours answers to that name.
    """
    scheme, separator, _ = uri.partition("://")
    if uri in COLLECTIONS:
        scheme = uri
    elif not separator or scheme == "file":
        path = unquote(uri.removeprefix("file://")) if separator else uri
        if path.lower().endswith((".jsonl", ".csv")) and Path(path).is_file():
            from factory.sources.manifest import ManifestSource

            return ManifestSource(path)
        from factory.sources.folder import FolderSource

        return FolderSource(path)
    if scheme == "creatures":
        from factory.sources.creatures.source import CreatureSource

        return CreatureSource(uri)
    if scheme in ("http", "https"):
        from factory.sources.web import WebSource

        return WebSource(uri)
    if scheme == "objaverse":
        from factory.sources.objaverse import ObjaverseSource

        return ObjaverseSource(uri)
    if scheme == "objaverse-xl":
        from factory.sources.objaverse_xl import ObjaverseXLSource

        return ObjaverseXLSource(uri)
    if scheme == "sketchfab":
        from factory.sources.sketchfab import SketchfabSource

        return SketchfabSource(uri)
    raise SourceError(
        f"source {uri!r}: {scheme!r} is not a source; expected creatures://SPECIES, {', '.join(COLLECTIONS)}, a web "
        f"address, or the path of a folder, a file or a manifest"
    )
