"""What a run report shows of a training: its last progress, and the pictures of its validations."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cluster import Storage
from factory.training.mvvdm.recipe import PROGRESS, work_folder
from zoo.export.html.report import embedded

MOST_PICTURES = 4


def read_progress(storage: Storage, key: str) -> dict[str, object]:
    """The numbers and texts of the last progress that a training wrote; empty if there is none."""
    try:
        progress = json.loads(storage.read(f"{work_folder(key)}/{PROGRESS}") or b"{}")
    except ValueError:
        return {}
    return {
        name: value
        for name, value in progress.items()
        if isinstance(value, int | float | str) and name != "at"
    }


def validation_pictures(storage: Storage, key: str) -> Iterator[str]:
    """Validation pictures of a training at even intervals, the last one included."""
    folder = f"{work_folder(key)}/validation"
    names = sorted(name for name in storage.names(folder) if name.endswith(".png"))
    step = max(1, -(-len(names) // MOST_PICTURES))
    for name in names[::-1][::step][::-1]:
        if data := storage.read(f"{folder}/{name}"):
            yield embedded(data, f"validation after {int(name.removesuffix('.png'))} steps")
