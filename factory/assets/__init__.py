"""Asset records, their licences, and the rules that select, exclude or split assets.

`factory.assets` is the lowest layer of `factory`: it imports no other part of it and fetches no files.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from factory.assets.licences import POLICIES, UNKNOWN, Policy, attribution, publishable, to_spdx
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.assets.splits import assign_split

if TYPE_CHECKING:
    from factory.assets.exclusions import DenyListError, Exclusions, read_deny_list
    from factory.assets.tombstones import Tombstone, read_tombstones

__all__ = [
    "POLICIES",
    "UNKNOWN",
    "AssetRecord",
    "DenyListError",
    "Exclusions",
    "Policy",
    "Selection",
    "Tombstone",
    "assign_split",
    "attribution",
    "publishable",
    "read_deny_list",
    "read_tombstones",
    "to_spdx",
]

# Imported on first use, because they import `cluster.storage`.
_LAZY = {
    "DenyListError": "exclusions",
    "Exclusions": "exclusions",
    "read_deny_list": "exclusions",
    "Tombstone": "tombstones",
    "read_tombstones": "tombstones",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
