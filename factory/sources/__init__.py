"""Sources of animated models: bundled creatures, folders, manifests, web addresses and public collections.

A source lists records cheaply and fetches one asset at a time; both work on any machine of the cluster.
"""

from factory.sources.registry import COLLECTIONS, open_source
from factory.sources.source import EmptySourceError, Source, SourceError

__all__ = ["COLLECTIONS", "EmptySourceError", "Source", "SourceError", "open_source"]
