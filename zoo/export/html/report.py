"""Reports: pages of text, tables, figures and pictures in one file, in the look of all our pages.

A report requests nothing and runs no script; its style sheet is allowed by its hash. Texts of any origin are escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from renderers.files import atomic_path
from zoo.export.html.page import escaped
from zoo.terminal import printable, printable_lines

MARK = '<meta name="generator" content="menagerie4d report">'  # near the beginning of every report
CHART = (640, 160)  # width and height of a chart
_LEFT, _BOTTOM, _TOP = 56, 22, 8  # of a chart, for labels
_MOST_POINTS = 200
_SHORT = 24  # characters of a cell that stays on one line, such as a date; longer ones wrap


class _PolicyHeader:
    def __get__(self, instance: object, owner: type) -> str:
        return _policy()


class Report:
    """A page that grows section by section.

    Args:
        title: of the page, any text.
        lead: one sentence below it, any text.
    """

    POLICY_HEADER = _PolicyHeader()

    def __init__(self, title: str, lead: str = "") -> None:
        self._title, self._lead = title, lead
        self._sections: list[str] = []

    def add(self, heading: str, *parts: str) -> None:
        """Add a section.

        Args:
            heading: any text; "" for none.
            parts: HTML, made by the functions of this module. Empty parts are left out; without any, so is the section.
        """
        parts = tuple(filter(None, parts))
        if parts:
            head = f"<h2>{escaped(heading)}</h2>\n" if heading else ""
            self._sections.append(f"<section>\n{head}" + "\n".join(parts) + "\n</section>")

    def html(self) -> str:
        """The page."""
        title, lead = escaped(self._title), sentence(self._lead) if self._lead else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
            f"<title>{title}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{title}</h1>{lead}</header>\n"
            + "\n".join(self._sections)
            + "\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, at once."""
        with atomic_path(Path(path)) as part:
            part.write_text(self.html(), encoding="utf-8", newline="\n")


# --- parts -----------------------------------------------------------------------------------------------


def long_text(text: object) -> str:
    """A text of any length as HTML, on one line, with control and bidirectional characters escaped."""
    return html.escape(printable(" ".join(str(text).split())))


def sentence(text: object, kind: str = "") -> str:
    """A paragraph. `kind`: "good", "bad" or "quiet", for its colour."""
    return f"<p{_class(kind)}>{long_text(text)}</p>"


def items(texts: Iterable[object]) -> str:
    """A list; "" if it has no items."""
    rows = "".join(f"<li>{long_text(text)}</li>" for text in texts)
    return f"<ul>{rows}</ul>" if rows else ""


def lines(texts: Iterable[object]) -> str:
    """Lines of a table that was made for a terminal."""
    return f"<pre>{html.escape(printable_lines(chr(10).join(map(str, texts))))}</pre>"


def facts(values: Mapping[str, object]) -> str:
    """Labels and values; values that are None or "" are left out."""
    rows = "".join(
        f'<tr><th scope="row">{escaped(label)}</th><td>{long_text(value)}</td></tr>'
        for label, value in values.items()
        if value is not None and value != ""
    )
    return f'<div class="scroll"><table class="facts">{rows}</table></div>' if rows else ""


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], kinds: Mapping[int, str] | None = None
) -> str:
    """A table; "" without rows. Numbers are aligned to the right.

    Args:
        head: headings of the columns.
        rows: cells of any type, as texts.
        kinds: row → "good" or "bad", for its colour.
    """
    body = "".join(
        f"<tr{_class((kinds or {}).get(at, ''))}>" + "".join(map(_cell, row)) + "</tr>"
        for at, row in enumerate(rows)
    )
    headings = "".join(f'<th scope="col">{escaped(each)}</th>' for each in head)
    return (
        f'<div class="scroll"><table><thead><tr>{headings}</tr></thead><tbody>{body}</tbody></table></div>'
        if body
        else ""
    )


