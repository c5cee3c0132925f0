"""Export clips to the LeRobot dataset layout, version 3, which `lerobot` and `ray.data.read_lerobot` read.

    meta/info.json                                 columns, frame rate, splits
    meta/tasks.parquet                             captions
    meta/episodes/chunk-000/file-000.parquet       one row per clip: where its frames and videos are, and its licence
    meta/stats.json                                minimum, maximum, mean, standard deviation of each column
    data/chunk-000/file-000.parquet                one row per frame, one row group per clip
    videos/<camera>/chunk-000/file-000.mp4         the clips of one view, one after another

A clip is an episode, its caption is the task, its views are the cameras. The videos are copied, not encoded again; the
alpha channel has no place in this layout. Reference: docs "LeRobotDataset v3.0" of huggingface/lerobot.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import Storage
from cluster.arguments import instance, location
from factory.dataset.reader import Clip, ClipDataset
from factory.dataset.schema import view_column
from renderers.files import is_disk_full

VERSION = "v3.0"
SPLITS = ("train", "validation", "test")  # in the order in which LeRobot's ranges of episodes list them
VIDEO_BYTES = 200 * 2**20  # a video file is closed when it exceeds this size, as LeRobot's own writer does
FILES_PER_CHUNK = 1000
STATISTICS_CLIPS = 64  # clips whose first frame enters the statistics of the videos
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_SAME = ("num_views", "num_frames", "width", "height", "fps")
_CREDITS = (
    "clip_id",
    "asset_uid",
    "source",
    "source_url",
    "title",
    "author",
    "licence",
    "attribution",
    "animation_name",
)


class ExportError(ValueError):
    """The dataset or the folder does not fit the layout. The message names what differs."""


def export_lerobot(clips: ClipDataset, folder: str | os.PathLike[str]) -> Path:
    """Write clips as a LeRobot dataset.

    The columns of a frame are LeRobot's own (`index`, `episode_index`, `frame_index`, `timestamp`, `task_index`), the
    cameras as `camera.world_to_camera` (float32 [V·16], row-major 4x4 matrices, x right, y down, z forward) and
    `camera.K` (float32 [V·9], pixels), and the videos `observation.images.view_NN`.

    Args:
        clips: all of one shape and frame rate, which must be a whole number.
        folder: does not exist yet, or is empty. It appears when it is complete.

    Returns:
        The folder.

    Raises:
        ExportError: clips of several shapes, a fractional frame rate, or a folder with files in it.
    """
    instance(clips, ClipDataset, "export_lerobot: clips")
    folder = Path(location(folder, "export_lerobot: folder"))
    Storage(folder.parent).check_writable()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} exists and is not an empty folder; choose another one")
    shape = _common_shape(clips)
    unfinished = folder.parent / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _Export(clips, shape, unfinished).write()
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError) and is_disk_full(error):
            raise OSError(error.errno, os.strerror(error.errno or 0), str(folder)) from error
        raise
    return folder


def _common_shape(clips: ClipDataset) -> dict[str, int]:
    """Shape and frame rate shared by all clips."""
    rows = clips.table(["clip_id", *_SAME]).to_pylist()
    for row in rows:
        different = [name for name in _SAME if row[name] != rows[0][name]]
        if different:
            name = different[0]
            raise ExportError(
                f"clip {row['clip_id']} has {name} {row[name]:g}, clip {rows[0]['clip_id']} has {rows[0][name]:g}; a "
                f"LeRobot dataset has one {name}: export them separately"
            )
    if rows[0]["fps"] != int(rows[0]["fps"]):
        raise ExportError(
            f"the clips have {rows[0]['fps']:g} frames per second; LeRobot expects a whole number"
        )
    return {name: int(rows[0][name]) for name in _SAME}


class _Export:
    """One export: iterates over the clips once and keeps the metadata of all, but the pixels of one only."""

    def __init__(self, clips: ClipDataset, shape: Mapping[str, int], root: Path) -> None:
        self._clips, self._shape, self._root = clips, shape, root
        self._cameras = [f"observation.images.{view_column(view)}" for view in range(shape["num_views"])]
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._videos = {name: _VideoFiles(root / "videos" / name, shape["fps"]) for name in self._cameras}
        self._statistics = _Statistics()

    def write(self) -> None:
        path = self._root / "data" / _FILE.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        (self._root / "meta").mkdir()
        schema = _frame_schema(self._shape["num_views"])
        with pq.ParquetWriter(f"{path}.parquet", schema) as writer:
            for clip in _by_split(self._clips):
                writer.write_table(self._add(clip, schema))
        for videos in self._videos.values():
            videos.close()
        self._write_metadata()

    def _add(self, clip: Clip, schema: pa.Schema) -> pa.Table:
        """Copy the videos of a clip; return the rows of its frames."""
        row, episode, length = clip.metadata, len(self._episodes), self._shape["num_frames"]
        first = episode * length
        columns = [view_column(view) for view in range(self._shape["num_views"])]
        pixels = self._clips.read_row(clip.index, columns)
        places: dict[str, Any] = {}
        for name, column in zip(self._cameras, columns, strict=True):
            video = pixels[column]["bytes"]
            place = self._videos[name].append(video, length)
            places |= {f"videos/{name}/{key}": value for key, value in place.items()}
            if episode < STATISTICS_CLIPS:
                self._statistics.add_picture(name, _first_frame(video))
        task = row["caption"] or f"{row['title']}: {row['animation_name']}"
        task_index = self._tasks.setdefault(task, len(self._tasks))
        self._episodes.append(
            {
                "episode_index": episode,
                "tasks": [task],
                "length": length,
                "split": row["split"],
                "dataset_from_index": first,
                "dataset_to_index": first + length,
                "data/chunk_index": 0,
                "data/file_index": 0,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **places,
                **{name: row[name] for name in _CREDITS},
            }
        )
        return self._frames(row, episode, task_index, schema)

    def _frames(self, row: Mapping[str, Any], episode: int, task_index: int, schema: pa.Schema) -> pa.Table:
        """The rows of the frames of a clip, which also enter the statistics."""
        length = self._shape["num_frames"]
        frame = np.arange(length)
        values: dict[str, np.ndarray] = {
            "timestamp": (frame / self._shape["fps"]).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, episode),
            "index": episode * length + frame,
            "task_index": np.full(length, task_index),
        }
        for name in ("world_to_camera", "K"):
            flat = np.asarray(row[name], np.float32).reshape(1, -1)
            values[f"camera.{name}"] = np.repeat(flat, length, axis=0)
        for name, value in values.items():
            self._statistics.add(name, value)
        arrays = [
            pa.array(list(value) if value.ndim > 1 else value, field.type)
            for field, value in zip(schema, values.values(), strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _write_metadata(self) -> None:
        tasks = pa.table({"task_index": list(self._tasks.values()), "__index_level_0__": list(self._tasks)})
        # The captions are the index of the data frame that LeRobot reads from this file with pandas.
        tasks = tasks.replace_schema_metadata({"pandas": json.dumps(_TASKS_IN_PANDAS)})
        pq.write_table(tasks, self._root / "meta/tasks.parquet")
        episodes = self._root / "meta/episodes" / _FILE.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), f"{episodes}.parquet")
        self._write_json("stats", self._statistics.to_json())
        self._write_json("info", self._info())

    def _info(self) -> dict[str, Any]:
        shape = self._shape
        columns: dict[str, Any] = {
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **{
                name: {"dtype": "int64", "shape": [1], "names": None}
                for name in ("frame_index", "episode_index", "index", "task_index")
            },
            "camera.world_to_camera": {"dtype": "float32", "shape": [shape["num_views"] * 16], "names": None},
            "camera.K": {"dtype": "float32", "shape": [shape["num_views"] * 9], "names": None},
        }
        video = {
            "video.height": shape["height"],
            "video.width": shape["width"],
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": shape["fps"],
            "video.channels": 3,
            "has_audio": False,
        }
        for name in self._cameras:
            size = [shape["height"], shape["width"], 3]
            columns[name] = {
                "dtype": "video",
                "shape": size,
                "names": ["height", "width", "channels"],
                "info": video,
            }
        frames = len(self._episodes) * shape["num_frames"]
        return {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": len(self._episodes),
            "total_frames": frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": VIDEO_BYTES // 2**20,
            "fps": shape["fps"],
            "splits": self._splits(),
            "data_path": f"data/{_FILE}.parquet",
            "video_path": f"videos/{{video_key}}/{_FILE}.mp4",
            "features": columns,
        }

    def _splits(self) -> dict[str, str]:
        """First and last episode of each split, "first:last + 1"."""
        splits = [episode["split"] for episode in self._episodes]
        return {
            name: f"{splits.index(name)}:{splits.index(name) + splits.count(name)}"
            for name in SPLITS
            if name in splits
        }

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        (self._root / "meta" / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


_TASKS_IN_PANDAS = {
    "index_columns": ["__index_level_0__"],
    "column_indexes": [],
    "columns": [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {
            "name": None,
            "field_name": "__index_level_0__",
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": None,
        },
    ],
}


def _by_split(clips: ClipDataset) -> Iterator[Clip]:
    """The clips, all of a split one after another: LeRobot's splits are ranges of episodes."""
    splits = clips.table(["split"])["split"].to_pylist()
    for index in sorted(range(len(clips)), key=lambda index: SPLITS.index(splits[index])):
        yield clips[index]


