"""From animated 3D assets to a multi-view video dataset, and from the dataset to trained models.

The commands are `python -m factory.render`, `motions`, `curate`, `view`, `publish`, `status` and `train`. From Python:

    clips = factory.load_clips("path or URL", split="train")
    loader = factory.ClipLoader(factory.TrainingClips(clips, batch_size=2), num_workers=8)

Names are imported on first use, so `import factory` loads neither PyArrow nor Ray nor torch.
"""

from __future__ import annotations

from zoo import interrupts  # noqa: F401 - before all other imports, so that a Ctrl-C during them is handled

# isort: split
from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.assets.licences import attribution
    from factory.assets.splits import assign_split
    from factory.browser.api import DatasetBrowser, browse
    from factory.browser.export import export_browser
    from factory.dataset.codecs.video import decode_h264, pack_alpha, unpack_alpha
    from factory.dataset.lerobot import ExportError, export_lerobot
    from factory.dataset.loader import ClipLoader, TrainingClips
    from factory.dataset.packing import ShardPacker
    from factory.dataset.pages.card import write_card
    from factory.dataset.ray_data import ray_dataset
    from factory.dataset.reader import Clip, ClipArrays, ClipDataset, DatasetError, load_clips
    from factory.dataset.schema import ClipInfo, RowError, clip_schema, make_row, row_to_shot, write_row
    from factory.dataset.shards import Shard, packed_keys, staged_path
    from renderers.video import encode_h264

__all__ = [
    "Clip",
    "ClipArrays",
    "ClipDataset",
    "ClipInfo",
    "ClipLoader",
    "DatasetBrowser",
    "DatasetError",
    "ExportError",
    "RowError",
    "Shard",
    "ShardPacker",
    "TrainingClips",
    "__version__",
    "assign_split",
    "attribution",
    "browse",
    "clip_schema",
    "decode_h264",
    "encode_h264",
    "export_browser",
    "export_lerobot",
    "load_clips",
    "make_row",
    "pack_alpha",
    "packed_keys",
    "ray_dataset",
    "row_to_shot",
    "staged_path",
    "unpack_alpha",
    "write_card",
    "write_row",
]
__version__: str
_MODULES = {
    "attribution": "factory.assets.licences",
    "assign_split": "factory.assets.splits",
    "DatasetBrowser": "factory.browser.api",
    "browse": "factory.browser.api",
    "export_browser": "factory.browser.export",
    "decode_h264": "factory.dataset.codecs.video",
    "pack_alpha": "factory.dataset.codecs.video",
    "unpack_alpha": "factory.dataset.codecs.video",
    "ClipLoader": "factory.dataset.loader",
    "TrainingClips": "factory.dataset.loader",
    "ray_dataset": "factory.dataset.ray_data",
    "ShardPacker": "factory.dataset.packing",
    "write_card": "factory.dataset.pages.card",
    "Clip": "factory.dataset.reader",
    "ClipArrays": "factory.dataset.reader",
    "ClipDataset": "factory.dataset.reader",
    "DatasetError": "factory.dataset.reader",
    "load_clips": "factory.dataset.reader",
    "ExportError": "factory.dataset.lerobot",
    "export_lerobot": "factory.dataset.lerobot",
    "ClipInfo": "factory.dataset.schema",
    "RowError": "factory.dataset.schema",
    "clip_schema": "factory.dataset.schema",
    "make_row": "factory.dataset.schema",
    "row_to_shot": "factory.dataset.schema",
    "write_row": "factory.dataset.schema",
    "Shard": "factory.dataset.shards",
    "packed_keys": "factory.dataset.shards",
    "staged_path": "factory.dataset.shards",
    "encode_h264": "renderers.video",
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