def _cell(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = f"{value:,}" if isinstance(value, int) and is_number else f"{value:.4g}" if is_number else value
    if is_number:
        return f'<td class="number">{escaped(text)}</td>'
    return f"<td{_class('long' if len(str(text)) > _SHORT else '')}>{long_text(text)}</td>"


def gallery(figures: Iterable[str]) -> str:
    """Figures beside each other, in as many columns as fit."""
    text = "\n".join(figures)
    return f'<div class="gallery">{text}</div>' if text else ""


def picture(data: bytes, caption: object = "", kind: str = "png") -> str:
    """A picture in the page.

    Args:
        data: of a file. caption: below it, any text. kind: "png", "jpeg" or "webp".
    """
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'<figure><img src="{source}" alt="{escaped(caption)}">{_caption(caption)}</figure>'


def frame(pixels: np.ndarray, caption: object = "", *, side: int = 1024) -> str:
    """A frame, uint8 [H, W, 3], as a picture of at most `side` pixels along its longer side."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return picture(file.getvalue(), caption, "webp")


def embedded(data: bytes, caption: object = "", *, side: int = 1024) -> str:
    """A picture file of any format, reduced to at most `side` pixels along its longer side; "" if it is damaged."""
    from PIL import Image

    try:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, ValueError):
        return ""
    return frame(pixels, caption, side=side)


def video_file(data: bytes, caption: object = "") -> str:
    """An MP4 file as a looping video without sound."""
    source = f"data:video/mp4;base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><video src="{source}" autoplay loop muted playsinline></video>{_caption(caption)}</figure>'
    )


def video(frames: np.ndarray, fps: float, caption: object = "", *, crf: int = 24) -> str:
    """A looping video without sound, from uint8 [T, H, W, 3] with even sides."""
    from renderers.video import encode_h264

    return video_file(encode_h264(frames, min(max(fps, 0.01), 1000.0), crf=crf, gop=250), caption)


def chart(points: Sequence[tuple[float, float]], about: str, x_unit: str, y_unit: str) -> str:
    """A line chart as inline SVG; "" with fewer than two points.

    Args:
        points: (x, y) with x ascending; y starts at 0.
        about: what it shows, for readers that do not see it.
        x_unit, y_unit: of the labels at the axes.
    """
    if len(points) < 2 or points[-1][0] <= points[0][0]:
        return ""
    step = -(-len(points) // _MOST_POINTS)
    points = [*points[:-1:step], points[-1]]
    (first, last), top = (points[0][0], points[-1][0]), max(y for _, y in points) or 1.0
    width, height = CHART
    x = lambda value: _LEFT + (value - first) / (last - first) * (width - _LEFT - 8)  # noqa: E731
    y = lambda value: height - _BOTTOM - value / top * (height - _BOTTOM - _TOP)  # noqa: E731
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    axis = (
        f'<path class="axis" d="M{_LEFT} {_TOP}V{height - _BOTTOM}H{width - 8}"/>'
        f'<text x="{_LEFT - 6}" y="{y(top) + 4:.0f}" class="end">{top:.3g}</text>'
        f'<text x="{_LEFT - 6}" y="{y(0):.0f}" class="end">0</text>'
        f'<text x="{_LEFT}" y="{height - 5}">{first:.3g}</text>'
        f'<text x="{width - 8}" y="{height - 5}" class="end">{last:.4g} {escaped(x_unit)}</text>'
        f'<text x="{_LEFT + 6}" y="{_TOP + 8}">{escaped(y_unit)}</text>'
    )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(about)}">'
        f'{axis}<polyline points="{path}"/></svg>'
    )


def _caption(text: object) -> str:
    return f"<figcaption>{long_text(text)}</figcaption>" if text else ""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


# --- files -----------------------------------------------------------------------------------------------


@cache
def _style() -> str:
    package: Any = files("zoo.export.html")
    return "\n".join(
        package.joinpath(name).read_text(encoding="utf-8").strip() for name in ("look.css", "report.css")
    )


@cache
def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{digest}'"
