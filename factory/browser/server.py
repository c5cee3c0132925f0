"""The HTTP server of the dataset browser. It serves its own page, the index, and columns of clips by their number.

A request names clips and views by number and never a path, so nothing else can be read through it.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from factory.browser.catalogue import Catalogue
from factory.browser.index import FACETS, PAGE, parse_query
from zoo.export.html.page import escaped, plain
from zoo.export.html.report import Report, lines
from zoo.viewer.serving import TYPES, PageHandler, PageServer

SCRIPTS = ("wire.js", "source.js", "list.js", "turntable.js", "clip.js", "browser.js")
STYLES = ("look.css", "browser.css")
_PACKAGES = {
    "wire.js": "zoo.viewer.page",
    "look.css": "zoo.export.html",
}  # others are in factory.browser.page
_NUMBER = re.compile(r"[0-9]{1,9}")


class BrowserServer(PageServer):
    """Serves a dataset to any number of pages."""

    def __init__(self, catalogue: Catalogue, host: str, port: int, token: str | None) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
        """
        self.catalogue = catalogue
        self.title = plain(catalogue.name)
        super().__init__(host, port, token, _Handler)


class _Handler(PageHandler):
    server: BrowserServer

    def answer(self, path: str, query: dict[str, str]) -> None:
        catalogue = self.server.catalogue
        name = path.removeprefix("/page/")
        if path == "/":
            self.send(200, page(catalogue, SCRIPTS).encode(), "text/html")
        elif path.startswith("/page/") and name in (*SCRIPTS, *STYLES):
            self.send(200, asset(name).encode(), TYPES[PurePosixPath(name).suffix])
        elif path == "/clips":
            self._send_json(find(catalogue, query))
        elif path == "/clip":
            self._send_json(catalogue.page(_number(query, "row")))
        elif path == "/video":
            self.send_part(catalogue.video(_number(query, "row"), _number(query, "view")), TYPES[".mp4"])
        elif path == "/contact_sheet.png":
            self._send_sheet()
        elif path == "/report":
            report = motion_report(catalogue)
            self.send(200, report.encode(), "text/html", {"Content-Security-Policy": Report.POLICY_HEADER})
        else:
            self.send_text(404, "There is no such page.")

    def _send_json(self, content: dict[str, Any]) -> None:
        self.send(200, json.dumps(content).encode(), TYPES[".json"])

    def _send_sheet(self) -> None:
        data = self.server.catalogue.contact_sheet()
        if data is None:
            self.send_text(404, "This dataset has no contact sheet.")
        else:
            self.send(200, data, TYPES[".png"])


def find(catalogue: Catalogue, query: dict[str, str]) -> dict[str, Any]:
    """The answer to a query of the page: cards of one page of clips, and the counts of the facets."""
    index, is_complete = catalogue.index()
    request = parse_query(query)
    matches = index.find(request)
    facets = {
        name: [{"value": value, "label": plain(value), "count": count} for value, count in values.items()]
        for name, values in matches.facets.items()
    }
    return {
        "total": matches.total,
        "clips": len(catalogue.clips),
        "complete": is_complete,
        "size": request.size,
        "cards": index.cards(matches.rows),
        "facets": facets,
    }


def page(catalogue: Catalogue, scripts: tuple[str, ...], folder: str = "page") -> str:
    """The HTML of the page.

    Args:
        catalogue: whose name is the title.
        scripts: in the order in which they run.
        folder: of scripts and styles, relative to the page.
    """
    values = {
        "title": escaped(catalogue.name),
        "size": str(PAGE),
        "facets": " ".join(FACETS),
        "scripts": "".join(f'<script src="{folder}/{name}" defer></script>\n' for name in scripts),
        "styles": "".join(f'<link rel="stylesheet" href="{folder}/{name}">\n' for name in STYLES),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], asset("browser.html"))


def motion_report(catalogue: Catalogue) -> str:
    """The report of `factory.curate report` as a page."""
    report = Report(f"Motion report of {catalogue.name}")
    report.add("", lines(catalogue.report()))
    return report.html()


@cache
def asset(name: str) -> str:
    """Text of a file of the page."""
    return files(_PACKAGES.get(name, "factory.browser.page")).joinpath(name).read_text(encoding="utf-8")


def _number(query: dict[str, str], name: str) -> int:
    text = query.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name}: expected a number, got {plain(text)[:40]!r}")
    return int(text)
