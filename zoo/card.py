"""A model's README.md, generated from its card and its metrics."""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

PIPELINE_TAG = "text-to-3d"
# Groups of results in metrics.json; everything else in it documents how they were measured.
RESULTS = ("mean", "worst", "unseen")
_ROWS_IN_CARD = 200  # hubs truncate long cards


def model_card(name: str, family: str, card: dict[str, Any], metrics: dict[str, Any]) -> str:
    """README.md with the front matter that hubs read.

    Args:
        name: that loads the model.
        family: its family.
        card: see `zoo.families.Model`.
        metrics: see `zoo.families.Model`.
    """
    parts = [f"# {escape(card.get('title') or name)}"]
    if card.get("summary"):
        parts.append(escape(card["summary"]))
    parts += [
        '<video src="preview.mp4" controls autoplay loop muted></video>',
        f'```python\nimport zoo\n\nmodel = zoo.load("{name}")\nmodel.sample(0).save("sample.mp4")\n```',
    ]
    parts += _results(metrics)
    for heading, content in card.get("sections", {}).items():
        parts += [f"## {escape(heading)}", _section(content)]
    if card.get("license"):
        parts += ["## Licence", f"The weights: {escape(card['license'])}."]
    parts.append(
        "---\nMade with menagerie4d. The weights are safetensors, all other files are JSON, text or video. `zoo.load` "
        "checks each file against [manifest.json](manifest.json) and runs no code from this repository."
    )
    return _front_matter(name, family, card, metrics) + "\n\n".join(part.strip() for part in parts) + "\n"


