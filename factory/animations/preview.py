"""Pictures of animations: a strip of frames of each, and a contact sheet of the strips."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cluster import Storage

if TYPE_CHECKING:
    from zoo.animate3d import Animation

SHEET = "contact_sheet.png"
MARK = b"menagerie4d animations"  # near the beginning of every contact sheet
_CELL, _FRAMES, _GAP, _CAPTION, _MOST = 128, 6, 2, 18, 24
_INK, _PAPER = (40, 40, 40), (246, 246, 244)


def strip(animation: Animation) -> bytes:
    """Render frames at even intervals beside each other, as JPEG; the first is the still model."""
    times = np.linspace(0.0, animation.duration, _FRAMES)
    # The CPU renderer draws the same pixels on every machine.
    frames = animation.render(animation.default_camera(_CELL), times, _PAPER, backend="cpu")[0]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def write_sheet(storage: Storage, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the contact sheet: a captioned strip per animation, at most 24 of them at even intervals.

    Returns:
        Its path relative to the output.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_MOST, len(rows))).round().astype(int))
    height, width = _CAPTION + _CELL + 2 * _GAP, _FRAMES * _CELL + 8 * _GAP
    columns = 1 if len(chosen) <= 6 else 2
    lines = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * width, lines * height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, index in enumerate(chosen):
        row = rows[int(index)]
        x, y = place // lines * width + 4 * _GAP, place % lines * height
        draw.text((x, y + 2), _caption(row), fill=_INK, font=font)
        if (data := storage.read(row["preview"])) is not None:
            sheet.paste(Image.open(io.BytesIO(data)), (x, y + _CAPTION))
    info = PngInfo()
    info.add_text("Software", MARK.decode())
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", pnginfo=info)
    storage.write(SHEET, buffer.getvalue())
    return SHEET


def _caption(row: Mapping[str, Any]) -> str:
    doubtful = f"; {len(row['doubtful_frames'])} of {row['frames']} frames doubtful"
    text = f"{row['title'] or row['uid']}: {row['sentence']}"
    text = "".join(c if c.isprintable() else " " for c in text)
    return (text if len(text) <= 90 else text[:89] + "…") + doubtful
