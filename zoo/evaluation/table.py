"""Tables of results, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo.card import escape
from zoo.evaluation.controls import ABOUT
from zoo.evaluation.result import Result, protocol_status
from zoo.evaluation.scores import PairMetric
from zoo.evaluation.tasks import CONTROL
from zoo.terminal import printable

UNFIT = "*"


def heading(name: str, metric: dict[str, Any]) -> str:
    """Name, unit and direction of a metric: "psnr [dB] ↑"."""
    unit = f" [{metric['unit']}]" if metric.get("unit") else ""
    arrow = "" if "missing" in metric else " ↑" if metric["better"] == "higher" else " ↓"
    return f"{name}{unit}{arrow}" + ("" if "missing" in metric or metric["fit"] else UNFIT)


def cell(metric: dict[str, Any], mean: Sequence[float] | None, *, interval: bool = True) -> str:
    """A mean with its interval, "31.57 [31.10, 32.02]"; "–" if it was not computed."""
    if mean is None:
        return "–"
    show = shower(metric)
    return f"{show(mean[0])} [{show(mean[1])}, {show(mean[2])}]" if interval else show(mean[0])


def shower(metric: dict[str, Any]) -> Any:
    """Formats scores of a metric, given its entry in a result."""
    digits = min(max(int(metric.get("digits", 3)), 0), 8)
    unit = str(metric.get("unit", ""))
    return PairMetric(lambda *_: None, "higher", "", unit, digits).show


def rows_of(result: Result) -> list[list[str]]:
    """A header, one row per model and control, and the differences from baselines."""
    names = [name for name, metric in result.metrics.items() if "missing" not in metric]
    table = [["", *(heading(name, result.metrics[name]) for name in names), "clips"]]
    for row in result.rows:
        cells = [cell(result.metrics[name], row["mean"].get(name)) for name in names]
        table.append([row["name"], *cells, str(len(row["clips"]))])
    for baseline, means in result.content.get("difference", {}).items():
        cells = [cell(result.metrics[name], means.get(name)) for name in names]
        table.append([f"difference from {baseline}", *cells, ""])
    return table


def notes(result: Result) -> list[str]:
    """Sentences below a table: unfit and missing metrics, what controls are, and the protocol's status."""
    sentences = []
    for name, metric in result.metrics.items():
        if "missing" in metric:
            sentences.append(f"{name}: {metric['missing']}")
        elif not metric["fit"]:
            sentences.append(f"{UNFIT} {name} is unfit for this protocol: it {metric['reason']}")
    known = [row["name"] for row in result.rows if row["role"] == CONTROL and row["name"] in ABOUT]
    sentences.append("; ".join(f"{name}: {ABOUT[name]}" for name in known))
    if status := protocol_status(result):
        sentences.append(status)
    return [each for each in sentences if each]


def title(result: Result) -> str:
    """Model, protocol and hash on one line."""
    protocol = result.protocol
    return f"{result.model} under {protocol['name']} v{protocol['version']} ({protocol['sha256'][:12]})"


def text_table(result: Result) -> str:
    """The result for a terminal: 95 % intervals over clips in brackets."""
    rows = [[printable(each) for each in row] for row in rows_of(result)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(each.ljust(width) for each, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([printable(title(result)), "", *lines, "", *map(printable, notes(result))])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first is the header."""
    head, *body = [[escape(each) for each in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]) + "\n"
