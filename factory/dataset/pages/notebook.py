"""How a clip shows itself in notebooks: one view as a small looping preview, and its origin."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from renderers.meshes.clip import GREY
from zoo.notebook import card, preview

VIEW = 2  # slightly from the side
SIDE = 160
_FACTS = {
    "clip": "clip_id", "animation": "animation_name", "caption": "caption", "author": "author", "licence": "licence",
    "source": "source_url", "split": "split", "quality": "quality",
}  # fmt: skip


class ReadableClip(Protocol):
    """The part of `factory.dataset.Clip` that is shown."""

    @property
    def index(self) -> int: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    def read(self, views: Any = None, frames: Any = None, background: Any = None) -> Any: ...


def clip_card(clip: ReadableClip) -> str:
    """HTML of a clip; without a preview if its pixels cannot be decoded, without facts if its shard is damaged."""
    try:
        row = clip.metadata
    except Exception:  # as in `Clip.__repr__`: reading the clip reports it
        return card(f"clip {clip.index}", {"state": "its shard cannot be read"})
    facts = {label: row.get(column) for label, column in _FACTS.items()}
    facts["videos"] = (
        f"{row['num_views']} views, {row['num_frames']} frames of {row['width']}×{row['height']} at {row['fps']:g} fps"
    )
    try:
        frames = clip.read(views=[VIEW % row["num_views"]], background=GREY).frames[0]
        picture = preview(np.asarray(frames)[::2, ..., :3], row["fps"] / 2, side=SIDE)
    except Exception:
        picture = None
    return card(row["title"] or row["clip_id"], facts, picture)
