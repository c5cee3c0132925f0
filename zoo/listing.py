"""How `zoo.list_models()` shows itself in notebooks: a table with facts and looping previews."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.notebook import preview, table

if TYPE_CHECKING:
    import numpy as np


class Described(Protocol):
    """The part of `zoo.ModelInfo` that is shown."""

    @property
    def source(self) -> str: ...
    @property
    def card(self) -> dict[str, Any]: ...
    @property
    def files(self) -> dict[str, int]: ...
    @property
    def folder(self) -> Path: ...


MOST_ROWS = 200
ALL_PREVIEWS = 180_000  # bytes of all previews together
LEAST_PREVIEW, MOST_PREVIEW = 6_000, 30_000  # bytes of one; with more models than that, there are none
SIDE, FPS = 96, 8


def models_table(models: Sequence[tuple[str, Described | None]]) -> str:
    """HTML of models, given by name and description; None = only the name is known."""
    share = min(MOST_PREVIEW, ALL_PREVIEWS // max(1, len(models)))
    rows = []
    for name, model in models[:MOST_ROWS]:
        if model is None:
            rows.append((b"", name, "", "", "", ""))
            continue
        picture = b""
        if share >= LEAST_PREVIEW and (model.folder / "preview.mp4").is_file():
            picture = preview_of(model.folder / "preview.mp4", share)
        size = f"{sum(model.files.values()) / 1e6:.1f} MB"
        rows.append(
            (picture, name, model.card.get("title", ""), model.card.get("license") or "", size, model.source)
        )
    if len(models) > MOST_ROWS:
        rows.append((b"", f"… and {len(models) - MOST_ROWS} more", "", "", "", ""))
    return table(("", "name", "title", "licence", "size", "source"), rows)


def preview_of(path: Path, largest: int) -> bytes:
    """A smaller preview of a model's video; b"" if it cannot be decoded, since anyone may have published it."""
    try:
        frames, fps = _frames(path)
        return preview(frames, fps, side=SIDE, largest=largest)
    except Exception:  # of the decoder, or it is not installed; a table without this picture is still useful
        return b""


def _frames(path: Path) -> tuple[np.ndarray, float]:
    """Up to two seconds of a video at about `FPS` frames per second: uint8 [T, H, W, 3] and the rate."""
    import itertools

    import av
    import numpy as np

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 24)
        step = max(1, round(rate / FPS))
        decoded = itertools.islice(container.decode(stream), 0, max(1, round(2 * rate)), step)
        frames = [frame.to_ndarray(format="rgb24") for frame in decoded]
    return np.stack(frames), rate / step
