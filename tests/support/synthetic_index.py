"""A large index of clips, as `factory.browser` keeps it, and texts that a page must show as text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from factory.browser.index import STORED

HOSTILE = (
    "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)> \u202egnp.exe \x1b[2J" + "A" * 10_000
)
ROWS = 100_000


def table(count: int) -> pa.Table:
    """A synthetic index: texts and values that depend on the row."""
    at = np.arange(count)
    species = np.array(["kangaroo", "fox", "bird", "robot"])[at % 4]
    columns = {
        "clip_id": [f"{row:016x}" for row in range(count)],
        "asset_uid": [f"creature-{name}-{row // 3}" for row, name in enumerate(species)],
        "source": np.where(at % 5 == 0, "objaverse", "creatures"),
        "title": [f"{name.capitalize()} number {row // 3}" for row, name in enumerate(species)],
        "author": [f"author {row % 997}" for row in range(count)],
        "licence": np.array(["CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0"])[at % 3],
        "quality": np.array(["high", "ok", "flickers", ""])[at % 4],
        "split": np.where(at % 10 == 0, "test", "train"),
        "caption": [f"a {name} that hops forward {row % 7} times and looks left" for row, name in enumerate(species)],
        "animation_name": [f"hop-{row % 7}" for row in range(count)],
        **{name: np.full(count, value) for name, value in (("num_views", 16), ("num_frames", 48), ("width", 256),
                                                           ("height", 256))},
        "fps": np.full(count, 24.0),
    }  # fmt: skip
    return pa.table({name: pa.array(columns[name]) for name in STORED})
