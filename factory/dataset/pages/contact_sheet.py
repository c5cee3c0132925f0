"""A contact sheet of a dataset: one strip per clip with several views, then several frames."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cluster.storage import Storage
from factory.dataset.output import check_pages
from factory.dataset.reader import Clip, load_clips
from renderers.meshes.clip import GREY

NAME = "contact_sheet.png"
_CELL, _GAP, _CAPTION = 112, 2, 18
_VIEWS, _TIMES = 4, 8
_INK, _PAPER = (40, 40, 40), (246, 246, 244)


def write_contact_sheet(root: str | os.PathLike[str], *, most: int = 24) -> str | None:
    """Write `contact_sheet.png` of a dataset: per clip, four views of the first frame, then eight frames of view 0.

    Args:
        root: path or URL of the dataset.
        most: maximum number of clips, chosen at even intervals.

    Returns:
        Path of the file, None if the dataset is empty.

    Raises:
        ForeignFolderError: the folder has the README.md of somebody else, so the picture may be theirs too.
    """
    check_pages(root)
    clips = load_clips(root)
    if not len(clips):
        return None
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int))
    strips = [_strip(clips[int(index)]) for index in chosen]
    columns = 1 if len(strips) <= 6 else 2
    rows = -(-len(strips) // columns)
    height, width, _ = strips[0].shape
    sheet = np.full((rows * height, columns * (width + 8 * _GAP), 3), _PAPER, np.uint8)
    for index, strip in enumerate(strips):
        y, x = index % rows * height, index // rows * (width + 8 * _GAP) + 4 * _GAP
        sheet[y : y + height, x : x + width] = strip
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=True)
    storage = Storage(root)
    storage.write(NAME, buffer.getvalue())
    return f"{storage.url}/{NAME}"


def _strip(clip: Clip) -> np.ndarray:
    """Draw one clip as a row of cells below its title, uint8 [H, W, 3]."""
    around = clip.read(
        views=np.linspace(0, _count(clip, "num_views"), _VIEWS, endpoint=False).astype(int).tolist(),
        frames=[0],
        background=GREY,
    ).frames[:, 0]
    indices = np.linspace(0, _count(clip, "num_frames") - 1, _TIMES).round().astype(int).tolist()
    along = clip.read(views=[0], frames=indices, background=GREY).frames[0]
    cells = [
        np.asarray(Image.fromarray(image).resize((_CELL, _CELL), Image.Resampling.LANCZOS))
        for image in (*around, *along)
    ]
    strip = Image.new("RGB", ((_CELL + _GAP) * len(cells) + 4 * _GAP, _CAPTION + _CELL + 2 * _GAP), _PAPER)
    for index, cell in enumerate(cells):
        x = index * (_CELL + _GAP) + (4 * _GAP if index >= _VIEWS else 0)
        strip.paste(Image.fromarray(cell), (x, _CAPTION))
    row = clip.metadata
    name = f"{row['title'] or row['asset_uid']}: {row['caption'] or row['animation_name']}"
    ImageDraw.Draw(strip).text((0, 2), _printable(name, 110), fill=_INK, font=ImageFont.load_default(12))
    return np.asarray(strip)


def _count(clip: Clip, name: str) -> int:
    return int(clip.metadata[name])


def _printable(text: str, most: int) -> str:
    """Replace control characters and truncate to `most` characters."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"
