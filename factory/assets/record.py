"""Asset metadata that is available before the asset file is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from factory.assets.licences import UNKNOWN, to_spdx
from factory.assets.sanitize import text


@dataclass(frozen=True)
class AssetRecord:
    """Metadata of one animated 3D model, as listed by its source.

    Attributes:
        uid: unique and stable within its source. Displayed as is; hash it before using it in a file name.
        source: scheme of the source, e.g. "creatures", "folder".
        location: where the source fetches it from: a path, a URL, or a generator URI.
        fingerprint: content address: "sha256:…" of the file, or the generator's name, version and arguments.
            It is part of the clip keys, so only changed assets are rendered again.
        title, author, source_url: used for attribution; "" if unknown.
        licence: SPDX expression, or "unknown".
        noai: whether the author forbids AI use: "yes", "no" or "unknown".
        noai_checked_at: ISO date of the last check, "" if never checked.
        tags: lower-case tags assigned by the source.
        animations, faces: number of animations and of faces; None if the source does not provide it.
        unsettled: licence and noai are provisional. The source is queried again before the file is fetched, or the
            file's own metadata may supply them (`completed`), so "unknown" may still be resolved.
        fault: why the asset cannot be fetched, worded identically for identical causes so that records can be
            counted by cause. Such a record is reported but never fetched.
    """

    uid: str
    source: str
    location: str
    fingerprint: str
    title: str = ""
    author: str = ""
    source_url: str = ""
    licence: str = "unknown"
    noai: str = "unknown"
    noai_checked_at: str = ""
    tags: tuple[str, ...] = ()
    animations: int | None = None
    faces: int | None = None
    unsettled: bool = False
    fault: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the asset is a local file or is generated, so that no third party's download terms apply."""
        scheme, separator, _ = self.location.partition("://")
        return not separator or scheme in ("file", "creatures")

    def completed(self, metadata: Mapping[str, str]) -> AssetRecord:
        """Fill fields that the source left empty from the file's own metadata, and mark the record as settled.

        Args:
            metadata: `Asset.metadata` of the opened file; keys `title`, `author`, `license`, `copyright`, `source`.
        """
        licence = to_spdx(metadata.get("license") or metadata.get("copyright"))
        return replace(
            self,
            licence=self.licence if self.licence != UNKNOWN else licence,
            title=self.title or text(metadata.get("title")) or self.uid,
            author=self.author or text(metadata.get("author")),
            source_url=self.source_url or text(metadata.get("source"), 2000),
            unsettled=False,
        )

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> AssetRecord:
        values = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**{**values, "tags": tuple(values.get("tags", ()))})
