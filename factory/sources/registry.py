"""Map source URIs to source classes. New sources are registered here."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from factory.sources.source import Source, SourceError

COLLECTIONS = ("objaverse", "objaverse-xl", "sketchfab", "texverse")


def open_source(uri: str) -> Source:
    """Return the source for a URI or path.

    Args:
        uri: `creatures://kangaroo?seed=7`; the path of a folder, a model file or a manifest (.jsonl, .csv); the URL
            of a model file; or a collection (one of `COLLECTIONS`) or a subset of one, such as `objaverse://UID`. A
            record's `location` is also accepted, so that any worker can call
            `open_source(record.location).fetch(record)`.

    Raises:
        SourceError: the URI has an unknown scheme, or the source it names cannot be opened.
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
    if scheme == "texverse":
        from factory.sources.texverse import TexVerseSource

        return TexVerseSource(uri)
    raise SourceError(
        f"source {uri!r}: {scheme!r} is not a source; expected creatures://SPECIES, {', '.join(COLLECTIONS)}, a web "
        f"address, or the path of a folder, a file or a manifest"
    )
