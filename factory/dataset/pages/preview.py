"""A few clips as plain videos, which a web page plays: one view each, on grey.

The folder `preview/` is two things at once. With its .mp4 files and `metadata.parquet` it is a video folder, and that
table, which holds the videos too, is what `datasets.load_dataset(…, "preview")` opens: the configurations of a
repository are all read by one builder, and the shards' is parquet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from factory.dataset.reader import Clip, ClipDataset
from renderers.meshes.clip import GREY
from renderers.video import encode_h264

FOLDER = "preview"
_MOST = 12
_TEXTS = (
    *("clip_id", "split", "title", "author", "licence", "attribution", "source_url", "animation_name"),
    *("caption", "quality"),
)
_VIEW = 2  # a little from the side


def write_preview(clips: ClipDataset, folder: Path, *, most: int = _MOST) -> None:
    """Write `preview/` below `folder`: one clip of each of at most so many assets.

    Which ones follows from the names of the clips, so that a dataset that grows keeps most of them.
    """
    (folder / FOLDER).mkdir()
    rows = []
    for clip in _chosen(clips, most):
        view = _VIEW % clip.metadata["num_views"]
        frames = clip.read(views=[view], background=GREY).frames[0]
        video, name = encode_h264(frames, clip.metadata["fps"]), f"{_digest(clip.clip_id)[:16]}.mp4"
        (folder / FOLDER / name).write_bytes(video)
        known = {column: clip.metadata[column] for column in _TEXTS}
        rows.append({"file_name": name, "video": {"bytes": video, "path": name}, **known})
    pq.write_table(
        pa.Table.from_pylist(rows, _schema()), folder / FOLDER / "metadata.parquet", compression="NONE"
    )


def _chosen(clips: ClipDataset, most: int) -> Iterator[Clip]:
    known = clips.table(["clip_id", "source", "asset_uid"]).to_pylist()
    order = sorted(range(len(known)), key=lambda index: _digest(known[index]["clip_id"]))
    assets: set[tuple[str, str]] = set()
    for index in order:
        asset = known[index]["source"], known[index]["asset_uid"]
        if asset not in assets and len(assets) < most:
            assets.add(asset)
            yield clips[index]


def _digest(clip_id: str) -> str:
    return hashlib.sha256(clip_id.encode()).hexdigest()


def _schema() -> pa.Schema:
    video = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = {"dtype": "string", "_type": "Value"}
    features = {"file_name": text, "video": {"_type": "Video"}, **dict.fromkeys(_TEXTS, text)}
    columns = [(name, video if name == "video" else pa.string()) for name in features]
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features}})})
