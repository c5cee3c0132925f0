"""Composition: assets to dataset to motion videos to trained models. Every command lives here.

Names are imported on first use, so that `import factory` needs neither PyArrow nor Ray nor torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "ClipInfo": "factory.schema",
    "RowError": "factory.schema",
    "attribution": "factory.schema",
    "clip_schema": "factory.schema",
    "make_row": "factory.schema",
    "row_to_shot": "factory.schema",
    "write_row": "factory.schema",
    "decode_h264": "factory.video",
    "encode_h264": "renderers.video",
    "pack_alpha": "factory.video",
    "unpack_alpha": "factory.video",
    "Shard": "factory.shards",
    "ShardPacker": "factory.shards",
    "packed_keys": "factory.shards",
    "staged_path": "factory.shards",
    "assign_split": "factory.splits",
    "write_card": "factory.card",
    "Clip": "factory.dataset",
    "ClipArrays": "factory.dataset",
    "ClipDataset": "factory.dataset",
    "load_clips": "factory.dataset",
    "ClipLoader": "factory.loader",
    "TrainingClips": "factory.loader",
    "ray_dataset": "factory.loader",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'factory' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