def _frame_schema(views: int) -> pa.Schema:
    return pa.schema(
        [
            ("timestamp", pa.float32()),
            *((name, pa.int64()) for name in ("frame_index", "episode_index", "index", "task_index")),
            ("camera.world_to_camera", pa.list_(pa.float32(), views * 16)),
            ("camera.K", pa.list_(pa.float32(), views * 9)),
        ]
    )


class _VideoFiles:
    """The video files of one camera, to which clips are appended without encoding them again."""

    def __init__(self, folder: Path, fps: int) -> None:
        self._folder, self._fps = folder, fps
        self._file = -1
        self._container: Any = None
        self._stream: Any = None
        self._bytes = self._frames = 0
        self._extradata: bytes | None = None

    def append(self, video: bytes, frames: int) -> dict[str, Any]:
        """Append a clip; return its file and its time within the file in seconds."""
        with av.open(io.BytesIO(video), "r") as source:
            stream = source.streams.video[0]
            # The parameter sets of H.264 are stored once per file, so clips of another encoder start a new one.
            other_encoder = self._extradata != stream.codec_context.extradata
            if self._container is None or self._bytes > VIDEO_BYTES or other_encoder:
                self._open_next(stream)
            first = self._frames
            for packet in source.demux(stream):
                if packet.pts is None or packet.dts is None:  # the packet that ends the stream
                    continue
                ticks = Fraction(first, self._fps) / packet.time_base
                packet.pts, packet.dts = packet.pts + int(ticks), packet.dts + int(ticks)
                packet.stream = self._stream
                self._container.mux(packet)
        self._frames += frames
        self._bytes += len(video)
        chunk, file = divmod(self._file, FILES_PER_CHUNK)
        return {
            "chunk_index": chunk,
            "file_index": file,
            "from_timestamp": first / self._fps,
            "to_timestamp": self._frames / self._fps,
        }

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open_next(self, stream: Any) -> None:
        self.close()
        self._file += 1
        chunk, file = divmod(self._file, FILES_PER_CHUNK)
        path = self._folder / f"{_FILE.format(chunk_index=chunk, file_index=file)}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", options={"fflags": "+bitexact", "movflags": "+faststart"})
        self._stream = self._container.add_stream_from_template(stream)
        self._stream.time_base = stream.time_base
        self._extradata = stream.codec_context.extradata
        self._bytes = self._frames = 0


