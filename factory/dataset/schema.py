"""The columns of the dataset, one row per clip: encoding a rendered clip as a row, and recovering its shot from a row.

Pixels are in the columns `view_00 … view_15` (H.264) and `alpha_00 … alpha_15` (`factory.dataset.codecs.video`).
All other columns are plain values that a reader can filter by without reading pixels. docs/dataset.md lists them.
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

from cluster.arguments import fields_of, instance, texts
from factory.dataset.codecs.modalities import MODALITIES, encode_modalities, modalities_of, modality_columns
from factory.dataset.codecs.video import encode_colour, pack_alpha
from renderers.arguments import integer
from renderers.cameras import CONVENTION, Cameras
from renderers.meshes.clip import RenderedClip, RenderSettings, Shot
from renderers.values import by_value

SCHEMA_VERSION = "3"
# Columns that earlier versions of the schema lack, with the version that added them.
ADDED_COLUMNS = {"notes": "3"}
VIEWS = 16
MOTION_COLUMNS = (
    "motion_reach",
    "motion_travel",
    "motion_speed",
    "motion_speed_max",
    "motion_size_min",
    "motion_size_max",
)
SIGNATURE = 91  # length of `motion_signature`
# Measured on the rendered frames; null in rows rendered with `--curate off`.
MEASURED_COLUMNS = ("motion_flow", "motion_pop_in", "motion_parts", "motion_ssim", "motion_signature")

_TEXT, _REAL, _INTEGER = pa.string(), pa.float64(), pa.int32()
_VIDEO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_Columns = list[tuple[str, pa.DataType]]
_ASSET_COLUMNS: _Columns = [
    ("clip_id", _TEXT),
    ("split", _TEXT),
    ("schema_version", _TEXT),
    ("asset_uid", _TEXT),
    ("asset_sha256", _TEXT),
    ("source", _TEXT),
    ("source_url", _TEXT),
    ("title", _TEXT),
    ("author", _TEXT),
    ("licence", _TEXT),
    ("attribution", _TEXT),
    ("noai", _TEXT),
    ("noai_checked_at", _TEXT),
]
_ANIMATION_COLUMNS: _Columns = [
    ("animation_name", _TEXT),
    ("animation_index", _INTEGER),
    ("window", _TEXT),
    ("start_time", _REAL),
    ("end_time", _REAL),
    ("fps", _REAL),
    ("num_frames", _INTEGER),
    ("timestamps", pa.list_(_REAL)),
    *((name, _REAL) for name in MOTION_COLUMNS),
    ("motion_flow", _REAL),
    ("motion_pop_in", _REAL),
    ("motion_parts", _INTEGER),
    ("motion_ssim", _REAL),
    ("motion_signature", pa.list_(pa.int16(), SIGNATURE)),
    ("caption", _TEXT),
    ("caption_origin", _TEXT),
    ("quality", _TEXT),
    ("notes", pa.list_(_TEXT)),
]
_RENDERER_COLUMNS: _Columns = [
    ("renderer", _TEXT),
    ("renderer_version", _TEXT),
    ("settings", _TEXT),
    ("settings_hash", _TEXT),
    ("package_version", _TEXT),
    ("seed", pa.int64()),
]
# Meaning of each column, printed in the card and in docs/dataset.md. NN is the number of a view.
DESCRIPTIONS: dict[str, str] = {
    "clip_id": "clip name, derived from the content of asset, plan and settings",
    "split": "train, validation or test; the same for all clips of an asset",
    "schema_version": "version of these columns",
    "asset_uid": "asset name, unique within its source",
    "asset_sha256": "SHA-256 of the rendered file, hexadecimal",
    "source": "collection that the asset comes from",
    "source_url": "web page of the asset; empty if it has none",
    "title": "as published; empty if unknown",
    "author": "as published; empty if unknown",
    "licence": "SPDX expression, or `unknown`",
    "attribution": "credit line for the author",
    "noai": "whether the author forbids AI use: yes, no or unknown",
    "noai_checked_at": "date on which `noai` was checked, ISO 8601; empty if never",
    "animation_name": "as named by the author",
    "animation_index": "index of the animation in the asset; -1 for a turntable",
    "window": "part of the animation: first or last 2 s, loop (short, repeated), hold (short, last pose held), or "
    "turntable (not animated, turns once)",
    "start_time": "time of the first frame on the animation's timeline, seconds",
    "end_time": "time of the last frame on the animation's timeline, seconds",
    "fps": "frames per second",
    "num_frames": "T",
    "timestamps": "time of each frame on the animation's timeline, seconds",
    "motion_reach": "largest displacement of any vertex from its first position, in bounding-box diagonals of frame 0",
    "motion_travel": "largest displacement of the bounding-box centre, in diagonals",
    "motion_speed": "mean vertex speed, diagonals per second",
    "motion_speed_max": "maximum over frames of the mean vertex speed, diagonals per second",
    "motion_size_min": "smallest bounding-box diagonal, in diagonals of frame 0",
    "motion_size_max": "largest bounding-box diagonal, in diagonals of frame 0",
    "motion_flow": "mean optical flow of the 5 % of pixels that move most, pixels per frame at 256 px",
    "motion_pop_in": "largest fraction of the surface that appears or vanishes between two frames",
    "motion_parts": "number of large objects that move independently",
    "motion_ssim": "lowest SSIM between consecutive frames",
    "motion_signature": "fingerprint of the motion, shared by copies of a clip however they were exported",
    "caption": "text description; empty if there is none",
    "caption_origin": "author or model of the caption",
    "quality": "rating of the motion: high, ok, or the rules it violates; empty if not rated",
    "notes": "how the clip differs from what its file specifies, one sentence each; empty if it does not",
    "num_views": "V",
    "width": "pixels",
    "height": "pixels",
    "K": "intrinsics of each view, pixels; the centre of the top-left pixel is (0.5, 0.5)",
    "world_to_camera": "extrinsics of each view, metres, applied to column vectors",
    "camera_convention": "world and camera axes, in words",
    "elevation_deg": "elevation of all cameras, degrees; > 0 = above",
    "azimuth_offset_deg": "azimuth of view 0, degrees",
    "azimuths_deg": "azimuth of each view, degrees; 0 = in front (+Z), increasing towards +X",
    "distance": "distance of the cameras from the origin, metres",
    "fov_y_deg": "vertical field of view, degrees",
    "asset_to_world": "similarity transform that centres and scales the asset for the whole clip",
    "renderer": "rendering back end",
    "renderer_version": "back end, its version and device",
    "settings": "renderer settings, JSON",
    "settings_hash": "hash of the renderer settings",
    "package_version": "version of menagerie4d",
    "seed": "seed of the plan's random choices",
    "view_NN": "H.264, T frames: straight sRGB colour, extended one pixel past the silhouette, then grey 127",
    "alpha_NN": "lossless alpha: zlib-compressed .npy, uint8 [T, height, width]",
}


_CREDITED_COLUMNS = ("licence", "source", "attribution", "renderer_version", "package_version")
_CAMERA_COLUMNS = ("world_to_camera", "K", "width", "height")
_SHOT_COLUMNS = (
    *_CAMERA_COLUMNS,
    "window",
    "animation_index",
    "timestamps",
    "asset_to_world",
    "settings",
    "fps",
)


class RowError(ValueError):
    """A row that the dataset does not accept. The message names the clip and the missing columns."""


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class ClipInfo:
    """The metadata of a row: every column except pixels, camera matrices and the clip's dimensions.

    Attributes:
        clip_id: permanent name of the clip; also the key under which it is staged and packed.
        split: "train", "validation" or "test" (`factory.assets.splits`).
        asset_uid: unique within `source`.
        asset_sha256: SHA-256 of the rendered file, hexadecimal.
        source: collection of the asset, e.g. "objaverse".
        source_url: web page of the asset, "" if it has none.
        title: as published, "" if unknown.
        author: as published, "" if unknown.
        licence: SPDX expression, or "unknown".
        attribution: credit line required by the licence (`factory.assets.licences.attribution`).
        noai: whether the author forbids AI use: "yes", "no" or "unknown".
        noai_checked_at: ISO 8601 date, or "".
        animation_name: as named by the author.
        animation_index: index in the asset, -1 for a turntable.
        window: part of the animation: "first", "last", "loop", "hold" or "turntable" (`factory.clips.plan`).
        start_time: time of the first frame, seconds on the animation's timeline.
        end_time: time of the last frame, seconds.
        fps: frames per second.
        elevation_deg: elevation of the ring of cameras.
        azimuth_offset_deg: azimuth of view 0.
        azimuths_deg: azimuth of each view.
        distance: of the cameras from the origin, metres.
        fov_y_deg: vertical field of view.
        asset_to_world: 4x4 similarity transform that centres and scales the asset.
        renderer: back end, e.g. "opengl".
        settings: renderer settings.
        package_version: version of menagerie4d.
        seed: seed of the plan's random choices.
        motion: the statistics named in MOTION_COLUMNS (defined in `factory.clips.plan`).
        caption: text, "" if there is none.
        caption_origin: author or model of the caption.
        quality: rating (`factory.clips.quality`), "" if the clip was not rated.
        measures: the available MEASURED_COLUMNS.
        notes: how the clip differs from what its file specifies, one sentence each, e.g. ignored extensions.
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
    notes: Sequence[str] = ()


