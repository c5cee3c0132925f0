"""The `creatures://` source."""

from __future__ import annotations

from collections.abc import Iterator

from factory.assets.record import AssetRecord
from factory.sources.creatures.catalogue import LICENCE, enumerate_uri
from factory.sources.source import Source, SourceError


class CreatureSource(Source):
    """`creatures://SPECIES?seed=N`, `creatures://*?count=N`: built on the worker that renders them."""

    def __init__(self, uri: str) -> None:
        try:
            self._refs = enumerate_uri(uri)
        except ValueError as error:
            raise SourceError(str(error)) from None

    def list(self) -> Iterator[AssetRecord]:
        for ref in self._refs:
            yield AssetRecord(
                uid=ref.uid,
                source="creatures",
                location=ref.uri,
                fingerprint=ref.fingerprint,
                title=ref.title,
                author="Menagerie",
                licence=LICENCE,
                noai="no",
                tags=(ref.species,),
            )

    def fetch(self, record: AssetRecord) -> bytes:
        (ref,) = enumerate_uri(record.location)
        return ref.glb()
