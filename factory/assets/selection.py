"""Which records of the sources are taken, decided from what is listed, before anything is fetched."""

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
    """What a user asks for. A record is left out where its source says that it does not fit.

    Where the source says nothing, a record stays: the file will tell, or the source when it is asked again. Only
    `tags` need to be there.

    Attributes:
        animated: at least one animation.
        licences: SPDX expressions, one of which it has.
        tags: one of which it has. max_faces: at most so many.
        sample: so many, drawn by the seed; the same records stay drawn when the source grows around them.
        policy: name of a preset; None = "research" for what others publish, "any" for what lies on the user's disk.
        allow_unknown_licence, allow_unknown_noai: see `Policy`.
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

    def policy_for(self, record: AssetRecord) -> Policy:
        name = self.policy or ("any" if record.is_local else "research")
        return Policy(name, self.allow_unknown_licence, self.allow_unknown_noai, self.licences)

    def reason(self, record: AssetRecord) -> str:
        """Why a record is left out, the same for the same cause; "" if it is not."""
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
        self, records: Iterable[AssetRecord], leave_out: Callable[[str], object]
    ) -> Iterator[AssetRecord]:
        """The records that are taken, in order; `leave_out` is told the reason for each of the others."""

        def fitting() -> Iterator[AssetRecord]:
            for record in records:
                if reason := self.reason(record):
                    leave_out(reason)
                else:
                    yield record

        return fitting() if self.sample is None else self._draw(fitting(), self.sample, leave_out)

    def _draw(
        self, records: Iterable[AssetRecord], count: int, leave_out: Callable[[str], object]
    ) -> Iterator[AssetRecord]:
        drawn: list[_Lot] = []  # a heap, the first to go on top
        for place, record in enumerate(records):
            digest = hashlib.sha256(f"{self.seed}\x1f{record.source}\x1f{record.uid}".encode()).digest()
            lot = _Lot(tuple(-byte for byte in digest), -place, record)
            if len(drawn) < count:
                heapq.heappush(drawn, lot)
            else:
                heapq.heappushpop(drawn, lot)
                leave_out(SAMPLED_OUT)
        yield from (lot.record for lot in sorted(drawn, key=lambda lot: -lot.place))


@dataclass(frozen=True, order=True)
class _Lot:
    number: tuple[int, ...]
    place: int
    record: AssetRecord = field(compare=False)
