"""A dataset in the browser: `factory.browse(dataset)` and `python -m factory.view DATASET`.

    index     the columns that clips are filtered and searched by, in memory
    clip      what the page of a clip shows, and the command that renders it again
    server    pages, filters and videos over HTTP, on `zoo.viewer.serving`
    export    the same pages as a folder that needs no server
    api       `browse`
    page/     HTML, CSS and JavaScript of both

Only the index is kept in memory. Videos are read from the shards when a page shows them, and sent as they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.browser.api import DatasetBrowser, browse
    from factory.browser.export import export_browser

__all__ = ["DatasetBrowser", "browse", "export_browser"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "DatasetBrowser": "factory.browser.api",
            "browse": "factory.browser.api",
            "export_browser": "factory.browser.export",
        },
    )
