"""Whether a model may be shared, decided by the licences of the assets that it was trained on (`zoo.licences`).

A model states its training data under the key `provenance` of its card or of the arguments in config.json: one record,
or a list of them. A record describes an asset, or a group of assets with the same terms:

    licence, source, attribution, noai    as the columns of a clip
    uid                                   of the asset, or of one of the group
    assets                                size of the group, by default 1
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError
from zoo.licences import SHAREABLE, TERMS, UNKNOWN, publishable

if TYPE_CHECKING:
    from zoo.repository import Config

KEY = "provenance"
_MAX_LISTED = 5
_KNOWN_TERMS = {name.lower(): terms for name, terms in TERMS.items()}
Record = Mapping[str, Any]


def records_of(*holders: Mapping[str, Any]) -> list[Record]:
    """The records of the training data in a model's card and arguments, without repetitions."""
    records: list[Record] = []
    for holder in holders:
        value = holder.get(KEY)
        for record in [value] if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ():
            if isinstance(record, Mapping) and record.get("licence") is not None and record not in records:
                records.append(record)
    return records


def refusal(records: Collection[Record], licence: object, *, needs_licence: bool = True) -> str:
    """Return why a model may not be published, or "" if it may.

    The assets decide, by the policy for clips. A model without records is judged by the licence in its card: an
    unknown licence, and one known to forbid sharing, are refused. Any other name is its author's own statement about
    the weights.

    Args:
        records: of the training data (`records_of`).
        licence: the card's.
        needs_licence: refuse a model that states neither.
    """
    refused = [(record, reason) for record in records if (reason := _reason(record))]
    if refused:
        listed = "; ".join(f"{_asset(record)}: {reason}" for record, reason in refused[:_MAX_LISTED])
        return listed + ("; …" if len(refused) > _MAX_LISTED else "")
    if records:
        return ""
    text = " ".join(str(licence or "").split())
    if not text:
        return "no licence" if needs_licence else ""
    choices = [choice.split(" AND ") for choice in text.split(" OR ")]
    if any(not any(map(_forbids, names)) for names in choices):
        return ""
    if any(name.lower() == UNKNOWN for names in choices for name in names):
        return "licence unknown"
    return f"licence {text} does not let anybody share what is made from the model"


@dataclass(frozen=True)
class SharingPolicy:
    """Refuses to publish models whose training data may not be shared.

    Attributes:
        target: of the publication, for messages.
        base_model: returns the configuration of the base model with a name, None if it is not on this machine.
        needs_licence: refuse a model that states neither a licence nor its training data.
        off: accept all.
    """

    target: str
    base_model: Callable[[str], Config | None]
    needs_licence: bool
    off: bool

    def check(self, config: Config, *ancestors: Config) -> list[Record]:
        """Return the records of the training data of a model and of those that it was made from.

        Raises:
            ZooError: some of it may not be shared.
        """
        names = config.card.get("base_model") or []
        bases = [self.base_model(str(name)) for name in ([names] if isinstance(names, str) else names)]
        own = records_of(config.card, config.init)
        inherited = [each for parent in ancestors for each in records_of(parent.card, parent.init)]
        # A record of the same asset corrects the one of the model that was loaded.
        corrected = {_key(record) for record in own} - {None}
        records = records_of(
            {KEY: [*own, *(record for record in inherited if _key(record) not in corrected)]},
            *(holder for base in bases if base for holder in (base.card, base.init)),
        )
        sources = [*filter(None, bases)] if own else [config, *ancestors, *filter(None, bases)]
        undocumented = [each.card.get("license") for each in sources if not records_of(each.card, each.init)]
        reasons = [refusal(records, None, needs_licence=False)]
        reasons += [refusal([], licence, needs_licence=False) for licence in undocumented]
        if self.needs_licence and not records:
            reasons.append(refusal([], config.card.get("license")))
        reason = next(filter(None, reasons), "")
        if reason and not self.off:
            raise ZooError(
                f"{self.target}: the model may not be published: {reason}. {_advice(reason)}; to keep it for yourself, "
                f"publish it to 'local:family/name' with own_use=True (--own-use)"
            )
        return records


def _advice(reason: str) -> str:
    if reason == "no licence":
        return "State the licence of the weights in its card (card['license'], an SPDX identifier)"
    return "Train it on assets that may be shared (`--policy research` leaves out the others)"


def _key(record: Record) -> tuple[str, str] | None:
    """Source and uid of an asset; None if the record does not name one."""
    source, uid = record.get("source"), record.get("uid")
    return (str(source), str(uid)) if source and uid else None


def _reason(record: Record) -> str:
    """The policy for clips; source and attribution are checked if the record states them."""
    return publishable({"source": "unstated", "attribution": "unstated", **record})


def _forbids(name: str) -> bool:
    return name.lower() == UNKNOWN or _KNOWN_TERMS.get(name.lower(), "") not in SHAREABLE


def _asset(record: Record) -> str:
    name = "/".join(str(part) for part in (record.get("source"), record.get("uid")) if part)
    count = record.get("assets", 1)
    others = f" and {count - 1} more" if isinstance(count, int) and count > 1 else ""
    return f"asset {name or record.get('title') or 'without a name'}{others}"
