"""What the page of a clip shows: its columns, its views, and the command that renders it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from factory.clips.rerender import rebuildable
from factory.dataset.reader import ClipDataset
from factory.dataset.schema import DESCRIPTIONS
from zoo.export.html.page import plain
from zoo.terminal import printable

LONGEST_VALUE = 20_000  # characters of a column; the rest is cut off


def clip_page(clips: ClipDataset, row: int, name: str) -> dict[str, Any]:
    """Everything that the page of a clip shows, without its pixels.

    Args:
        clips: the dataset.
        row: index of the clip in it.
        name: of the dataset, as the user gave it.

    Returns:
        JSON-serialisable. All texts are on one line, with control and bidirectional characters escaped.
    """
    values = clips[row].metadata
    order = sorted(range(values["num_views"]), key=lambda view: values["azimuths_deg"][view] % 360.0)
    return {
        "row": row,
        "title": plain(values["title"] or values["asset_uid"] or values["clip_id"]),
        "caption": _text(values["caption"]),
        "attribution": _text(values["attribution"]),
        "command": command(values, name),
        "fps": float(values["fps"]),
        "frames": int(values["num_frames"]),
        "width": int(values["width"]),
        "height": int(values["height"]),
        "azimuths": [float(values["azimuths_deg"][view]) for view in order],
        "views": order,
        "columns": [
            {"name": plain(column), "about": DESCRIPTIONS.get(column, ""), "value": _text(value)}
            for column, value in values.items()
        ],
    }


def command(row: Mapping[str, Any], dataset: str) -> str:
    """The command line that renders a clip again and compares it with the stored one."""
    asset = [] if rebuildable(row) else ["--asset", f"FILE-WITH-SHA256-{row['asset_sha256'][:16]}"]
    words = ["python", "-m", "factory.curate", "rerender", row["clip_id"], "--data", dataset, *asset]
    return printable(shlex.join([*words, "--to", "again.parquet"]))


def _text(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    text = printable(" ".join(text.split()))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
