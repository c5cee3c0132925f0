"""How results show themselves in notebooks: a small looping preview and the facts, as HTML that fetches nothing.

`_repr_html_` of motions, videos, clips and lists of models is built from these functions. Texts may come from anyone:
all are escaped. Colours are left to the notebook, so both colour schemes work.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from zoo.export.html.page import escaped

LARGEST_PREVIEW = 200_000  # bytes of a preview; base64 adds a third
_QUALITIES = (70, 50, 30, 15)
_MOST_FRAMES = 48


def preview(frames: np.ndarray, fps: float, *, side: int = 192, largest: int = LARGEST_PREVIEW) -> bytes:
    """Encode frames as an animated WebP that repeats for ever.

    Args:
        frames: uint8 [T, H, W, 3].
        fps: frames per second.
        side: most pixels of the height; wider frames may be up to four times as wide.
        largest: bytes; quality, then frames, then size are reduced until the file is as small.

    Returns:
        The file; at the smallest size even if that is larger.
    """
    step = -(-len(frames) // _MOST_FRAMES)
    while True:
        chosen = frames[::step]
        T, H, W = chosen.shape[:3]
        scale = min(1.0, side / H, 4 * side / W)
        size = max(1, round(W * scale)), max(1, round(H * scale))
        images = [Image.fromarray(frame).resize(size, Image.Resampling.BOX) for frame in chosen]
        for quality in _QUALITIES:
            file = io.BytesIO()
            images[0].save(
                file, "WEBP", save_all=True, append_images=images[1:], duration=round(1000 * step / fps), loop=0,
                quality=quality, method=2,
            )  # fmt: skip
            if file.tell() <= largest:
                return file.getvalue()
        if T <= 2 and side <= 16:
            return file.getvalue()
        step, side = (2 * step, side) if T > 12 else (step, max(16, side // 2))


def card(title: object, facts: Mapping[str, object], picture: bytes | None = None) -> str:
    """HTML of one result: its preview beside a table of facts. Facts that are None or "" are left out."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escaped(label)}</th>'
        f'<td style="text-align:left">{escaped(value)}</td></tr>'
        for label, value in facts.items()
        if value not in (None, "")
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start">{image(picture)}'
        f'<div style="min-width:0;max-width:40em;overflow-wrap:anywhere"><strong>{escaped(title)}</strong>'
        f"<table>{rows}</table></div></div>"
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """HTML of several results; cells of type bytes are previews."""
    cells = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:left">{image(c) if isinstance(c, bytes) else escaped(c)}</td>'
            for c in row
        )
        + "</tr>"
        for row in rows
    )
    head = "".join(f'<th style="text-align:left">{escaped(column)}</th>' for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"


def image(picture: bytes | None) -> str:
    """HTML of a preview, "" without one."""
    if not picture:
        return ""
    data = base64.b64encode(picture).decode("ascii")
    return f'<img alt="preview" style="max-width:100%" src="data:image/webp;base64,{data}">'
