"""One page and one Markdown file with the results of all models, a table per protocol hash.

The page requests nothing: pictures are in it, style and script are allowed by their hash, and it opens from disk.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from renderers.files import atomic_path
from zoo.card import escape, numbers
from zoo.evaluation.controls import ABOUT
from zoo.evaluation.errors import EvaluationError
from zoo.evaluation.protocol import Protocol, open_protocol
from zoo.evaluation.result import Result, groups
from zoo.evaluation.store import Collection, Entry, collect
from zoo.evaluation.table import cell, heading, markdown, shower
from zoo.evaluation.tasks import CONTROL, MODEL
from zoo.export.html.page import escaped
from zoo.listing import preview_of
from zoo.terminal import printable

PAGE, MARKDOWN = "leaderboard.html", "leaderboard.md"
PREVIEW_BYTES, LARGEST_SHEET = 60_000, 600_000  # of one picture in the page
REFERENCE = "still"  # control whose mean is marked in the drawn intervals
WIDTH, HEIGHT = 120, 12  # of a drawn interval
POLICY = "default-src 'none'; img-src data:; script-src 'sha256-{script}'; style-src 'sha256-{style}'"
ABOUT_TABLES = "Means over clips, with 95 % bootstrap intervals. A table per protocol hash."
BEGIN, END = "<!-- results -->", "<!-- end of the results -->"  # in a page that `write_tables` changes
_SCORE = re.compile(r" \([^()]*\)")  # in the reasons of `zoo.evaluation.controls.fitness`
LEGACY = (
    "Figures that these models state about themselves, measured before there were protocols: with other clips, views "
    "and sizes. They cannot be compared with the tables above."
)


def write_leaderboard(
    folder: str | os.PathLike[str], pattern: str = "*", *, home: str | os.PathLike[str] | None = None
) -> tuple[list[Path], Collection]:
    """Write leaderboard.html and leaderboard.md.

    Args:
        folder: created if it does not exist.
        pattern: models, as for `zoo.list_models`.
        home: folder of the local registry.

    Returns:
        The files, and what they show.
    """
    collection = collect(pattern, home=home)
    folder = Path(folder)
    texts = {PAGE: page(collection), MARKDOWN: text(collection)}
    for name, content in texts.items():
        with atomic_path(folder / name) as part:
            part.write_text(content, encoding="utf-8", newline="\n")
    return [folder / name for name in texts], collection


def write_tables(page: Path, collection: Collection) -> None:
    """Replace the tables between two comments of a Markdown page, such as docs/evaluation.md."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [before + BEGIN, *tables(collection), END + after]
    page.write_text("\n\n".join(parts), "utf-8")


# --- groups --------------------------------------------------------------------------------------------


def _groups(collection: Collection) -> list[tuple[str, list[Entry]]]:
    """Entries by protocol hash, best first."""
    of_result = {id(entry.result): entry for entry in collection.entries}
    return [
        (sha256, [of_result[id(result)] for result in results])
        for sha256, results in groups([entry.result for entry in collection.entries])
    ]


def _title(result: Result) -> str:
    return f"{result.protocol['name']} v{result.protocol['version']}"


def _installed(result: Result) -> Protocol | None:
    """The protocol of a result, if this package has exactly this one."""
    try:
        protocol = open_protocol(result.protocol["name"])
    except EvaluationError:
        return None
    return protocol if protocol.sha256 == result.protocol["sha256"] else None