def _first_frame(video: bytes) -> np.ndarray:
    """The first frame of a video, float [H, W, 3] in 0..1."""
    with av.open(io.BytesIO(video), "r") as source:
        return next(source.decode(video=0)).to_ndarray(format="rgb24") / 255.0


class _Statistics:
    """Running minimum, maximum, mean and standard deviation of each column."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Any]] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        """Add rows of a column, [rows] or [rows, size]."""
        values = values.reshape(len(values), -1).astype(np.float64)
        sums = self._sums.setdefault(
            name, {"count": 0, "sum": 0.0, "squares": 0.0, "min": np.inf, "max": -np.inf}
        )
        sums["count"] += len(values)
        sums["sum"] = sums["sum"] + values.sum(axis=0)
        sums["squares"] = sums["squares"] + (values**2).sum(axis=0)
        sums["min"] = np.minimum(sums["min"], values.min(axis=0))
        sums["max"] = np.maximum(sums["max"], values.max(axis=0))

    def add_picture(self, name: str, picture: np.ndarray) -> None:
        """Add the pixels of a picture, [H, W, 3] in 0..1; statistics are per channel."""
        self.add(name, picture.reshape(-1, 3))

    def to_json(self) -> dict[str, Any]:
        """The statistics in LeRobot's form: pictures as [3, 1, 1]."""
        return {name: self._of(name, sums) for name, sums in self._sums.items()}

    def _of(self, name: str, sums: Mapping[str, Any]) -> dict[str, Any]:
        mean = sums["sum"] / sums["count"]
        deviation = np.sqrt(np.maximum(sums["squares"] / sums["count"] - mean**2, 0.0))
        values = {"min": sums["min"], "max": sums["max"], "mean": mean, "std": deviation}
        if name.startswith("observation.images."):
            values = {key: value.reshape(3, 1, 1) for key, value in values.items()}
        return {**{key: value.tolist() for key, value in values.items()}, "count": [sums["count"]]}
