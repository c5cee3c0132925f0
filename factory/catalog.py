"""What is known of an asset before it is opened."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


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

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict) -> AssetRecord:
        values = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**{**values, "tags": tuple(values.get("tags", ()))})
