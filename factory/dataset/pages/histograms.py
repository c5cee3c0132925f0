"""Histograms of clip properties for the dataset card."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

# File name → label and column. Columns that a dataset lacks, or in which all values are null, are skipped.
_COLUMNS = {
    "speed": ("mean vertex speed, diagonals per second", "motion_speed"),
    "reach": ("largest vertex displacement, diagonals", "motion_reach"),
    "flow": ("optical flow of the fastest 5 %, pixels per frame", "motion_flow"),
    "parts": ("independently moving parts", "motion_parts"),
    "elevation": ("camera elevation, degrees", "elevation_deg"),
}
_BINS = 24
_SIZE, _MARGIN, _TOP, _BOTTOM = (480, 220), 16, 34, 30
_INK, _BAR, _PAPER = (40, 40, 40), (84, 124, 168), (246, 246, 244)


def histograms(rows: pa.Table) -> Mapping[str, bytes]:
    """Draw a histogram of every property that varies between clips.

    Args:
        rows: metadata, from `ClipDataset.table`.

    Returns:
        File name → PNG.
    """
    ends, starts = (rows[name].to_numpy() for name in ("end_time", "start_time"))
    quantities = {"duration": ("duration, seconds", ends - starts)}
    for name, (label, column) in _COLUMNS.items():
        if column in rows.column_names:
            quantities[name] = (label, rows[column].drop_null().to_numpy())
    return {
        f"{name}.png": draw_histogram(values, label)
        for name, (label, values) in quantities.items()
        if _varies(values[np.isfinite(values)])
    }


def draw_histogram(values: np.ndarray, label: str) -> bytes:
    """Draw a histogram. Integers get one bar per value; values above the 99th percentile count in the last bar.

    Args:
        values: [N]; at least two finite values differ.
        label: name and unit.

    Returns:
        PNG file.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    edges = _edges(values)
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)

    picture = Image.new("RGB", _SIZE, _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    left, right, top, floor = _MARGIN, _SIZE[0] - _MARGIN, _TOP, _SIZE[1] - _BOTTOM
    sides = np.rint(np.linspace(left, right, len(counts) + 1)).astype(int)
    for start, end, count in zip(sides, sides[1:], counts, strict=False):
        height = round((floor - top) * count / counts.max())
        if height or count:
            draw.rectangle((start + 1, floor - max(height, 1), end - 1, floor), fill=_BAR)
    draw.line((left, floor, right, floor), fill=_INK)
    draw.text((left, 8), label, fill=_INK, font=font)
    draw.text((right, 8), f"{len(values):,} clips, median {np.median(values):.3g}", _INK, font, anchor="ra")
    centred = _are_integers(values)  # each bar is one value rather than an interval
    low, high = (edges[0] + 0.5, edges[-1] - 0.5) if centred else (edges[0], edges[-1])
    more = "≥ " if values.max() > edges[-1] else ""
    draw.text((left, floor + 6), f"{low:.3g}", _INK, font)
    draw.text((right, floor + 6), f"{more}{high:.3g}", _INK, font, anchor="ra")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _varies(values: np.ndarray) -> bool:
    """Whether values differ by more than rounding errors."""
    return len(values) > 0 and bool(np.ptp(values) > 1e-6 * max(np.abs(values).max(), 1e-6))


def _are_integers(values: np.ndarray) -> bool:
    """Whether all values are integers from a range small enough for one bar each."""
    return bool((values == np.rint(values)).all() and np.ptp(values) < 2 * _BINS)


def _edges(values: np.ndarray) -> np.ndarray:
    """Bin edges."""
    low, high = values.min(), np.quantile(values, 0.99)
    if _are_integers(values):
        return np.arange(low - 0.5, np.ceil(high) + 1.0)
    return np.linspace(low, high if high > low else values.max(), _BINS + 1)
