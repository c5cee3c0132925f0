"""Tables printed at the end of a training run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import Record, Task
from factory.training.dimo import DIMOTrainingJob
from zoo.card import escape
from zoo.terminal import printable

FULL = "as configured"


def leaderboard(results: Mapping[str, tuple[Task, Record]]) -> list[list[str]]:
    """A header row, then one row per published model, highest PSNR first."""
    rows = [["model", "PSNR", "worst", "worst motion", "IoU", "unseen", "seconds", "MiB", "revision"]]
    published = [
        (job.object, record.summary)
        for task, record in results.values()
        if record.status == "done" and not (job := DIMOTrainingJob.from_json(task.payload)).variant
    ]
    for name, metrics in sorted(published, key=lambda item: -item[1]["psnr"]):
        unseen = metrics.get("unseen_psnr")
        rows.append(
            [
                f"dimo/{name}",
                f"{metrics['psnr']:.2f}",
                f"{metrics['worst_psnr']:.2f}",
                metrics["worst_motion"],
                f"{metrics['iou']:.3f}",
                "" if unseen is None else f"{unseen:.2f}",
                f"{metrics['seconds']:.0f}",
                f"{metrics['bytes'] / 2**20:.2f}",
                metrics["model"].partition("@")[2][:12],
            ]
        )
    return rows


def ablation_table(results: Mapping[str, tuple[Task, Record]]) -> list[list[str]]:
    """A header row, then one row per object and variant with the means over its trainings."""
    summaries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task, record in results.values():
        if record.status == "done":
            job = DIMOTrainingJob.from_json(task.payload)
            summaries.setdefault((job.object, job.variant or FULL), []).append(record.summary)
    rows = [["object", "variant", "PSNR", "SSIM", "IoU", "motion error", "seconds"]]
    for (name, variant), trainings in summaries.items():
        mean = {
            metric: sum(summary[metric] for summary in trainings) / len(trainings)
            for metric in ("psnr", "ssim", "iou", "motion_error")
            if metric in trainings[0]
        }
        rows.append(
            [
                name,
                variant,
                f"{mean['psnr']:.2f}",
                f"{mean['ssim']:.4f}",
                f"{mean['iou']:.3f}",
                f"{mean['motion_error']:.4f}" if "motion_error" in mean else "",
                f"{sum(summary['seconds'] for summary in trainings):.0f}",
            ]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, for a terminal."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table; the first is the header."""
    head, *body = [[_markdown_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]) + "\n"


def _markdown_cell(text: str) -> str:
    """Names of motions come from the files of others. Plain ones stay as they are, so that tables do not change."""
    return text if re.fullmatch(r"[\w ./%+-]*", text) and text.isprintable() else escape(text)
