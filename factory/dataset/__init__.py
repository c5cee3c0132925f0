"""The MV-Video dataset: its columns, shards, readers, training batches, captions, takedowns and releases.

    clips = load_clips("path or URL")
    arrays = clips[0].read(views=[0, 4, 8, 12], background=(127, 127, 127))

Names are imported on first use; modules of this package import each other directly. See docs/dataset.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.dataset.captioning import Captioner, CaptionStage, caption_dataset
    from factory.dataset.captions import Caption, caption_from_names, newest_captions, read_caption_rows
    from factory.dataset.lerobot import ExportError, export_lerobot
    from factory.dataset.loader import ClipLoader, TrainingClips
    from factory.dataset.packing import ShardPacker
    from factory.dataset.ray_data import ray_dataset
    from factory.dataset.reader import Clip, ClipArrays, ClipDataset, DatasetError, load_clips
    from factory.dataset.release import Published, PublishError, check_publishable, publish
    from factory.dataset.schema import ClipInfo, RowError, clip_schema, make_row, row_to_shot, write_row
    from factory.dataset.shards import Shard, packed_keys, read_manifests, remove_clips, staged_path
    from factory.dataset.takedown import TakedownError, finish_takedowns

__all__ = [
    "Caption",
    "CaptionStage",
    "Captioner",
    "Clip",
    "ClipArrays",
    "ClipDataset",
    "ClipInfo",
    "ClipLoader",
    "DatasetError",
    "ExportError",
    "PublishError",
    "Published",
    "RowError",
    "Shard",
    "ShardPacker",
    "TakedownError",
    "TrainingClips",
    "caption_dataset",
    "caption_from_names",
    "check_publishable",
    "clip_schema",
    "export_lerobot",
    "finish_takedowns",
    "load_clips",
    "make_row",
    "newest_captions",
    "packed_keys",
    "publish",
    "ray_dataset",
    "read_caption_rows",
    "read_manifests",
    "remove_clips",
    "row_to_shot",
    "staged_path",
    "write_row",
]
_MODULES = {
    "CaptionStage": "factory.dataset.captioning",
    "Captioner": "factory.dataset.captioning",
    "caption_dataset": "factory.dataset.captioning",
    "Caption": "factory.dataset.captions",
    "caption_from_names": "factory.dataset.captions",
    "newest_captions": "factory.dataset.captions",
    "read_caption_rows": "factory.dataset.captions",
    "ExportError": "factory.dataset.lerobot",
    "export_lerobot": "factory.dataset.lerobot",
    "ClipLoader": "factory.dataset.loader",
    "TrainingClips": "factory.dataset.loader",
    "ray_dataset": "factory.dataset.ray_data",
    "ShardPacker": "factory.dataset.packing",
    "Clip": "factory.dataset.reader",
    "ClipArrays": "factory.dataset.reader",
    "ClipDataset": "factory.dataset.reader",
    "DatasetError": "factory.dataset.reader",
    "load_clips": "factory.dataset.reader",
    "PublishError": "factory.dataset.release",
    "Published": "factory.dataset.release",
    "check_publishable": "factory.dataset.release",
    "publish": "factory.dataset.release",
    "ClipInfo": "factory.dataset.schema",
    "RowError": "factory.dataset.schema",
    "clip_schema": "factory.dataset.schema",
    "make_row": "factory.dataset.schema",
    "row_to_shot": "factory.dataset.schema",
    "write_row": "factory.dataset.schema",
    "Shard": "factory.dataset.shards",
    "packed_keys": "factory.dataset.shards",
    "read_manifests": "factory.dataset.shards",
    "remove_clips": "factory.dataset.shards",
    "staged_path": "factory.dataset.shards",
    "TakedownError": "factory.dataset.takedown",
    "finish_takedowns": "factory.dataset.takedown",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
