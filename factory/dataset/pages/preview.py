"""Preview videos: one view of a few clips on grey, as plain videos that browsers play.

With its .mp4 files and `metadata.parquet`, the folder `preview/` is a video folder in the sense of `datasets`. The
table also contains the videos and is what `datasets.load_dataset(…, "preview")` opens, because `datasets` reads all
configurations of a repository with the same builder, which is the Parquet builder here.
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
_TEXTS: tuple[str, ...] = (
    "clip_id",
    "split",
    "title",
    "author",
    "licence",
    "attribution",
    "source_url",
    "animation_name",
    "caption",
    "quality",
)
_VIEW = 2  # slightly from the side


def write_preview(clips: ClipDataset, folder: Path, *, most: int = _MOST) -> None:
    """Write `preview/` below `folder`.

    The clips are chosen by the hash of their names, so a growing dataset keeps most of its previews.

    Args:
        clips: the dataset.
        folder: local folder.
        most: maximum number of assets; each has one clip.
    """
    (folder / FOLDER).mkdir()
    rows = []
    for clip in _select(clips, most):
        view = _VIEW % clip.metadata["num_views"]
        frames = clip.read(views=[view], background=GREY).frames[0]
        video, name = encode_h264(frames, clip.metadata["fps"]), f"{_digest(clip.clip_id)[:16]}.mp4"
        (folder / FOLDER / name).write_bytes(video)
        texts = {column: clip.metadata[column] for column in _TEXTS}
        rows.append({"file_name": name, "video": {"bytes": video, "path": name}, **texts})
    pq.write_table(
        pa.Table.from_pylist(rows, _schema()), folder / FOLDER / "metadata.parquet", compression="NONE"
    )


def _select(clips: ClipDataset, most: int) -> Iterator[Clip]:
    """Yield one clip each of up to `most` assets."""
    rows = clips.table(["clip_id", "source", "asset_uid"]).to_pylist()
    order = sorted(range(len(rows)), key=lambda index: _digest(rows[index]["clip_id"]))
    assets: set[tuple[str, str]] = set()
    for index in order:
        asset = rows[index]["source"], rows[index]["asset_uid"]
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