def numbers(metrics: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Names such as "mean psnr" and values of the results: the numbers in the groups `RESULTS`."""
    for group in RESULTS:
        if isinstance(metrics.get(group), dict):
            for key, value in metrics[group].items():
                if _is_number(value):
                    yield f"{group} {str(key).replace('_', ' ')}", float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _results(metrics: dict[str, Any]) -> list[str]:
    """The results under protocols; without any, the numbers that training measured."""
    parts = []
    for each in _evaluations(metrics):
        sentence = (
            f"Hash `{escape(each.sha256[:12])}`; means over {each.clips} clips, 95 % intervals. "
            f"The truth and the still first frame were measured in the same way."
        )
        rows = [(escape(row.name), *map(_interval, (row.model, row.truth, row.still))) for row in each.rows]
        parts += [
            f"## Protocol {escape(each.title)}",
            sentence,
            _table(("metric", "model", "truth", "still frame"), rows),
        ]
    values = list(numbers(metrics))
    if parts and values:
        parts.append(
            "What training measured, on other clips, views or sizes and not comparable with these tables, is in "
            "[metrics.json](metrics.json)."
        )
    elif values:
        parts.append("## Metrics")
        if metrics.get("protocol"):
            parts.append(escape(metrics["protocol"]))
        parts.append(
            _table(("metric", "value"), [(escape(metric), f"{value:.4g}") for metric, value in values])
        )
        parts.append("All results, and the data they were measured on: [metrics.json](metrics.json).")
    return parts


class _Row(NamedTuple):
    """A metric: mean and interval of the model, and of two controls where they have it."""

    name: str
    model: Sequence[float]
    truth: Sequence[float] | None
    still: Sequence[float] | None


class _Evaluation(NamedTuple):
    """What a card shows of a result of `zoo.evaluate`: the metrics that are fit for the protocol."""

    protocol: str
    title: str
    sha256: str
    clips: int
    rows: list[_Row]


def _evaluations(metrics: dict[str, Any]) -> list[_Evaluation]:
    """The results of `zoo.evaluate` in metrics.json; those that are malformed are left out."""
    results, found = metrics.get("evaluations"), []
    for result in results.values() if isinstance(results, dict) else ():
        try:
            protocol, rows = result["protocol"], result["rows"]
            controls = {row["name"]: row["mean"] for row in rows if row["role"] == "control"}
            models = [row for row in rows if row["role"] == "model"]
            shown = [
                _Row(
                    metric if len(models) == 1 else f"{metric} of {row['name']}",
                    _mean(row["mean"][metric]),
                    *(
                        _mean(controls[name][metric]) if metric in controls.get(name, ()) else None
                        for name in ("truth", "still")
                    ),
                )
                for row in models
                for metric, stated in result["metrics"].items()
                if "missing" not in stated and stated["fit"] and row["mean"].get(metric)
            ]
            name = str(protocol["name"])
            title = f"{name} v{int(protocol['version'])}"
            found.append(_Evaluation(name, title, str(protocol["sha256"]), len(rows[0]["clips"]), shown))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):  # written by hand
            continue
    return found


def _mean(values: Sequence[float]) -> Sequence[float]:
    """A mean and its interval, checked.

    Raises:
        TypeError, ValueError: it is something else.
    """
    mean, low, high = map(float, values)
    if not all(map(math.isfinite, (mean, low, high))):
        raise ValueError(f"card: expected a finite mean and interval, got {values}")
    return mean, low, high


def _interval(mean: Sequence[float] | None) -> str:
    return "" if mean is None else f"{mean[0]:.4g} ({mean[1]:.4g} – {mean[2]:.4g})"


def _front_matter(name: str, family: str, card: dict[str, Any], metrics: dict[str, Any]) -> str:
    licence = str(card.get("license") or "").lower()
    is_identifier = bool(re.fullmatch(r"[a-z0-9.-]+", licence))
    lines = [f"license: {licence}" if is_identifier else "license: other"]
    if licence and not is_identifier:
        lines += [f"license_name: {_scalar(card['license'])}"]
    pipeline = card.get("pipeline_tag") or PIPELINE_TAG
    lines += ["library_name: menagerie4d", f"pipeline_tag: {_scalar(pipeline)}"]
    lines += [
        "tags:",
        *(f"- {_scalar(tag)}" for tag in dict.fromkeys(["menagerie4d", family, *card.get("tags", [])])),
    ]
    if card.get("datasets"):
        lines += ["datasets:", *(f"- {_scalar(dataset)}" for dataset in card["datasets"])]
    if card.get("base_model"):
        lines += [f"base_model: {_scalar(card['base_model'])}"]
    if measured := list(_measured(metrics)):
        results = [
            {
                "task": {"type": pipeline},
                "dataset": dataset,
                "metrics": [
                    {"type": _type(metric), "name": metric, "value": float(f"{value:.6g}")}
                    for metric, value in values
                ],
            }
            for dataset, values in measured
        ]
        lines += ["model-index:", f"- {_scalar({'name': name, 'results': results})}"]
    return "\n".join(["---", *lines, "---", "", ""])


def _measured(metrics: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[tuple[str, float]]]]:
    """What the card shows, for the hub's index: dataset, and metrics with values."""
    evaluations = [each for each in _evaluations(metrics) if each.rows]
    for each in evaluations:
        dataset = {"name": each.title, "type": each.protocol, "revision": each.sha256}
        yield dataset, [(row.name, row.model[0]) for row in each.rows]
    if not evaluations and (values := list(numbers(metrics))):
        yield {"name": "held-out", "type": "held-out", **metrics.get("dataset", {})}, values


def _scalar(value: object) -> str:
    """Any JSON value as YAML: plain if it cannot be misread, else as JSON, which is valid YAML."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value):
        if value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n"):
            return value
    return json.dumps(value, ensure_ascii=True)


def _type(metric: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", metric.lower()).strip("_") or "value"


def _section(content: object) -> str:
    if not isinstance(content, Sequence) or isinstance(content, str):
        return escape(str(content))
    rows = [row for row in content if isinstance(row, dict)]
    head = list(dict.fromkeys(key for row in rows for key in row))
    table = _table(
        [escape(str(key)) for key in head],
        [[escape(str(row.get(key, ""))) for key in head] for row in rows[:_ROWS_IN_CARD]],
    )
    more = len(rows) - _ROWS_IN_CARD
    return table + (f"\n{more} more are in [config.json](config.json).\n" if more > 0 else "")


def escape(text: str, *, every_colon: bool = False) -> str:
    """Return text as one line of Markdown that renders literally: no markup, HTML, links, mentions or emoji codes.

    Args:
        text: any text, for instance from third parties.
        every_colon: escape all colons, not only those that could start a link (https://) or an emoji code (:fox:).
            Both render the same.
    """
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(text))
    shown = html.escape(" ".join(visible.split()), quote=False)
    colon = ":" if every_colon else r":(?=//|[\w+-]+:)"
    return re.sub(rf"([\\`*_\[\]#|~@]|{colon}|(?<=www)\.)", r"\\\1", shown)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
