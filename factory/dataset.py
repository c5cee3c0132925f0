"""Reading a dataset: from a folder or URL to arrays, a view and a frame at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.schema import alpha_column, pixel_columns, row_cameras, row_to_shot, view_column
from factory.video import decode_h264, unpack_alpha
from renderers.cameras import Cameras
from renderers.meshes.clip import RenderSettings, Shot, composite_in_place

Indices = int | slice | Sequence[int] | None


@dataclass(frozen=True)
class ClipArrays:
    """What was asked of a clip.

    Attributes:
        frames: uint8 [V, T, H, W, 4], straight alpha, the colour meaning nothing where alpha is 0; or
            [V, T, H, W, 3] on a background.
        cameras: of the V views. timestamps: float64 [T], seconds on the animation's time line.
    """

    frames: np.ndarray
    cameras: Cameras
    timestamps: np.ndarray


def load_clips(path_or_url: str | os.PathLike[str], split: str | None = None) -> ClipDataset:
    """Open a dataset: a folder, or any URL fsspec knows ("hf://datasets/org/mv-video", "s3://…").

    Reads the shards' footers and nothing else. `split`: one of "train", "validation", "test"; None = all.

    Raises:
        FileNotFoundError: there are no clips.
    """
    return ClipDataset(path_or_url, split)


class ClipDataset:
    """The clips of a dataset in the order of its shards. Pickles and forks: it keeps no file open."""

    def __init__(self, path_or_url: str | os.PathLike[str], split: str | None = None) -> None:
        self.url = os.fspath(path_or_url)
        self._fs, root = fsspec.core.url_to_fs(self.url)
        pattern = f"{root.rstrip('/')}/data/{split or '*'}/*.parquet"
        self._files: list[str] = sorted(self._fs.glob(pattern))
        if not self._files:
            raise FileNotFoundError(
                f"no clips in {self.url}: expected files like {pattern}; render some with "
                f"`python -m factory.render --out {self.url}`"
            )
        self._footers = [self._open(file).metadata for file in self._files]
        self._groups = [
            (file, group)
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        ]
        rows = [self._footers[file].row_group(group).num_rows for file, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(rows)])  # first clip of each group, and the end

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Clip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a dataset of {len(self)} clips")
        return Clip(self, index % len(self))

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"ClipDataset({self.url!r}, {len(self)} clips)"

    def clip(self, clip_id: str) -> Clip:
        """The clip of that name. Raises KeyError."""
        if clip_id not in self._index_of:
            raise KeyError(f"no clip {clip_id!r} among the {len(self)} of {self.url}")
        return self[self._index_of[clip_id]]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a clip, without pixels: what to filter by. `columns`: None = all that are not pixels."""
        return pa.concat_tables(
            self._open(file, footer).read(columns=list(columns) if columns else self.columns)
            for file, footer in zip(self._files, self._footers, strict=True)
        )

    @property
    def size_bytes(self) -> int:
        """Of all shards."""
        return sum(self._fs.size(file) for file in self._files)

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns that are not pixels."""
        names = self._footers[0].schema.to_arrow_schema().names
        pixels = set(pixel_columns(sum(name.startswith("view_") for name in names)))
        return [name for name in names if name not in pixels]

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.table(["clip_id"])["clip_id"].to_pylist())}

    def _place(self, index: int) -> tuple[int, int, int]:
        """File, row group and row in it of a clip."""
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return (*self._groups[place], index - int(self._starts[place]))

    def _row(self, index: int, columns: list[str]) -> dict[str, Any]:
        """Some columns of one clip; reads them for its row group, which is four clips."""
        file, group, row = self._place(index)
        table = self._open(self._files[file], self._footers[file]).read_row_group(group, columns)
        return table.slice(row, 1).to_pylist()[0]

    def _open(self, file: str, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
        return pq.ParquetFile(file, metadata=footer, filesystem=self._fs, pre_buffer=True)


class Clip:
    """One clip of a dataset; nothing of it is read before it is asked for."""

    def __init__(self, dataset: ClipDataset, index: int) -> None:
        self._dataset = dataset
        self.index = index

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Every column that is not pixels (docs/dataset.md)."""
        return self._dataset._row(self.index, self._dataset.columns)

    @property
    def clip_id(self) -> str:
        return self.metadata["clip_id"]

    @property
    def cameras(self) -> Cameras:
        return row_cameras(self.metadata)

    @property
    def timestamps(self) -> np.ndarray:
        """float64 [T], seconds on the animation's time line."""
        return np.asarray(self.metadata["timestamps"], np.float64)

    @property
    def shot(self) -> tuple[Shot, RenderSettings]:
        """What renders this clip again; see `factory.row_to_shot`."""
        return row_to_shot(self.metadata)

    def __repr__(self) -> str:
        return f"Clip({self.clip_id!r}: {self.metadata['title']!r}, {self.metadata['animation_name']!r})"

    def read(
        self, views: Indices = None, frames: Indices = None, background: Sequence[int] | None = None
    ) -> ClipArrays:
        """The pixels of some views and frames.

        Only the columns of these views are read, and of their videos only the groups of pictures with these
        frames are decoded.

        Args:
            views, frames: an index, a slice or a list, negative ones from the end; None = all.
            background: RGB 0-255 to put the clip on; None keeps alpha. MV-VDM wants (127, 127, 127), DIMO
                (255, 255, 255).
        Raises:
            IndexError: a view or frame the clip does not have. ValueError: damaged pixels.
        """
        row = self.metadata
        views, frames = _pick(views, row["num_views"], "view"), _pick(frames, row["num_frames"], "frame")
        wanted = sorted(set(views))
        cells = self._dataset._row(
            self.index, [f(view) for view in wanted for f in (view_column, alpha_column)]
        )
        arrays = np.empty((len(views), len(frames), row["height"], row["width"], 4), np.uint8)
        for place, view in enumerate(views):
            try:
                arrays[place] = decode_h264(cells[view_column(view)]["bytes"], frames, channels=4)
                arrays[place, ..., 3] = unpack_alpha(cells[alpha_column(view)], frames)
            except ValueError as error:
                file = self._dataset._files[self._dataset._place(self.index)[0]]
                raise ValueError(
                    f"clip {self.clip_id}, view {view}, in {file}: {error}. The shard is damaged; compare "
                    f"its sha256 with _factory/shards and fetch or pack it again"
                ) from error
            if background is not None:
                composite_in_place(arrays[place], background)
        return ClipArrays(
            frames=arrays if background is None else arrays[..., :3],
            cameras=self.cameras[views],
            timestamps=self.timestamps[frames],
        )


def _pick(indices: Indices, count: int, what: str) -> list[int]:
    try:
        picked = np.arange(count)[slice(None) if indices is None else indices]
    except IndexError:
        raise IndexError(f"{what} {indices} of a clip with {count} {what}s") from None
    return np.atleast_1d(picked).tolist()
