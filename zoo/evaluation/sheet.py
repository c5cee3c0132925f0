"""A picture of the best, the median and the worst clip, the model's frames below the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from renderers.files import atomic_path
from zoo.evaluation.result import Result
from zoo.evaluation.table import cell
from zoo.evaluation.tasks import Measurement

if TYPE_CHECKING:
    from PIL import Image

COLUMNS, BAND, LEFT = 8, 22, 56  # frames per row; heights and widths of labels in pixels
INK, PAPER = (30, 30, 30), (255, 255, 255)


def chosen_clips(result: Result) -> list[tuple[str, int]]:
    """ "best", "median" and "worst" with the index of a clip, by the primary metric; fewer if there are fewer clips."""
    values = result.rows[0]["values"].get(result.primary, [])
    better = result.metrics[result.primary].get("better", "higher")
    present = [index for index, value in enumerate(values) if value is not None]
    order = sorted(present, key=lambda index: values[index], reverse=better == "higher")
    if not order:
        order = list(range(len(result.clips)))
    picks = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return list({index: (name, index) for name, index in picks.items()}.values())


def write_sheet(path: Path, result: Result, measurement: Measurement) -> None:
    """Write the picture as PNG; the same measurement gives the same bytes."""
    from PIL import Image

    parts = []
    for name, index in chosen_clips(result):
        value = result.rows[0]["values"].get(result.primary, [None] * len(result.clips))[index]
        metric = result.metrics[result.primary]
        score = (
            ""
            if value is None
            else f", {result.primary} {cell(metric, [value] * 3, interval=False)} {metric['unit']}"
        )
        truth, model = measurement.pictures(index)
        parts.append(_strip(f"{name}: {result.clips[index]}{score}", truth, model))
    width = max(part.width for part in parts)
    sheet = Image.new("RGB", (width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _strip(label: str, truth: np.ndarray | None, model: np.ndarray) -> Image.Image:
    from PIL import Image, ImageDraw

    from zoo.terminal import printable

    times = np.linspace(0, len(model) - 1, min(COLUMNS, len(model))).round().astype(int)
    rows = ([("truth", truth[times])] if truth is not None else []) + [("model", model[times])]
    height, width = model.shape[1:3]
    picture = Image.new("RGB", (LEFT + width * len(times), BAND + height * len(rows) + 6), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((6, 5), printable(label).encode("latin-1", "replace").decode("latin-1"), fill=INK)
    for number, (name, frames) in enumerate(rows):
        top = BAND + number * height
        draw.text((6, top + height // 2 - 6), name, fill=INK)
        for column, frame in enumerate(frames):
            picture.paste(Image.fromarray(frame), (LEFT + column * width, top))
    return picture
