"""Selection of listed records, before any file is fetched."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from factory.assets.licences import Policy
from factory.assets.record import AssetRecord

SAMPLED_OUT = "not in the sample"


@dataclass(frozen=True)
class Selection:
    """The user's selection criteria.

    A record is left out if its listed metadata fails a criterion. Missing metadata does not exclude a record, because
    the file or a second query to the source may supply it. The exception is `tags`: an untagged record never matches.

    Attributes:
        animated: require at least one animation.
        licences: accepted SPDX expressions; empty accepts all.
        tags: require at least one of these tags; empty accepts all.
        max_faces: maximum number of faces.
        sample: number of records to draw. Each record is ranked by a hash of the seed and its uid, so the draw does
            not depend on listing order.
        seed: seed of the draw.
        policy: name of a licence policy. None selects "any" for local and generated assets, "research" otherwise.
        allow_unknown_licence, allow_unknown_noai, allow_no_derivatives: see `Policy`.
    """

    animated: bool = False
    licences: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    max_faces: int | None = None
    sample: int | None = None
    seed: int = 0
    policy: str | None = None
    allow_unknown_licence: bool = False
    allow_unknown_noai: bool = False
    allow_no_derivatives: bool = False

    def policy_for(self, record: AssetRecord) -> Policy:
        """Return the licence policy that applies to a record."""
        name = self.policy or ("any" if record.is_local else "research")
        return Policy(
            name,
            self.allow_unknown_licence,
            self.allow_unknown_noai,
            self.licences,
            self.allow_no_derivatives,
        )

    def reason(self, record: AssetRecord) -> str:
        """Return why a record is left out, worded identically for identical causes; "" if it is selected."""
        if record.fault:
            return record.fault
        if self.animated and record.animations == 0:
            return "not animated"
        if self.max_faces is not None and (record.faces or 0) > self.max_faces:
            return f"more than {self.max_faces} faces"
        if self.tags and not {tag.lower() for tag in self.tags} & set(record.tags):
            return "none of the tags"
        return self.policy_for(record).refusal(record)

    def apply(
        self,
        records: Iterable[AssetRecord],
        leave_out: Callable[[str], object],
        left_out: Callable[[AssetRecord, str], object] | None = None,
    ) -> Iterator[AssetRecord]:
        """Yield the selected records in order; for every other one, call `leave_out(reason)` to count it and
        `left_out(record, reason)` to list it.
        """

        def drop(record: AssetRecord, reason: str) -> None:
            leave_out(reason)
            if left_out:
                left_out(record, reason)

        def fitting() -> Iterator[AssetRecord]:
            for record in records:
                if reason := self.reason(record):
                    drop(record, reason)
                else:
                    yield record

        return fitting() if self.sample is None else self._draw(fitting(), self.sample, drop)

    def _draw(
        self, records: Iterable[AssetRecord], count: int, drop: Callable[[AssetRecord, str], object]
    ) -> Iterator[AssetRecord]:
        drawn: list[_Lot] = []  # a heap of the `count` smallest hashes, the largest of them on top
        for place, record in enumerate(records):
            digest = hashlib.sha256(f"{self.seed}\x1f{record.source}\x1f{record.uid}".encode()).digest()
            lot = _Lot(tuple(-byte for byte in digest), -place, record)
            if len(drawn) < count:
                heapq.heappush(drawn, lot)
            else:
                drop(heapq.heappushpop(drawn, lot).record, SAMPLED_OUT)
        yield from (lot.record for lot in sorted(drawn, key=lambda lot: -lot.place))


@dataclass(frozen=True, order=True)
class _Lot:
    number: tuple[int, ...]
    place: int
    record: AssetRecord = field(compare=False)
