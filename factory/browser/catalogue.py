"""The dataset behind the pages: its index, which a thread reads, and the videos that were read last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import pyarrow as pa

from cluster import Storage
from factory.assets.exclusions import BENCHMARKS
from factory.browser.clip import clip_page
from factory.browser.index import PAGE, STORED, Index
from factory.clips.review import report
from factory.dataset.pages import contact_sheet
from factory.dataset.reader import ClipDataset
from factory.dataset.schema import view_column

PATIENCE_S = 1.0  # a request waits this long for the index; then it is answered with the first clips
CACHED_BYTES = 64 << 20  # of videos


class Catalogue:
    """A dataset as pages show it. Its methods may be called from several threads.

    Args:
        clips: the dataset.
        name: as the user gave it, for commands that the pages show.
    """

    def __init__(self, clips: ClipDataset, name: str) -> None:
        self.clips, self.name = clips, name
        self._index: Index | None = None
        self._first: Index | None = None
        self._fault: Exception | None = None
        self._lock = threading.Lock()
        self._videos: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._thread = threading.Thread(target=self._load, name="index", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            self._index = Index(self.clips.table(STORED))
        except Exception as error:  # raised in the thread of the request that needs it
            self._fault = error

    def index(self, patience_s: float = PATIENCE_S) -> tuple[Index, bool]:
        """The index, and whether it is complete: before, it has the first clips only.

        Raises:
            DatasetError, StorageError: a shard cannot be read.
        """
        self._thread.join(patience_s)
        if self._fault is not None:
            raise self._fault
        if self._index is not None:
            return self._index, True
        with self._lock:
            if self._first is None:
                rows = [self.clips.read_row(row, STORED) for row in range(min(PAGE, len(self.clips)))]
                schema = pa.schema([self.clips.schema.field(name) for name in STORED])
                self._first = Index(pa.Table.from_pylist(rows, schema))
        return self._first, False

    def page(self, row: int) -> dict[str, Any]:
        """See `clip_page`."""
        self._check(row)
        return clip_page(self.clips, row, self.name)

    def video(self, row: int, view: int) -> bytes:
        """The stored video of a view: H.264 in MP4, the object on grey.

        Raises:
            IndexError: the dataset has no such clip, or the clip no such view.
        """
        self._check(row)
        with self._lock:
            if (row, view) in self._videos:
                self._videos.move_to_end((row, view))
                return self._videos[row, view]
        column = view_column(view)
        if view < 0 or column not in self.clips.schema.names:
            raise ValueError(f"view: clip {row} has no view {view}")
        cell = self.clips.read_row(row, [column])[column]
        if not cell or not cell["bytes"]:
            raise ValueError(f"view: clip {row} has no view {view}")
        with self._lock:
            self._videos[row, view] = cell["bytes"]
            while sum(map(len, self._videos.values())) > CACHED_BYTES and len(self._videos) > 1:
                self._videos.popitem(last=False)
        return cell["bytes"]

    def contact_sheet(self) -> bytes | None:
        """The picture beside the shards; None if there is none."""
        return Storage(self.clips.url).read(contact_sheet.NAME)

    def report(self) -> list[str]:
        """The lines of `factory.curate report`."""
        return list(report(self.clips.url, [str(BENCHMARKS)]))

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.clips):
            raise ValueError(f"row: expected a clip from 0 to {len(self.clips) - 1}, got {row}")
