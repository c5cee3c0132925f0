"""The mesh renderer of a run: that of the clips which its output has, unless another one is requested."""

from __future__ import annotations

import os

from cluster import Ledger
from factory.console import notice
from renderers.meshes import AUTO, default_backend


def choose_backend(requested: str, ledger: Ledger | str | os.PathLike[str]) -> str:
    """Return the name of the back end for a run, with a notice if its output was begun with another one.

    Keys of tasks contain the back end, so that another one would render all clips again beside the first.

    Args:
        requested: a name, or "auto": the back end that the output was begun with, else the default of this machine.
        ledger: of the output, or its path or URL.
    """
    ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    begun = _begun_with(ledger)
    if requested == AUTO:
        chosen = begun or default_backend()
        if chosen != default_backend():
            notice(
                f"{ledger.root} was begun with --renderer {chosen}, which this run uses, too; the default here is "
                f"{default_backend()}"
            )
        return chosen
    if begun not in (None, requested):
        notice(
            f"{ledger.root} was begun with --renderer {begun}: this run renders its clips again with {requested}, "
            f"beside those of {begun}; without --renderer it goes on with {begun}"
        )
    return requested


def _begun_with(ledger: Ledger) -> str | None:
    """Return the back end of the first clip in a ledger; None without one."""
    names = (str(record.summary.get("renderer", "")).split(" ")[0] for record in ledger)
    return next(filter(None, names), None)
