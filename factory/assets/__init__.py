"""Asset records, their licences, and the rules that select, exclude or split assets.

`factory.assets` is the lowest layer of `factory`: it imports no other part of it and fetches no files.
"""

from typing import TYPE_CHECKING

from factory.assets.licences import POLICIES, UNKNOWN, Policy, attribution, publishable, to_spdx
from factory.assets.record import AssetRecord
from factory.assets.selection import Selection
from factory.assets.splits import assign_split
from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.assets.exclusions import DenyListError, Exclusions, read_deny_list
    from factory.assets.tombstones import Tombstone, read_tombstones, write_tombstone

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
    "write_tombstone",
]

# Imported on first use, because they import `cluster.storage`.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "DenyListError": "factory.assets.exclusions",
        "Exclusions": "factory.assets.exclusions",
        "read_deny_list": "factory.assets.exclusions",
        "Tombstone": "factory.assets.tombstones",
        "read_tombstones": "factory.assets.tombstones",
        "write_tombstone": "factory.assets.tombstones",
    },
)