def _shared_metrics(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Metrics that at least one result has values of, with the entry of the first such result; fit if all say so."""
    metrics: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for name, metric in entry.result.metrics.items():
            if "missing" not in metric:
                fit = metrics.get(name, metric)["fit"] and metric["fit"]
                metrics[name] = {**metrics.get(name, metric), "fit": fit}
    return metrics


def _missing(entries: Sequence[Entry]) -> list[str]:
    """One sentence per metric that no result has values of."""
    shown = _shared_metrics(entries)
    sentences = {
        name: f"{name}: {metric['missing']}"
        for entry in entries
        for name, metric in entry.result.metrics.items()
        if "missing" in metric and name not in shown
    }
    return list(sentences.values())


def _unfit(entries: Sequence[Entry]) -> list[str]:
    """One sentence per unfit metric: its faults, each with its objects unless it is that of all. Scores are in the
    table.
    """
    objects = list(dict.fromkeys(entry.result.object for entry in entries))
    faults: dict[str, dict[str, list[str]]] = {}
    for entry in entries:
        for name, metric in entry.result.metrics.items():
            if "missing" not in metric and not metric["fit"]:
                for fault in _SCORE.sub("", metric["reason"]).split("; "):
                    of_fault = faults.setdefault(name, {}).setdefault(fault, [])
                    if entry.result.object not in of_fault:
                        of_fault.append(entry.result.object)
    return [
        f"{name} is unfit: it "
        + "; ".join(
            fault + ("" if len(of) == len(objects) else f" ({', '.join(of)})") for fault, of in each.items()
        )
        for name, each in faults.items()
    ]


def _model_rows(entry: Entry) -> list[tuple[str, dict[str, Any]]]:
    """Label and row of each of the model's own rows."""
    rows = [row for row in entry.result.rows if row["role"] == MODEL]
    return [(entry.model if len(rows) == 1 else f"{entry.model}: {row['name']}", row) for row in rows]


def _legacy(collection: Collection) -> list[tuple[str, str]]:
    """Model → figures of its metrics.json that are under no protocol."""
    return [
        (name, ", ".join(f"{metric} {value:.4g}" for metric, value in numbers(info.metrics)))
        for name, info in collection.models.items()
        if info is not None and any(True for _ in numbers(info.metrics))
    ]


def _without_results(collection: Collection) -> list[str]:
    present = {entry.model for entry in collection.entries}
    return [name for name in collection.models if name not in present]


# --- Markdown ------------------------------------------------------------------------------------------


def text(collection: Collection) -> str:
    """The Markdown file."""
    parts = ["# Leaderboard", ABOUT_TABLES, *tables(collection)]
    if legacy := _legacy(collection):
        parts += ["## Without a protocol", LEGACY, markdown([["model", "figures"], *legacy]).rstrip()]
    if names := _without_results(collection):
        parts += ["## Not evaluated", escape(", ".join(names))]
    if collection.refused:
        parts += ["## Refused", "\n".join(f"- {escape(each)}" for each in collection.refused)]
    return "\n\n".join(parts) + "\n"


def tables(collection: Collection) -> list[str]:
    """The parts of the Markdown file that are results under protocols: headings, tables and notes."""
    parts = []
    for sha256, entries in _groups(collection):
        first, metrics = entries[0].result, _shared_metrics(entries)
        parts.append(f"## {escape(_title(first))}\n\n`{sha256}`")
        if protocol := _installed(first):
            parts.append(escape(protocol.content["about"]))
        rows = [
            ["model", "object", *(heading(name, metric) for name, metric in metrics.items()), "clips", ""]
        ]
        for entry in entries:
            for label, row in _model_rows(entry):
                cells = [cell(metrics[name], row["mean"].get(name)) for name in metrics]
                rows.append(
                    [label, entry.result.object, *cells, str(len(row["clips"])), "; ".join(entry.marks)]
                )
        rows += [
            [f"control: {row['name']}", entry.result.object]
            + [cell(metrics[name], row["mean"].get(name)) for name in metrics]
            + [str(len(row["clips"])), ""]
            for entry in _one_per_object(entries)
            for row in entry.result.rows
            if row["role"] == CONTROL
        ]
        parts.append(markdown(rows).rstrip())
        parts += [escape(each) for each in (*_missing(entries), *_unfit(entries))]
    return parts


def _one_per_object(entries: Iterable[Entry]) -> list[Entry]:
    """The first entry of each object: controls depend on the truth only."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.result.object, entry)
    return list(first.values())


# --- the page ------------------------------------------------------------------------------------------


def page(collection: Collection) -> str:
    """The HTML page."""
    style, script = _asset("leaderboard.css"), _asset("leaderboard.js")
    body = [
        _facts(collection),
        *(_section(sha256, entries, collection) for sha256, entries in _groups(collection)),
    ]
    if not collection.entries:
        body.append(
            "<section><p>No model has results under a protocol. <code>python -m zoo evaluate MODEL --protocol NAME "
            "--truth FOLDER</code> measures one.</p></section>"
        )
    if legacy := _legacy(collection):
        rows = "".join(
            f'<tr><td class="picture">{_preview(collection, name)}</td><th scope="row">{escaped(name)}</th>'
            f'<td class="long">{escaped(figures)}</td></tr>'
            for name, figures in legacy
        )
        body.append(
            f"<section><h2>Without a protocol</h2><p>{escaped(LEGACY)}</p>"
            f'<div class="scroll"><table><tbody>{rows}</tbody></table></div></section>'
        )
    if names := _without_results(collection):
        body.append(f"<section><h2>Not evaluated</h2><p>{escaped(', '.join(names))}</p></section>")
    if collection.refused:
        items = "".join(f"<li>{escaped(each)}</li>" for each in collection.refused)
        body.append(f'<section><h2>Refused</h2><ul class="marks">{items}</ul></section>')
    policy = POLICY.format(script=_sha256(script), style=_sha256(style))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>Leaderboard</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _facts(collection: Collection) -> str:
    groups_count = len(_groups(collection))
    return (
        "<header><h1>Leaderboard</h1><p>"
        f"{counted(len(collection.models), 'model')}, {counted(len(collection.entries), 'result')} under "
        f"{counted(groups_count, 'protocol')}. A table "
        "has results of one protocol hash only. Means over clips with 95 % bootstrap intervals, drawn on the scale of "
        f"their column; the tick is the {REFERENCE} frame. A heading sorts its column.</p></header>"
    )


def counted(number: int, noun: str) -> str:
    """ "1 model", "2 models"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _section(sha256: str, entries: Sequence[Entry], collection: Collection) -> str:
    first, metrics = entries[0].result, _shared_metrics(entries)
    protocol = _installed(first)
    about = f"<p>{_long(protocol.content['about'])}</p>" if protocol else ""
    scales = {name: _scale(entries, name) for name in metrics}
    headings = "".join(
        f'<th scope="col"><button type="button" data-better="{metric["better"]}" title="{escaped(metric["about"])}">'
        f"{escaped(heading(name, metric))}</button></th>"
        for name, metric in metrics.items()
    )
    rows = []
    for entry in entries:
        for label, row in _model_rows(entry):
            marks = "".join(f'<p class="mark">{escaped(mark)}</p>' for mark in entry.marks)
            cells = "".join(_cell(entry, row, name, metrics[name], scales[name]) for name in metrics)
            rows.append(
                f'<tr><td class="picture">{_preview(collection, entry.model)}</td>'
                f'<th scope="row">{escaped(label)}{marks}</th>{cells}<td class="count">{len(row["clips"])}</td></tr>'
            )
    notes = "".join(f"<li>{_long(each)}</li>" for each in (*_missing(entries), *_unfit(entries)))
    return (
        f"<section><h2>{escaped(_title(first))}</h2>{about}<p class='hash'>protocol {escaped(sha256)}</p>"
        f'<div class="scroll"><table class="sortable"><thead><tr><th></th><th scope="col">model</th>{headings}'
        f'<th scope="col">clips</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + _controls(entries, metrics)
        + "".join(_sheet(entry) for entry in entries)
        + "</section>"
    )


def _long(text: str) -> str:
    """A text of several sentences as HTML."""
    from html import escape as html_escape

    return html_escape(printable(" ".join(str(text).split())))


def _controls(entries: Sequence[Entry], metrics: dict[str, dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escaped(" ".join(filter(None, (entry.result.object, row["name"]))))}</th>'
        + "".join(f"<td>{escaped(cell(metrics[name], row['mean'].get(name)))}</td>" for name in metrics)
        + f"<td>{escaped(ABOUT.get(row['name'], ''))}</td></tr>"
        for entry in _one_per_object(entries)
        for row in entry.result.rows
        if row["role"] == CONTROL
    )
    head = "".join(
        f'<th scope="col">{escaped(heading(name, metric))}</th>' for name, metric in metrics.items()
    )
    return (
        '<details><summary>Controls</summary><div class="scroll"><table>'
        f"<thead><tr><th></th>{head}<th></th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _sheet(entry: Entry) -> str:
    """The picture of clips, if it is small enough."""
    if entry.sheet is None or entry.sheet.stat().st_size > LARGEST_SHEET:
        return ""
    data = base64.b64encode(entry.sheet.read_bytes()).decode("ascii")
    return (
        f"<details><summary>{escaped(entry.model)}: best, median and worst clip</summary>"
        f'<img class="sheet" alt="frames of clips" src="data:image/png;base64,{data}"></details>'
    )


def _preview(collection: Collection, name: str) -> str:
    info = collection.models.get(name)
    if info is None or not (info.folder / "preview.mp4").is_file():
        return ""
    picture = preview_of(info.folder / "preview.mp4", PREVIEW_BYTES)
    if not picture:
        return ""
    data = base64.b64encode(picture).decode("ascii")
    return f'<img alt="moving preview of {escaped(name)}" src="data:image/webp;base64,{data}">'


def _scale(entries: Sequence[Entry], name: str) -> tuple[float, float]:
    """Range of the drawn intervals of a metric: those of the models, and the reference control's mean."""
    values = []
    for entry in entries:
        for row in entry.result.rows:
            mean = row["mean"].get(name)
            if mean is not None and (row["role"] == MODEL or row["name"] == REFERENCE):
                values += mean if row["role"] == MODEL else mean[:1]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _cell(
    entry: Entry, row: dict[str, Any], name: str, metric: dict[str, Any], scale: tuple[float, float]
) -> str:
    """A mean, its interval, and a drawing of both."""
    mean = row["mean"].get(name)
    if mean is None:
        return "<td>–</td>"
    show = shower(metric)
    control = next((each for each in entry.result.rows if each["name"] == REFERENCE), None)
    reference = control["mean"].get(name) if control else None
    return (
        f'<td data-value="{mean[0]!r}"><b>{escaped(show(mean[0]))}</b> <span class="interval">'
        f"{escaped(show(mean[1]))} – {escaped(show(mean[2]))}</span>"
        f"{drawing(mean, scale, reference[0] if reference else None)}</td>"
    )


def drawing(mean: Sequence[float], scale: tuple[float, float], reference: float | None = None) -> str:
    """SVG of a mean with its interval on a scale; the tick is a control's mean."""
    low, high = scale

    def x(value: float) -> str:
        return f"{4 + (WIDTH - 8) * min(1.0, max(0.0, (value - low) / (high - low))):.1f}"

    middle = HEIGHT / 2
    tick = (
        ""
        if reference is None
        else f'<line class="tick" x1="{x(reference)}" x2="{x(reference)}" y1="1" y2="{HEIGHT - 1}"/>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">'
        f'<line class="axis" x1="4" x2="{WIDTH - 4}" y1="{middle}" y2="{middle}"/>{tick}'
        f'<line class="bar" x1="{x(mean[1])}" x2="{x(mean[2])}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{x(mean[0])}" cy="{middle}" r="3.2"/></svg>'
    )


def _asset(name: str) -> str:
    return files("zoo.evaluation").joinpath(name).read_text(encoding="utf-8").strip()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
