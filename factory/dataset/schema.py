"""One row a clip: the columns of the dataset, and how a rendered clip becomes a row and a row a shot again.

The pixels lie in `view_00 … view_15` (H.264) and `alpha_00 … alpha_15` (factory/video.py); everything else is
a plain column that a reader can filter by without touching a pixel. docs/dataset.md lists them all.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.dataset.codecs.modalities import encode_modalities, modalities_of, modality_columns
from factory.dataset.codecs.video import bleed_colour, pack_alpha
from renderers.cameras import CONVENTION, Cameras
from renderers.meshes.clip import RenderedClip, RenderSettings, Shot
from renderers.video import encode_h264

SCHEMA_VERSION = "2"
VIEWS = 16
MOTION_COLUMNS = (
    "motion_reach",
    "motion_travel",
    "motion_speed",
    "motion_speed_max",
    "motion_size_min",
    "motion_size_max",
)
# Empty in rows that were made with `--curate off`.
SIGNATURE = 91  # numbers in `motion_signature`
MEASURED_COLUMNS = ("motion_flow", "motion_pop_in", "motion_parts", "motion_ssim", "motion_signature")
_VIDEO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# What each column means; NN stands for the number of a view. The card and docs/dataset.md print this.
DESCRIPTIONS: dict[str, str] = {
    "clip_id": "name of the clip, made from the content of asset, plan and settings",
    "split": "train, validation or test; all clips of an asset are in one",
    "schema_version": "of these columns",
    "asset_uid": "name of the asset, unique within its source",
    "asset_sha256": "of the file that was rendered, hexadecimal",
    "source": "where the asset comes from",
    "source_url": "its page; empty if it has none",
    "title": "as published; empty if unknown",
    "author": "as published; empty if unknown",
    "licence": "SPDX expression, or `unknown`",
    "attribution": "the line that credits the author",
    "noai": "whether the author forbids AI use: yes, no or unknown",
    "noai_checked_at": "when that was looked up, ISO 8601; empty if never",
    "animation_name": "as its author wrote it",
    "animation_index": "in the asset",
    "window": "part of the animation: first or last 2 s, loop (short, goes round) or hold (short, stays)",
    "start_time": "seconds on the animation's time line, first frame",
    "end_time": "seconds on the animation's time line, last frame",
    "fps": "frames per second",
    "num_frames": "T",
    "timestamps": "seconds on the animation's time line, of each frame",
    "motion_reach": "farthest any vertex gets from where it began, in first-frame box diagonals",
    "motion_travel": "farthest the centre of the box gets, in diagonals",
    "motion_speed": "mean speed of vertices, diagonals per second",
    "motion_speed_max": "largest over frames of the mean speed, diagonals per second",
    "motion_size_min": "smallest diagonal of the box, in first-frame diagonals",
    "motion_size_max": "largest diagonal of the box, in first-frame diagonals",
    "motion_flow": "mean optical flow of the 5 % of the picture that move most, pixels a frame at 256 pixels",
    "motion_pop_in": "largest part of the surface that appears or vanishes from one frame to the next",
    "motion_parts": "large objects that move independently of each other",
    "motion_ssim": "smallest structural similarity of a frame with the one before",
    "motion_signature": "numbers that copies of a clip share, however they were exported",
    "caption": "what is seen; empty if nobody said",
    "caption_origin": "what wrote the caption",
    "quality": "of the motion: high, ok, or the rules it breaks; empty if nobody judged",
    "num_views": "V",
    "width": "pixels",
    "height": "pixels",
    "K": "intrinsics of each view, pixels; the centre of the top-left pixel is (0.5, 0.5)",
    "world_to_camera": "of each view, metres, applied to column vectors",
    "camera_convention": "axes of world and camera, in words",
    "elevation_deg": "of all cameras, degrees; > 0 = above",
    "azimuth_offset_deg": "azimuth of view 0, degrees",
    "azimuths_deg": "of each view, degrees; 0 = in front (+Z), growing towards +X",
    "distance": "of the cameras from the origin, metres",
    "fov_y_deg": "vertical field of view, degrees",
    "asset_to_world": "similarity that centres and scales the asset for the whole clip",
    "renderer": "back end",
    "renderer_version": "back end, its version and its device",
    "settings": "of the renderer, JSON",
    "settings_hash": "of the settings",
    "package_version": "of menagerie4d",
    "seed": "of the plan's random choices",
    "view_NN": "H.264, T frames: straight sRGB colour, one pixel past the silhouette, then grey 127",
    "alpha_NN": "lossless alpha: zlib of a .npy, uint8 [T, height, width]",
}


class RowError(ValueError):
    """A row that may not enter the dataset. The message names the clip and what is missing."""


@dataclass(frozen=True)
class ClipInfo:
    """Everything a row says that is neither a pixel nor a camera matrix; each field is a column.

    Attributes:
        clip_id: names the clip for ever; the key it is staged and packed under.
        split: "train", "validation" or "test" (factory/splits.py).
        asset_uid: unique within `source`. asset_sha256: hexadecimal, of the file that was rendered.
        source: where the asset comes from, e.g. "objaverse". source_url: its page, "" if it has none.
        title, author: as published, "" if unknown. licence: SPDX expression, or "unknown".
        attribution: the sentence that the licence wants to be shown; see `attribution`.
        noai: whether the author forbids AI use: "yes", "no", "unknown". noai_checked_at: ISO date, or "".
        animation_name, animation_index: in the asset.
        window: "first", "last", "loop" or "hold": which part of the animation (factory/planning.py).
        start_time, end_time: seconds on the animation's time line, of the first and last frame.
        fps: frames per second.
        elevation_deg, azimuth_offset_deg, distance (metres), fov_y_deg: of the ring of views.
        azimuths_deg: of each view.
        asset_to_world: 4x4, the similarity that centres and scales the asset.
        renderer: back end, e.g. "opengl". settings: how it rendered.
        package_version: of menagerie4d. seed: of the plan's random choices.
        motion: the statistics named MOTION_COLUMNS (factory/planning.py says what they measure).
        caption, caption_origin: text and what wrote it; "" if there is none.
        quality: tag (factory/curation.py), "" if nobody judged it.
        measures: those of MEASURED_COLUMNS that are known.
    """

    clip_id: str
    split: str
    asset_uid: str
    asset_sha256: str
    source: str
    source_url: str
    title: str
    author: str
    licence: str
    attribution: str
    noai: str
    noai_checked_at: str
    animation_name: str
    animation_index: int
    window: str
    start_time: float
    end_time: float
    fps: float
    elevation_deg: float
    azimuth_offset_deg: float
    azimuths_deg: Sequence[float]
    distance: float
    fov_y_deg: float
    asset_to_world: np.ndarray
    renderer: str
    settings: RenderSettings
    package_version: str
    seed: int
    motion: Mapping[str, float]
    caption: str = ""
    caption_origin: str = ""
    quality: str = ""
    measures: Mapping[str, Any] = field(default_factory=dict)


def view_column(view: int) -> str:
    return f"view_{view:02d}"


def alpha_column(view: int) -> str:
    return f"alpha_{view:02d}"


def clip_schema(views: int = VIEWS, modalities: Collection[str] = ()) -> pa.Schema:
    """The columns of a dataset with that many views, with the features `datasets` reads from the file.

    Args:
        modalities: what there is beside colour (factory/modalities.py).
    """
    text, real, integer = pa.string(), pa.float64(), pa.int32()
    columns: list[tuple[str, pa.DataType]] = [
        ("clip_id", text),
        ("split", text),
        ("schema_version", text),
        # whose
        ("asset_uid", text),
        ("asset_sha256", text),
        ("source", text),
        ("source_url", text),
        ("title", text),
        ("author", text),
        ("licence", text),
        ("attribution", text),
        ("noai", text),
        ("noai_checked_at", text),
        # what moves
        ("animation_name", text),
        ("animation_index", integer),
        ("window", text),
        ("start_time", real),
        ("end_time", real),
        ("fps", real),
        ("num_frames", integer),
        ("timestamps", pa.list_(real)),
        *((name, real) for name in MOTION_COLUMNS),
        ("motion_flow", real),
        ("motion_pop_in", real),
        ("motion_parts", integer),
        ("motion_ssim", real),
        ("motion_signature", pa.list_(pa.int16(), SIGNATURE)),
        ("caption", text),
        ("caption_origin", text),
        ("quality", text),
        # seen from where
        ("num_views", integer),
        ("width", integer),
        ("height", integer),
        ("K", _matrices(views, 3)),
        ("world_to_camera", _matrices(views, 4)),
        ("camera_convention", text),
        ("elevation_deg", real),
        ("azimuth_offset_deg", real),
        ("azimuths_deg", pa.list_(real, views)),
        ("distance", real),
        ("fov_y_deg", real),
        ("asset_to_world", pa.list_(pa.list_(real, 4), 4)),
        # made by
        ("renderer", text),
        ("renderer_version", text),
        ("settings", text),
        ("settings_hash", text),
        ("package_version", text),
        ("seed", pa.int64()),
        # the pixels
        *((view_column(view), _VIDEO) for view in range(views)),
        *((alpha_column(view), pa.binary()) for view in range(views)),
        *modality_columns(views, modalities),
    ]
    schema = pa.schema(columns)
    features = {column.name: _feature(column.type) for column in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How a clip and a shard are written, as options of `pyarrow.parquet.ParquetWriter`."""
    filtered_by = [column.name for column in schema if not (is_pixels(column) or column.type.num_fields)]
    return {
        "compression": "NONE",  # pixels are compressed already, and the rest is a hundredth of a row
        "use_dictionary": False,
        "write_page_index": True,
        "write_statistics": filtered_by,  # of pixels, they would be copies of the pixels
        "use_content_defined_chunking": True,  # a hub stores equal stretches of two revisions once
    }


