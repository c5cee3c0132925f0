"""What is known of an asset before it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from factory.assets.licences import UNKNOWN, to_spdx
from factory.assets.sanitize import text


@dataclass(frozen=True)
class AssetRecord:
    """One animated 3D model of a source.

    Attributes:
        uid: unique and stable within its source; file-name safe once hashed, shown to people as it is.
        source: scheme of the source, e.g. "creatures", "folder".
        location: what the source needs to fetch it: a path, a URL, a generator's arguments.
        fingerprint: content address: "sha256:…" of its bytes, or the generator's name, version and arguments.
            Clips are keyed by it, so a changed asset is rendered again and an unchanged one is not.
        title, author, source_url: for attribution; "" where unknown.
        licence: SPDX expression, or "unknown".
        noai: whether the author forbids AI use: "yes", "no" or "unknown". noai_checked_at: ISO date, "" if never.
        tags: words of the source.
        animations, faces: how many, None if the source does not say.
        unsettled: the source will be asked for licence and noai again before the file is fetched, or the file
            itself may say more (`completed`); then "unknown" is not the last word.
        fault: why it cannot be had, in words that many records share; such a record is counted, never fetched.
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
        """Whether it lies on the user's own disk or is made here, so that nobody else's terms were agreed to."""
        scheme, separator, _ = self.location.partition("://")
        return not separator or scheme in ("file", "creatures")

    def completed(self, said: Mapping[str, str]) -> AssetRecord:
        """With what the opened file says of itself (`Asset.metadata`) where the source is silent; settled."""
        licence = to_spdx(said.get("license") or said.get("copyright"))
        return replace(
            self,
            licence=self.licence if self.licence != UNKNOWN else licence,
            title=self.title or text(said.get("title")) or self.uid,
            author=self.author or text(said.get("author")),
            source_url=self.source_url or text(said.get("source"), 2000),
            unsettled=False,
        )

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> AssetRecord:
        values = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**{**values, "tags": tuple(values.get("tags", ()))})
