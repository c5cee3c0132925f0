"""Composition: assets to dataset to motion videos to trained models. Every command lives here.

Names are imported on first use, so that `import factory` needs neither PyArrow nor Ray nor torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ClipInfo": "factory.dataset.schema",
    "RowError": "factory.dataset.schema",
    "attribution": "factory.assets.licences",
    "clip_schema": "factory.dataset.schema",
    "make_row": "factory.dataset.schema",
    "row_to_shot": "factory.dataset.schema",
    "write_row": "factory.dataset.schema",
    "decode_h264": "factory.dataset.codecs.video",
    "encode_h264": "renderers.video",
    "pack_alpha": "factory.dataset.codecs.video",
    "unpack_alpha": "factory.dataset.codecs.video",
    "Shard": "factory.dataset.shards",
    "ShardPacker": "factory.dataset.packing",
    "packed_keys": "factory.dataset.shards",
    "staged_path": "factory.dataset.shards",
    "assign_split": "factory.assets.splits",
    "write_card": "factory.dataset.pages.card",
    "Clip": "factory.dataset.reader",
    "ClipArrays": "factory.dataset.reader",
    "ClipDataset": "factory.dataset.reader",
    "load_clips": "factory.dataset.reader",
    "ClipLoader": "factory.dataset.loader",
    "TrainingClips": "factory.dataset.loader",
    "ray_dataset": "factory.dataset.loader",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'factory' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
