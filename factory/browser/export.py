"""The dataset browser as a folder that needs no server: pages, index, and the videos as they are stored.

    index.html, page/          the page
    data/index.js              what clips are filtered and searched by
    data/clips-<n>.js          the columns of `PART` clips each
    videos/<row>-<view>.mp4    one file per clip and view
    contact_sheet.png, motion-report.html

The page loads one part and the videos that it shows. It works from a disk and from any web server.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.arguments import location
from factory.browser.api import open_catalogue
from factory.browser.catalogue import Catalogue
from factory.browser.index import Index
from factory.browser.server import SCRIPTS, STYLES, asset, motion_report, page
from factory.console import Show, Status
from factory.dataset.reader import ClipDataset
from renderers.arguments import integer
from zoo.errors import OptionError

PART = 50  # clips per file
MARK = "data/index.js"  # a folder with it is ours


def export_browser(
    dataset: str | os.PathLike[str] | ClipDataset,
    folder: str | os.PathLike[str],
    *,
    limit: int | None = None,
    views: int | None = None,
    show: Show | None = None,
) -> Path:
    """Write the browser of a dataset into a folder.

    Args:
        dataset: as for `browse`.
        folder: must not exist, be empty, or be an earlier export, which is replaced.
        limit: export only the first `limit` clips; None = all.
        views: number of views of each clip, evenly spaced; None = all.
        show: receives the progress now and then.

    Returns:
        The page.

    Raises:
        OptionError: the folder has other files.
        FileNotFoundError, DatasetError, StorageError: as of `load_clips`.
    """
    location(folder, "export_browser: folder")
    limit = None if limit is None else integer(limit, "export_browser: limit", 1)
    views = None if views is None else integer(views, "export_browser: views", 1)
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise OptionError(f"{target}: is a file, expected a folder for the pages")
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).is_file():
        raise OptionError(f"{target} has other files: choose an empty or a new folder, or an earlier export")
    catalogue = open_catalogue(dataset)
    exporter = _Exporter(catalogue, target, limit or len(catalogue.clips), views)
    return exporter.write(show)


class _Exporter:
    def __init__(self, catalogue: Catalogue, target: Path, limit: int, views: int | None) -> None:
        self._catalogue, self._target, self._views = catalogue, target, views
        self._count = min(limit, len(catalogue.clips))

    def write(self, show: Show | None) -> Path:
        target = self._target
        for name in ("data", "videos", "page"):
            shutil.rmtree(target / name, ignore_errors=True)
        for name in ("data", "videos", "page"):
            (target / name).mkdir(parents=True)
        index, _ = self._catalogue.index(patience_s=1e9)
        self._write_js("data/index.js", "index", self._index(index, self._pages()))
        for number, pages in enumerate(self._parts(show)):
            self._write_js(f"data/clips-{number}.js", "parts", pages, number)
        scripts = ("wire.js", "static.js", *SCRIPTS[1:])
        for name in (*scripts, *STYLES):
            (target / "page" / name).write_text(asset(name), encoding="utf-8", newline="\n")
        html = page(self._catalogue, scripts).replace(
            '<script src="page/wire.js"',
            f'<script src="{MARK}" defer></script>\n<script src="page/wire.js"',
            1,
        )
        (target / "index.html").write_text(html, encoding="utf-8", newline="\n")
        return target / "index.html"

    def _pages(self) -> list[tuple[str, str]]:
        """Write the pages beside this one, and return their links."""
        links = []
        if (sheet := self._catalogue.contact_sheet()) is not None:
            (self._target / "contact_sheet.png").write_bytes(sheet)
            links.append(("Contact sheet", "contact_sheet.png"))
        report = motion_report(self._catalogue)
        (self._target / "motion-report.html").write_text(report, encoding="utf-8", newline="\n")
        return [*links, ("Motion report", "motion-report.html")]

    def _index(self, index: Index, links: Sequence[tuple[str, str]]) -> dict[str, Any]:
        return {"clips": self._count, "part": PART, "links": links, **index.columns(self._count)}

    def _parts(self, show: Show | None) -> Iterator[list[dict[str, Any]]]:
        """Write the videos, and yield the pages of `PART` clips at a time."""
        pages: list[dict[str, Any]] = []
        for row in range(self._count):
            pages.append(self._clip(row))
            if show is not None:
                show(_status(row + 1, self._count))
            if len(pages) == PART or row + 1 == self._count:
                yield pages
                pages = []

    def _clip(self, row: int) -> dict[str, Any]:
        content = self._catalogue.page(row)
        count = len(content["views"])
        step = max(1, count // min(self._views or count, count))
        for name in ("views", "azimuths"):
            content[name] = content[name][::step]
        for view in {*content["views"], _THUMBNAIL_VIEW % count}:
            (self._target / f"videos/{row}-{view}.mp4").write_bytes(self._catalogue.video(row, view))
        return content

    def _write_js(self, name: str, key: str, content: Any, part: int | None = None) -> None:
        place = f"window.MENAGERIE ??= {{}}; MENAGERIE.{key}"
        if part is not None:
            place = f"window.MENAGERIE ??= {{}}; (MENAGERIE.{key} ??= {{}})[{part}]"
        text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        (self._target / name).write_text(f"{place} = {text};\n", encoding="utf-8", newline="\n")


_THUMBNAIL_VIEW = 2  # as in page/list.js


def _status(done: int, total: int) -> Callable[[], Status]:
    return lambda: Status(unit="clips", done=done, total=total, seconds=0.0)