def is_pixels(column: pa.Field) -> bool:
    """Whether a column holds what is seen, by far the most of a row, rather than what is known of it."""
    return column.type == _VIDEO or pa.types.is_binary(column.type)


def _matrices(count: int, side: int) -> pa.DataType:
    return pa.list_(pa.list_(pa.list_(pa.float64(), side), side), count)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column type in the words of `datasets.Features`."""
    if kind == _VIDEO:
        return {"_type": "Video"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def make_row(clip: RenderedClip, info: ClipInfo) -> dict[str, Any]:
    """Encode a clip and put it together with what is known of it: one value for each column of `clip_schema`.

    What the clip has beside colour adds its columns.

    Raises:
        RowError: licence, source or attribution is missing, or clip and info disagree.
    """
    views, num_frames, height, width, _ = clip.frames.shape
    if set(info.motion) != set(MOTION_COLUMNS):
        raise RowError(
            f"clip {info.clip_id}: motion statistics are {sorted(info.motion)}, the schema has "
            f"{sorted(MOTION_COLUMNS)}; change MOTION_COLUMNS and SCHEMA_VERSION together with the planning"
        )
    if len(clip.cameras) != views or len(info.azimuths_deg) != views or len(clip.timestamps) != num_frames:
        raise RowError(
            f"clip {info.clip_id}: {views} views x {num_frames} frames, but {len(clip.cameras)} cameras, "
            f"{len(info.azimuths_deg)} azimuths and {len(clip.timestamps)} timestamps"
        )
    row = {column.name: getattr(info, column.name) for column in fields(info)}
    del row["motion"], row["measures"]
    row |= {name: float(info.motion[name]) for name in MOTION_COLUMNS}
    row |= {name: info.measures.get(name) for name in MEASURED_COLUMNS}
    row |= {
        "schema_version": SCHEMA_VERSION,
        "num_frames": num_frames,
        "timestamps": clip.timestamps.tolist(),
        "num_views": views,
        "width": width,
        "height": height,
        "K": clip.cameras.K.tolist(),
        "world_to_camera": clip.cameras.world_to_camera.tolist(),
        "camera_convention": CONVENTION,
        "azimuths_deg": [float(azimuth) for azimuth in info.azimuths_deg],
        "asset_to_world": np.asarray(info.asset_to_world, np.float64).reshape(4, 4).tolist(),
        "renderer_version": clip.renderer,
        "settings": json.dumps(info.settings.to_dict(), sort_keys=True),
        "settings_hash": info.settings.hash(),
    }
    check_row(row)  # before the expensive part
    for view, frames in enumerate(clip.frames):
        video = encode_h264(bleed_colour(frames), info.fps)
        row[view_column(view)] = {"bytes": video, "path": f"{view_column(view)}.mp4"}
        row[alpha_column(view)] = pack_alpha(frames[..., 3])
    return row | encode_modalities(clip)


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row without licence, source or attribution: nobody could use or credit it; or one that nobody could
    make again, because it does not say what made it.
    """
    for names, advice in (
        (
            ("licence", "source", "attribution"),
            'Every row says whose work it is; where the licence is not known, write "unknown"',
        ),
        (
            ("renderer_version", "package_version"),
            "Every row says what made it; was the package replaced while it was running? Run the command again",
        ),
    ):
        if missing := [name for name in names if not (row[name] or "").strip()]:
            where = f"clip {row['clip_id']} (asset {row['asset_uid']!r})"
            raise RowError(f"{where}: no {', no '.join(missing)}. {advice}")


def row_cameras(row: Mapping[str, Any]) -> Cameras:
    """The V cameras of a row."""
    return Cameras(row["world_to_camera"], row["K"], row["width"], row["height"])


def row_to_shot(row: Mapping[str, Any]) -> tuple[Shot, RenderSettings]:
    """What renders a row again, given to its `renderer` with the asset of that `asset_sha256`."""
    shot = Shot(
        animation=row["animation_index"],
        timestamps=np.asarray(row["timestamps"], np.float64),
        asset_to_world=np.asarray(row["asset_to_world"], np.float64),
        cameras=row_cameras(row),
    )
    return shot, RenderSettings(**json.loads(row["settings"]))


def write_row(row: Mapping[str, Any]) -> bytes:
    """A row as a parquet file of its own, the form a clip is staged in. Equal rows give equal bytes."""
    check_row(row)
    schema = clip_schema(row["num_views"], modalities_of(row))
    target = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row)], schema), target, **parquet_options(schema))
    return target.getvalue()