def view_column(view: int) -> str:
    """Name of the colour video column of a view."""
    return f"view_{view:02d}"


def alpha_column(view: int) -> str:
    """Name of the alpha column of a view."""
    return f"alpha_{view:02d}"


def clip_schema(views: int = VIEWS, modalities: Collection[str] = ()) -> pa.Schema:
    """Return the Arrow schema of a dataset, including the feature types that `datasets` reads from Parquet metadata.

    Args:
        views: number of views.
        modalities: stored beside colour (`factory.dataset.codecs.modalities.MODALITIES`).
    """
    views = integer(views, "clip_schema: views", 1)
    if not set(texts(modalities, "clip_schema: modalities")) <= set(MODALITIES):
        raise ValueError(
            f"clip_schema: modalities: expected names from {MODALITIES}, got {tuple(modalities)}"
        )
    columns = [
        *_ASSET_COLUMNS,
        *_ANIMATION_COLUMNS,
        *_camera_columns(views),
        *_RENDERER_COLUMNS,
        *((view_column(view), _VIDEO) for view in range(views)),
        *((alpha_column(view), pa.binary()) for view in range(views)),
        *modality_columns(views, modalities),
    ]
    schema = pa.schema(columns)
    features = {column.name: _feature(column.type) for column in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _camera_columns(views: int) -> _Columns:
    return [
        ("num_views", _INTEGER),
        ("width", _INTEGER),
        ("height", _INTEGER),
        ("K", _matrices(views, 3)),
        ("world_to_camera", _matrices(views, 4)),
        ("camera_convention", _TEXT),
        ("elevation_deg", _REAL),
        ("azimuth_offset_deg", _REAL),
        ("azimuths_deg", pa.list_(_REAL, views)),
        ("distance", _REAL),
        ("fov_y_deg", _REAL),
        ("asset_to_world", pa.list_(pa.list_(_REAL, 4), 4)),
    ]


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the options of `pyarrow.parquet.ParquetWriter` for clips and shards."""
    filterable = [column.name for column in schema if not (is_pixels(column) or column.type.num_fields)]
    return {
        "compression": "NONE",  # pixels are already compressed, and the metadata is a hundredth of a row
        "use_dictionary": False,
        "write_page_index": True,
        "write_statistics": filterable,  # statistics of pixel columns would be copies of the pixels
        "use_content_defined_chunking": True,  # a hub stores chunks shared by two revisions once
    }


def is_pixels(column: pa.Field) -> bool:
    """Whether a column holds pixel data (nearly all bytes of a row) rather than metadata."""
    return column.type == _VIDEO or pa.types.is_binary(column.type)


def _matrices(count: int, side: int) -> pa.DataType:
    return pa.list_(pa.list_(pa.list_(pa.float64(), side), side), count)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Convert an Arrow type to the JSON form of `datasets.Features`."""
    if kind == _VIDEO:
        return {"_type": "Video"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def make_row(clip: RenderedClip, info: ClipInfo) -> dict[str, Any]:
    """Encode a clip as a row: one value for each column of `clip_schema`.

    Args:
        clip: frames, cameras and, optionally, modalities, which add their columns.
        info: the metadata.

    Raises:
        RowError: licence, source or attribution is missing, or clip and info disagree.
    """
    instance(clip, RenderedClip, "make_row: clip")
    instance(info, ClipInfo, "make_row: info")
    views, num_frames, height, width, _ = clip.frames.shape
    if set(info.motion) != set(MOTION_COLUMNS):
        raise RowError(
            f"clip {info.clip_id}: motion statistics are {sorted(info.motion)}, the schema has "
            f"{sorted(MOTION_COLUMNS)}; when factory.clips.plan changes, update MOTION_COLUMNS and SCHEMA_VERSION"
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
        "notes": list(info.notes),
        "asset_to_world": np.asarray(info.asset_to_world, np.float64).reshape(4, 4).tolist(),
        "renderer_version": clip.renderer,
        "settings": json.dumps(info.settings.to_dict(), sort_keys=True),
        "settings_hash": info.settings.hash(),
    }
    check_row(row)  # before encoding, which is expensive
    return row | encode_pixels(clip, info.fps)


def encode_pixels(clip: RenderedClip, fps: float) -> dict[str, Any]:
    """Encode the frames and modalities of a clip: column → value. Equal clips give equal bytes."""
    row: dict[str, Any] = {}
    for view, frames in enumerate(clip.frames):
        video = encode_colour(frames, fps)
        row[view_column(view)] = {"bytes": video, "path": f"{view_column(view)}.mp4"}
        row[alpha_column(view)] = pack_alpha(frames[..., 3])
    return row | encode_modalities(clip)


def check_row(row: Mapping[str, Any]) -> None:
    """Check that a row can be credited and reproduced.

    Raises:
        RowError: licence, source or attribution is empty, or the version of renderer or package.
    """
    for names, advice in (
        (
            ("licence", "source", "attribution"),
            'Every row needs them; if the licence is not known, set it to "unknown"',
        ),
        (
            ("renderer_version", "package_version"),
            "Every row needs them; was the package replaced while it was running? Run the command again",
        ),
    ):
        if missing := [name for name in names if not (row[name] or "").strip()]:
            where = f"clip {row['clip_id']} (asset {row['asset_uid']!r})"
            raise RowError(f"{where}: no {', no '.join(missing)}. {advice}")


def row_cameras(row: Mapping[str, Any]) -> Cameras:
    """Return the cameras of a row, one per view."""
    return Cameras(row["world_to_camera"], row["K"], row["width"], row["height"])


def row_to_shot(row: Mapping[str, Any]) -> tuple[Shot, RenderSettings]:
    """Return the inputs that render a row again with its `renderer` and the asset file of its `asset_sha256`."""
    fields_of(row, _SHOT_COLUMNS, "row_to_shot: row")
    try:
        settings = RenderSettings(**json.loads(row["settings"]))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"row_to_shot: row: its settings cannot be read ({error}): {row['settings']!r}"
        ) from None
    turns = row["window"] == "turntable"
    shot = Shot(
        animation=None if turns else row["animation_index"],
        timestamps=np.asarray(row["timestamps"], np.float64),
        asset_to_world=np.asarray(row["asset_to_world"], np.float64),
        cameras=row_cameras(row),
        closed=row["window"] == "loop",
        turntable=row["num_frames"] / row["fps"] if turns else 0.0,
    )
    return shot, settings


def write_row(row: Mapping[str, Any]) -> bytes:
    """Encode a row as a Parquet file of its own, the form in which clips are staged. Equal rows give equal bytes."""
    fields_of(row, (*_CREDITED_COLUMNS, "clip_id", "asset_uid", "num_views"), "write_row: row")
    check_row(row)
    schema = clip_schema(integer(row["num_views"], "write_row: row: num_views", 1), modalities_of(row))
    target = io.BytesIO()
    try:
        table = pa.Table.from_pylist([dict(row)], schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RowError(f"write_row: row: clip {row['clip_id']} does not fit the schema: {error}") from None
    pq.write_table(table, target, **parquet_options(schema))
    return target.getvalue()
