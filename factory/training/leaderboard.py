"""Tables printed at the end of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster import Record, Task

FULL = "as configured"


def leaderboard(results: dict[str, tuple[Task, Record]]) -> list[list[str]]:
    """A head and a row a model, the best first."""
    rows = [["model", "PSNR", "worst", "worst motion", "IoU", "unseen", "seconds", "MiB", "revision"]]
    done = [
        (task, record.summary)
        for task, record in results.values()
        if record.status == "done" and not task.payload["variant"]
    ]
    for task, figures in sorted(done, key=lambda each: -each[1]["psnr"]):
        unseen = figures.get("unseen_psnr")
        rows.append(
            [
                f"dimo/{task.payload['object']}",
                f"{figures['psnr']:.2f}",
                f"{figures['worst_psnr']:.2f}",
                figures["worst_motion"],
                f"{figures['iou']:.3f}",
                "" if unseen is None else f"{unseen:.2f}",
                f"{figures['seconds']:.0f}",
                f"{figures['bytes'] / 2**20:.2f}",
                figures["model"].partition("@")[2][:12],
            ]
        )
    return rows


def ablation_table(results: dict[str, tuple[Task, Record]]) -> list[list[str]]:
    """A head and a row an object and variant: means over its motions."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task, record in results.values():
        if record.status == "done":
            place = task.payload["object"], task.payload["variant"] or FULL
            found.setdefault(place, []).append(record.summary)
    rows = [["object", "variant", "PSNR", "SSIM", "IoU", "motion error", "seconds"]]
    for (name, variant), summaries in found.items():
        mean = {
            what: sum(figures[what] for figures in summaries) / len(summaries)
            for what in ("psnr", "ssim", "iou", "motion_error")
            if what in summaries[0]
        }
        error = f"{mean['motion_error']:.4f}" if "motion_error" in mean else ""
        seconds = sum(figures["seconds"] for figures in summaries)
        rows.append(
            [
                name,
                variant,
                f"{mean['psnr']:.2f}",
                f"{mean['ssim']:.4f}",
                f"{mean['iou']:.3f}",
                error,
                f"{seconds:.0f}",
            ]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of a README."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]) + "\n"
